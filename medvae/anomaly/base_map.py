"""What an anomaly map is: a small class that may own healthy statistics. Its file offers it under the name `Map`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from medvae.anomaly.inference import Inference
    from medvae.statistics import Moments

    Arrays = Mapping[str, NDArray[Any]]

Unit = Literal["z", "nats", "a.u.", "probability"]


class BaseMap:
    """Base class of all maps. A map without healthy statistics overrides `map` alone.

    - `map(inference, arrays)` is float32 `(X, Y, Z)` on the grid: 0 outside the foreground, higher = less normal.
    - `statistics(inference, arrays)` gives what is summed over healthy scans, arrays by name. An array with the grid's
      shape at its end counts inside the foreground only. Sums are all that is kept of a scan, and it can be taken out
      of them again: this is how a healthy scan is compared with the others alone, without fitting anything twice.
    - `fit(healthy)` turns the sums into the arrays that `map` is given. They are stored in the checkpoint.

    Attributes:
        UNIT: of the values.
        NEEDS_ALIGNMENT: whether a voxel has to be the same place in every scan.
        NEEDS_DETECTOR: whether the model has to have a detector.
        STANDARDISED: whether values are divided by their root mean square over healthy scans.
        KEEPS_TRAINING: whether calibration keeps the arrays of the training scans.
        COSTLY: whether its healthy statistics are computed only where `detect.maps` names it.
        OF_ONE_NETWORK: whether `statistics` is in coordinates of the network, such as codes: sums over scans of several
            networks mean nothing.
        FIXED_OPTIONS: options that the statistics of the training scans depend on: calibration cannot change them.
        USES: names of other maps; their arrays and maps of the same scan are in `arrays.used`.
        USES_LEFT_OUT: whether `statistics` sees the maps in `USES` as a new scan would have them: compared with the
            other healthy scans, itself left out.
        settings: options of this map; an instance of the `Settings` of its file, if there is one.
    """

    UNIT: ClassVar[Unit] = "a.u."
    NEEDS_ALIGNMENT: ClassVar[bool] = False
    NEEDS_DETECTOR: ClassVar[bool] = False
    STANDARDISED: ClassVar[bool] = False
    KEEPS_TRAINING: ClassVar[bool] = False
    COSTLY: ClassVar[bool] = False
    OF_ONE_NETWORK: ClassVar[bool] = False
    FIXED_OPTIONS: ClassVar[tuple[str, ...]] = ()
    USES: ClassVar[tuple[str, ...]] = ()
    USES_LEFT_OUT: ClassVar[bool] = False

    def __init__(self, settings: BaseModel) -> None:
        self.settings: Any = settings

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """What is summed over healthy scans; `arrays` itself is empty, only `arrays.used` is known."""
        return {}

    def fit(self, healthy: Healthy) -> Arrays:
        """The arrays that `map` needs."""
        return {}

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        raise NotImplementedError

    def pseudo_healthy(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32] | None:
        """The scan without what the map marks, in prepared intensities `(C, X, Y, Z)`; None if it has no such image."""
        return None


@dataclass(frozen=True, eq=False)
class Healthy:
    """What a map's `fit` is given.

    Attributes:
        moments: sums over the healthy scans, by the names that `statistics` gave.
        spacing: voxel size of the model's grid, mm.
        training: what `fit` gave for the training scans, where the model is calibrated on others; else None.
    """

    moments: Mapping[str, Moments]
    spacing: tuple[float, float, float]
    training: Arrays | None


class MapArrays(Mapping[str, "NDArray[Any]"]):
    """The arrays of one map by name, and for one scan the maps that it uses.

    Attributes:
        used: by name, the maps in `USES`: each with its own arrays, and its `map` of this scan.
    """

    def __init__(self, method: BaseMap, inference: Inference, *, arrays: Arrays, used: Mapping[str, MapArrays]) -> None:
        self._method, self._inference, self._arrays = method, inference, arrays
        self.used = used

    @cached_property
    def map(self) -> NDArray[np.float32]:
        """The map of this scan as its `map` gave it, not yet standardised; computed once, float32 `(X, Y, Z)`."""
        return self._method.map(self._inference, self)

    @cached_property
    def pseudo_healthy(self) -> NDArray[np.float32] | None:
        """The scan without what the map marks, `(C, X, Y, Z)`; None if the map has no such image."""
        return self._method.pseudo_healthy(self._inference, self)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
