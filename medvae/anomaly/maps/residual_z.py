"""The residual in units of its healthy spread at each voxel, averaged over smoothing scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.maps._shared import EXPECTED, averaged_inside
from medvae.anomaly.statistics import Normal
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.0, 3.0, 6.0), min_length=1, description="σ of the smoothing Gaussians; large lesions need larger ones"
    )
    winsor: float = Field(
        1.0, gt=0, description="values are clipped to the training mean ± this many SD at each voxel before encoding"
    )


class Map(BaseMap):
    """Mean over scales of G_σ |(r − μ) / s| inside the foreground, less its healthy expectation.

    r is the residual of the winsorised scan, μ and s its mean and spread over healthy scans; a unit normal has
    E|z| = √(2/π). What is left is divided by its healthy root mean square, so that the unit is z.
    """

    UNIT = "z"
    NEEDS_ALIGNMENT = True
    STANDARDISED = True
    FIXED_OPTIONS = ("winsor",)
    USES = ("atlas",)

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """The residual of the winsorised scan: what clipping costs a healthy scan is part of what is expected."""
        return {"residual": self.residual(inference, Normal.from_arrays(arrays.used["atlas"]))}

    def fit(self, healthy: Healthy) -> Arrays:
        """Mean and spread of the residual, shrunk towards those of the training scans where there are others."""
        prior = None if healthy.training is None else Normal.from_arrays(healthy.training)
        return healthy.moments["residual"].normal(spacing=healthy.spacing, prior=prior).to_arrays()

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        residual = self.residual(inference, Normal.from_arrays(arrays.used["atlas"]))
        z = np.abs(Normal.from_arrays(arrays).z(residual)).mean(axis=0)
        inside, spacing = inference.foreground, inference.prepared.grid.spacing
        return averaged_inside(z, inside, spacing=spacing, scales_mm=self.settings.scales_mm, expected=EXPECTED)

    def residual(self, inference: Inference, image: Normal) -> NDArray[np.float32]:
        """x − x̂ with x̂ the reconstruction of the winsorised scan: x clipped to μ ± w s of the training scans.

        A lesion beyond that cannot be copied into the reconstruction.

        Args:
            inference: of the scan.
            image: mean μ and spread s of the training scans' prepared images.
        """
        reach = np.float32(self.settings.winsor) * image.sd
        return inference.residual_within(image.mean - reach, image.mean + reach)
