"""Difference between left and right in SD of healthy scans, on the side that is unusual; needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.anomaly.maps._normative import Normative, Scales
from medvae.anomaly.maps._shared import smooth_foreground, smooth_inside
from medvae.prepare.grid import difference_of_sides, mirrored
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference
    from medvae.scan import Geometry


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (3.0, 6.0, 9.0)
    smooth_mm: float = Field(0.0, ge=0, description="σ of the Gaussian that smooths the difference itself, mm")
    side_mm: float = Field(4.0, ge=0, description="σ of the neighbourhood that decides between the two sides, mm")


class Map(Normative):
    """|z| of d = x − x mirrored about x = 0 mm, times 2 R² / (R² + R'²); neutral where a voxel has no counterpart.

    Both sides have the same |z|. R is the smoothed `atlas` map and R' the same on the other side: the unusual side
    lights up.
    """

    FIXED_OPTIONS = ("smooth_mm",)
    USES = ("atlas",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The difference; NaN where there is none."""
        return self.difference(inference)

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """|z|, most of it on the unusual side."""
        grid, mm = inference.prepared.grid, self.settings.side_mm
        unusual = smooth_foreground(arrays.used["atlas"].map, inference, mm=mm)
        return super().sizes(inference, arrays) * _side(unusual, grid)

    def difference(self, inference: Inference) -> NDArray[np.float32]:
        """x − x mirrored, smoothed, `(C, X, Y, Z)`; NaN where a voxel or its counterpart is not foreground."""
        prepared = inference.prepared
        inside, grid = inference.foreground, prepared.grid
        difference = np.stack([difference_of_sides(channel, inside, grid) for channel in prepared.image])
        known = ~np.isnan(difference[0])
        mm = self.settings.smooth_mm
        smooth = [smooth_inside(channel, known, spacing=grid.spacing, mm=mm) for channel in difference]
        return np.where(known, np.stack(smooth), np.float32(np.nan))


def _side(unusual: NDArray[np.float32], grid: Geometry) -> NDArray[np.float32]:
    """From 0 to 2, the two sides together 2: how much of what is unusual at a place and its counterpart is here."""
    here, there = unusual**2, np.nan_to_num(mirrored(unusual, grid)) ** 2
    share: NDArray[np.float32] = 2 * here / np.maximum(here + there, np.float32(1e-12))
    return share
