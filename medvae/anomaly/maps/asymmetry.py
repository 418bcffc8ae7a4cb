"""Difference between left and right in SD of healthy scans, on the side that is unusual; needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.maps._shared import EXPECTED, averaged_inside, smooth_inside
from medvae.anomaly.statistics import Normal
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference
    from medvae.scan import Geometry


class Settings(Frozen):
    """Options of the map."""

    scales_mm: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (3.0, 6.0, 9.0), min_length=1, description="σ of the smoothing Gaussians; large lesions need larger ones"
    )
    smooth_mm: float = Field(0.0, ge=0, description="σ of the Gaussian that smooths the difference itself, mm")
    side_mm: float = Field(4.0, ge=0, description="σ of the neighbourhood that decides between the two sides, mm")


class Map(BaseMap):
    """Mean over scales of G_σ (w |(d − μ) / s|), less its healthy expectation; d = x − x mirrored about x = 0 mm.

    Both sides have the same |z|. w = 2 R² / (R² + R'²) divides it between them, R the smoothed `atlas` map and R' the
    same on the other side: the unusual side lights up. A voxel whose counterpart is not foreground is neutral.
    """

    UNIT = "z"
    NEEDS_ALIGNMENT = True
    STANDARDISED = True
    FIXED_OPTIONS = ("smooth_mm",)
    USES = ("atlas",)

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """The difference; NaN where there is none."""
        return {"difference": self.difference(inference)}

    def fit(self, healthy: Healthy) -> Arrays:
        """Mean and spread of the difference, shrunk towards those of the training scans where there are others."""
        prior = None if healthy.training is None else Normal.from_arrays(healthy.training)
        return healthy.moments["difference"].normal(spacing=healthy.spacing, prior=prior).to_arrays()

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        z = np.abs(Normal.from_arrays(arrays).z(self.difference(inference))).mean(axis=0)
        grid, inside = inference.prepared.grid, inference.foreground
        unusual = smooth_inside(arrays.used["atlas"].map, inside, spacing=grid.spacing, mm=self.settings.side_mm)
        shared = np.nan_to_num(z * _side(unusual, grid), nan=EXPECTED)
        return averaged_inside(
            shared, inside, spacing=grid.spacing, scales_mm=self.settings.scales_mm, expected=EXPECTED
        )

    def difference(self, inference: Inference) -> NDArray[np.float32]:
        """x − x mirrored, smoothed, `(C, X, Y, Z)`; NaN where a voxel or its counterpart is not foreground."""
        prepared = inference.prepared
        image = np.where(prepared.mask, prepared.image, np.float32(np.nan))
        difference = image - np.stack([mirrored(channel, prepared.grid) for channel in image])
        known = ~np.isnan(difference[0])
        mm, spacing = self.settings.smooth_mm, prepared.grid.spacing
        smooth = [smooth_inside(channel, known, spacing=spacing, mm=mm) for channel in difference]
        return np.where(known, np.stack(smooth), np.float32(np.nan))


def mirrored(values: NDArray[np.float32], grid: Geometry) -> NDArray[np.float32]:
    """Values at −x in world coordinates, interpolated linearly along x; NaN outside the grid.

    Args:
        values: `(X, Y, Z)` on a grid along R, A, S in a space whose middle plane is x = 0 mm.
        grid: of the values.
    """
    last = -2 * grid.affine[0, 3] / grid.spacing[0]  # the counterpart of index i lies at last − i
    low = int(np.floor(last + 1e-6))
    part = np.float32(max(0.0, last - low))
    if part < 1e-6:
        return _reversed(values, low)
    between: NDArray[np.float32] = (1 - part) * _reversed(values, low) + part * _reversed(values, low + 1)
    return between


def _reversed(values: NDArray[np.float32], last: int) -> NDArray[np.float32]:
    """Values at index last − i along the first axis; NaN outside."""
    index = last - np.arange(len(values))
    there = (index >= 0) & (index < len(values))
    result = np.full_like(values, np.nan)
    result[there] = values[index[there]]
    return result


def _side(unusual: NDArray[np.float32], grid: Geometry) -> NDArray[np.float32]:
    """From 0 to 2, the two sides together 2: how much of what is unusual at a place and its counterpart is here."""
    here, there = unusual**2, np.nan_to_num(mirrored(unusual, grid)) ** 2
    share: NDArray[np.float32] = 2 * here / np.maximum(here + there, np.float32(1e-12))
    return share
