"""The residual in units of its healthy spread at each voxel, averaged over smoothing scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.maps._normative import Normative, Scales, Winsor
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
    winsor: Winsor = 1.0


class Map(Normative):
    """|z| of r, the residual of the winsorised scan: what clipping costs a healthy scan is part of what is expected."""

    FIXED_OPTIONS = ("winsor",)
    USES = ("atlas",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The residual of the winsorised scan."""
        return self.residual(inference, Normal.from_arrays(arrays.used["atlas"]))

    def residual(self, inference: Inference, image: Normal) -> NDArray[np.float32]:
        """x − x̂ with x̂ the reconstruction of the winsorised scan: x clipped to μ ± w s of the training scans.

        A lesion beyond that cannot be copied into the reconstruction.

        Args:
            inference: of the scan.
            image: mean μ and spread s of the training scans' prepared images.
        """
        return inference.residual_within(*image.interval(self.settings.winsor))
