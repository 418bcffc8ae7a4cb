"""Distance of each latent cell from the codes of healthy scans, by Mahalanobis with a shrunk covariance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.maps._normative import Scales, gathered
from medvae.settings import Frozen
from medvae.statistics import PRIOR_STRENGTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference

_RIDGE = 0.05  # share of the mean variance of a unit that is added to each


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (3.0, 6.0, 9.0)


class Map(BaseMap):
    """Mean over `scales_mm` of G_σ d / √C, less 1, with d² = (μ − m)' S⁻¹ (μ − m) of each latent cell.

    μ are the C posterior means of a cell, m and S their mean and covariance over healthy scans at that place; where
    scans are not aligned, over all cells. With few scans the covariance of a place is shrunk towards that of all places
    (as Ledoit and Wolf, 2004, but with a fixed weight), and m and S towards those of the training scans. Between the
    centres of cells d is interpolated. Cells without foreground do not count. A latent without place has one d.
    """

    UNIT = "z"
    STANDARDISED = True
    OF_ONE_NETWORK = True

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """Posterior means `(C, *cells)` and their products `(C, C, *cells)`; means over cells where not aligned."""
        codes = _codes(inference)
        found = {"codes": codes, "products": codes[:, None] * codes[None]}
        if inference.model.preparation.aligned:
            return found
        return {name: np.nanmean(one, axis=(-3, -2, -1), keepdims=True) for name, one in found.items()}

    def fit(self, healthy: Healthy) -> Arrays:
        """The mean `(C, *cells)` and the shrunk covariance `(C, C, *cells)`.

        S ← (n S + k S₀)/(n + k) with k = 8; S₀ is the mean of S over the cells, or the S of the training scans at the
        level of these ones. m is shrunk towards the training scans' likewise.
        """
        first, second = healthy.moments["codes"], healthy.moments["products"]
        count = first.count[0]
        n = np.maximum(count, 1)
        mean = first.total / n
        spread = second.total / n - mean[:, None] * mean[None]
        if count.shape != (1, 1, 1):  # of one scan at a place nothing can be said about the spread
            spread = spread * n / np.maximum(n - 1, 1)
        typical = _typical(spread, count)
        target, error = typical[..., None, None, None], 1 / n
        if healthy.training is not None:
            before = healthy.training["covariance"].astype(np.float64)
            level = np.trace(typical) / max(float(np.trace(_typical(before, count))), 1e-12)
            target, error = before * level, 1 / (n + PRIOR_STRENGTH)
            mean = (count * mean + PRIOR_STRENGTH * healthy.training["mean"]) / (count + PRIOR_STRENGTH)
        covariance = (count * spread + PRIOR_STRENGTH * target) / (count + PRIOR_STRENGTH)
        return {"mean": mean.astype(np.float32), "covariance": (covariance * (1 + error)).astype(np.float32)}

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        codes, shape = _codes(inference), inference.foreground.shape
        distance = distances(codes - arrays["mean"], arrays["covariance"]) / math.sqrt(len(codes))
        known = torch.from_numpy(np.nan_to_num(distance, nan=1.0).astype(np.float32))[None, None]
        sizes = F.interpolate(known, size=shape, mode="trilinear", align_corners=False)[0, 0].numpy()
        return gathered(sizes, inference, scales_mm=self.settings.scales_mm, expected=1.0)


def distances(apart: NDArray[np.float64], covariance: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mahalanobis distance of each cell: √(a' S⁻¹ a).

    Args:
        apart: a, `(C, *cells)`.
        covariance: S, `(C, C, *cells)`, or of cells `(1, 1, 1)` for all of them.
    """
    last = np.moveaxis(covariance.astype(np.float64), (0, 1), (-2, -1))
    size = np.trace(last, axis1=-2, axis2=-1)[..., None, None] / last.shape[-1]
    ridge = np.maximum(_RIDGE * size, 1e-12) * np.eye(last.shape[-1])
    vectors = np.moveaxis(apart, 0, -1)[..., None]
    solved = np.linalg.solve(last + ridge, vectors)
    squared: NDArray[np.float64] = np.maximum((vectors * solved).sum(axis=(-2, -1)), 0)
    return np.sqrt(squared)


def _codes(inference: Inference) -> NDArray[np.float64]:
    """The posterior means `(C, *cells)`, NaN in cells without foreground; one cell of a latent without place."""
    codes = inference.posterior.mean[0].double().cpu().numpy()
    if codes.ndim == 1:
        return codes[:, None, None, None]
    inside = torch.from_numpy(inference.foreground.astype(np.float32))[None, None]
    share = F.adaptive_avg_pool3d(inside, codes.shape[1:])[0, 0].numpy()
    return np.where(share > 0, codes, np.nan)


def _typical(covariance: NDArray[np.floating], count: NDArray[np.floating]) -> NDArray[np.float64]:
    """The mean covariance of the cells that two scans have, `(C, C)`; that of a unit normal where there is none."""
    cells = covariance[..., count >= min(2, max(count.max(), 1))].astype(np.float64)
    return cells.mean(axis=-1) if cells.shape[-1] and np.any(cells) else np.eye(len(covariance))
