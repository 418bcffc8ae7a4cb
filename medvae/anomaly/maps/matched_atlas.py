"""Distance from the mean training scan in the scan's own grey values, at several scales, in SD of healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.maps._matched import Matched
from medvae.anomaly.maps._normative import Scales
from medvae.settings import Frozen
from medvae.statistics import Normal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)


class Map(Matched):
    """|z| of x minus the mean of the training scans at each voxel. It needs no network."""

    USES = ("atlas",)

    def expected(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The mean of the training scans."""
        return Normal.from_arrays(arrays.used["atlas"]).mean
