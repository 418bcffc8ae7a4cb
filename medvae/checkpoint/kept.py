"""What a checkpoint keeps of its training scans: their posteriors, and some of the scans themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.checkpoint.arrays import ArraySet
from medvae.prepare.intensity import Intensity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.scan import Units

_COLUMNS = ("ids", "subjects", "labels", "hashes", "conditions")


@dataclass(frozen=True, eq=False)
class Latents:
    """Posteriors of the training scans.

    Attributes:
        mean: float32 `(N, C, *latent)`.
        log_variance: float32, the same shape.
        ids: of the scans.
        subjects: who was scanned.
        labels: class of each scan, or None.
        hashes: `scan_hash` of each scan.
        conditions: of each scan (`ScanRef.conditions`); empty where none are known.
    """

    mean: NDArray[np.float32] = field(repr=False)
    log_variance: NDArray[np.float32] = field(repr=False)
    ids: Sequence[str]
    subjects: Sequence[str]
    labels: Sequence[str | None]
    hashes: Sequence[str]
    conditions: Sequence[Mapping[str, float | str]] = ()

    def to_set(self) -> ArraySet:
        """As a checkpoint keeps it."""
        arrays = {"mean": self.mean, "log_variance": self.log_variance}
        return ArraySet(arrays, {name: list(getattr(self, name)) for name in _COLUMNS})

    @classmethod
    def from_set(cls, kept: ArraySet) -> Latents:
        """What `to_set` gave.

        Raises:
            ValueError: the columns are not of one length.
        """
        facts = {name: kept.facts[name] for name in _COLUMNS}
        if any(len(facts[name]) != len(kept.arrays["mean"]) for name in _COLUMNS[:-1]):
            raise ValueError("the posteriors are of other scans than the list beside them")
        return cls(kept.arrays["mean"], kept.arrays["log_variance"], **facts)


@dataclass(frozen=True, eq=False)
class TrainingScans:
    """Prepared training scans, for the copy audit and the `classical` sampler.

    Attributes:
        images: float16 `(M, 1, X, Y, Z)`, prepared intensities.
        masks: bool `(M, 1, X, Y, Z)`.
        label_maps: int16 `(M, 1, X, Y, Z)`, or None where the scans have none.
        intensities: the value map of each scan.
        ids: of the scans.
        units: of the scans' values.
    """

    images: NDArray[np.float16] = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    label_maps: NDArray[np.int16] | None = field(repr=False)
    intensities: Sequence[Intensity]
    ids: Sequence[str]
    units: Units = "a.u."

    def to_set(self) -> ArraySet:
        """As a checkpoint keeps it."""
        arrays: dict[str, NDArray[Any]] = {"images": self.images, "masks": self.masks.astype(np.uint8)}
        if self.label_maps is not None:
            arrays["label_maps"] = self.label_maps
        intensities = [_finite(asdict(one)) for one in self.intensities]
        return ArraySet(arrays, {"ids": list(self.ids), "units": self.units, "intensities": intensities})

    @classmethod
    def from_set(cls, kept: ArraySet) -> TrainingScans:
        """What `to_set` gave.

        Raises:
            ValueError: the columns are not of one length.
        """
        intensities = [Intensity(**_infinite(one)) for one in kept.facts["intensities"]]
        ids, images = kept.facts["ids"], kept.arrays["images"]
        if not len(images) == len(intensities) == len(ids):
            raise ValueError("the images are of other scans than the list beside them")
        masks = kept.arrays["masks"].astype(bool)
        return cls(images, masks, kept.arrays.get("label_maps"), intensities, ids, kept.facts["units"])


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: a bound that is not there is null."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def _infinite(values: dict[str, float | None]) -> dict[str, float]:
    ends = {"low": -np.inf, "high": np.inf}
    return {name: ends[name] if value is None else value for name, value in values.items()}
