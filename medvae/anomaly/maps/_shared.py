"""What several maps need: smoothing that stays within the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
