"""What scans are compared by: intensity and fine detail, averaged over cells. No network, which would favour its own.

The encoder that a sample was decoded from finds its own samples good; an untrained or a natural-image network says
little of scans. Both kinds of value are means over cells of the grid: of the prepared intensity, which tells shape,
size and contrast, and of |image − its mean over 3³ voxels|, which tells how sharp and how noisy a place is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.evaluation.image_set import ImageSet

TOTAL = 2  # variance of the features of training scans, summed: 1 of each kind
_CELLS = 12  # along the longest axis of the grid
ABOUT = "cell means of prepared intensity and of |image − local mean|, each with unit total variance in training scans"


@dataclass(frozen=True, eq=False)
class Features:
    """Features of scans, centred and scaled by the real training scans.

    Attributes:
        means: of intensities and of detail, each `(cells,)`.
        scales: of both, `(2,)`.
    """

    means: tuple[NDArray[np.float64], NDArray[np.float64]] = field(repr=False)
    scales: NDArray[np.float64] = field(repr=False)

    @classmethod
    def fit(cls, training: ImageSet) -> Self:
        """Both kinds of value get a total variance of 1 over the training scans."""
        coarse, detail = _cells(training)
        totals = np.array([one.var(axis=0).sum() for one in (coarse, detail)])
        return cls((coarse.mean(axis=0), detail.mean(axis=0)), np.sqrt(np.where(totals > 0, totals, 1)))

    def of(self, scans: ImageSet) -> NDArray[np.float64]:
        """`(n, F)`, one row per scan; the total variance of the training scans is `TOTAL`."""
        triples = zip(_cells(scans), self.means, self.scales, strict=True)
        return np.concatenate([(values - mean) / scale for values, mean, scale in triples], axis=1)


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of the features of real training scans.

    Attributes:
        mean: `(F,)`.
        axes: `(d, F)`, by falling variance.
    """

    mean: NDArray[np.float64] = field(repr=False)
    axes: NDArray[np.float64] = field(repr=False)

    @classmethod
    def fit(cls, features: NDArray[np.float64], count: int) -> Self:
        """The first `count` components of `(n, F)`."""
        mean = features.mean(axis=0)
        _, _, axes = np.linalg.svd(features - mean, full_matrices=False)
        return cls(mean, axes[:count])

    def of(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(n, F)` -> `(n, d)`."""
        scores: NDArray[np.float64] = (features - self.mean) @ self.axes.T
        return scores


def _cells(scans: ImageSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell means of intensities and of detail, both `(n, cells)`."""
    coarse, detail = [], []
    for image in scans.images:
        values = image[0].astype(np.float32)
        coarse.append(_means(values))
        detail.append(_means(np.abs(values - ndimage.uniform_filter(values, 3))))
    return np.stack(coarse), np.stack(detail)


def _means(values: NDArray[np.float32]) -> NDArray[np.float64]:
    size = max(1, -(-max(values.shape) // _CELLS))
    x, y, z = (-(-n // size) for n in values.shape)
    pooled = F.adaptive_avg_pool3d(torch.from_numpy(values)[None, None], (x, y, z))
    return pooled.flatten().double().numpy()
