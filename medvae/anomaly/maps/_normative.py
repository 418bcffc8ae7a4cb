"""Base of the maps that compare a value of each voxel with its mean and spread over healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.maps._shared import smooth_foreground
from medvae.statistics import Normal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference

Scales = Annotated[
    tuple[Annotated[float, Field(ge=0)], ...],
    Field(min_length=1, description="σ of the smoothing Gaussians; large lesions need larger ones"),
]
Winsor = Annotated[
    float,
    Field(gt=0, description="values are clipped to the training mean ± this many SD at each voxel before encoding"),
]


class Normative(BaseMap):
    """Mean over `scales_mm` of G_σ |(v − μ) / s| inside the foreground, less √(2/π), its expectation for a unit normal.

    v is what `values` gives, μ and s its mean and spread over healthy scans. What is left is divided by its healthy
    root mean square, so that the unit is z. A map derives from this class and implements `values`; its `Settings` have
    `scales_mm`. Where v is NaN nothing is known of a voxel, and it is neutral. Where scans are not aligned a voxel has
    no fixed place, and μ and s are those of all foreground voxels.
    """

    UNIT = "z"
    STANDARDISED = True
    EXPECTED: ClassVar[float] = float(np.sqrt(2 / np.pi))  # of what `sizes` gives of a healthy scan

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """What is compared, `(C, X, Y, Z)`; NaN where it is not known. Of `arrays` only `used` may be read."""
        raise NotImplementedError

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """|z| by voxel, the mean over channels, `(X, Y, Z)`."""
        z = Normal.from_arrays(arrays).z(self.values(inference, arrays))
        sizes: NDArray[np.float32] = np.abs(z).mean(axis=0)
        return sizes

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """The values; where scans are not aligned, the means over the foreground of them and of their squares."""
        values = self.values(inference, arrays)
        if inference.model.preparation.aligned:
            return {"values": values}
        inside = values[:, inference.foreground].astype(np.float64)
        means = {"first": np.nanmean(inside, axis=1), "second": np.nanmean(inside**2, axis=1)}
        return {name: one[:, None, None, None] for name, one in means.items()}

    def fit(self, healthy: Healthy) -> Arrays:
        """Mean and spread of the values, shrunk towards those of the training scans where there are others."""
        if "first" in healthy.moments:
            return _of_all_voxels(healthy).to_arrays()
        prior = None if healthy.training is None else Normal.from_arrays(healthy.training)
        return healthy.moments["values"].normal(spacing=healthy.spacing, prior=prior).to_arrays()

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        sizes = np.nan_to_num(self.sizes(inference, arrays), nan=self.EXPECTED)
        return gathered(sizes, inference, scales_mm=self.settings.scales_mm, expected=self.EXPECTED)


class Excess(Normative):
    """As `Normative`, of z itself: a value below the healthy mean is not an anomaly. The expectation of z is 0."""

    EXPECTED = 0.0

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """z by voxel, the mean over channels, `(X, Y, Z)`."""
        z: NDArray[np.float32] = Normal.from_arrays(arrays).z(self.values(inference, arrays)).mean(axis=0)
        return z


def _of_all_voxels(healthy: Healthy) -> Normal:
    """Mean and spread over the voxels of all scans, each scan weighing the same, `(C, 1, 1, 1)`.

    There are enough voxels: nothing is shrunk, and the training scans are not asked, unless there is no scan at all (of
    one healthy scan, left out, none is left). Where there are none either, the values are their own z.
    """
    first, second = healthy.moments["first"], healthy.moments["second"]
    if healthy.training is not None and not first.count.any():
        return Normal.from_arrays(healthy.training)
    mean, square = (one.total / np.maximum(one.count, 1) for one in (first, second))
    variance = np.where(first.count > 0, square - mean**2, 1.0)
    return Normal(mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32))


def gathered(
    sizes: NDArray[np.float32], inference: Inference, *, scales_mm: Sequence[float], expected: float
) -> NDArray[np.float32]:
    """The mean over scales of G_σ `sizes` inside the foreground, less what is expected; 0 outside."""
    smooth = [smooth_foreground(sizes, inference, mm=mm) for mm in scales_mm]
    return np.where(inference.foreground, np.mean(smooth, axis=0) - np.float32(expected), np.float32(0))
