"""What several maps need: smoothing that stays within the foreground, and averages over scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

EXPECTED = float(np.sqrt(2 / np.pi))  # E|z| of a unit normal


def smooth_inside(
    values: NDArray[np.float32], mask: NDArray[np.bool_], *, spacing: tuple[float, float, float], mm: float
) -> NDArray[np.float32]:
    """Gaussian of σ = `mm` over the foreground only (normalised convolution): G(v·m) / G(m), 0 outside."""
    if mm <= 0:
        return np.where(mask, values, np.float32(0))
    sigma = mm / np.array(spacing)
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=3)
    smooth = ndimage.gaussian_filter(np.where(mask, values, np.float32(0)), sigma, truncate=3)
    result: NDArray[np.float32] = np.where(mask, smooth / np.maximum(weight, 1e-6), np.float32(0))
    return result.astype(np.float32)


def averaged_inside(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    spacing: tuple[float, float, float],
    scales_mm: Sequence[float],
    expected: float,
) -> NDArray[np.float32]:
    """The mean over scales of values smoothed inside the foreground, less what is expected; 0 outside."""
    smooth = [smooth_inside(values, mask, spacing=spacing, mm=mm) for mm in scales_mm]
    return np.where(mask, np.mean(smooth, axis=0) - np.float32(expected), np.float32(0))
