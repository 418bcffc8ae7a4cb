"""What several maps need: smoothing that stays within the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.prepare.grid import box_around

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference


def smooth_foreground(values: NDArray[np.float32], inference: Inference, *, mm: float) -> NDArray[np.float32]:
    """`smooth_inside` the foreground of a scan, whose G(m) is computed once for all maps."""
    inside, spacing = inference.foreground, inference.prepared.grid.spacing
    weight = inference.once(("smoothed foreground", mm), lambda: _smooth(np.float32(1), inside, spacing=spacing, mm=mm))
    return _normalised(values, inside, weight, spacing=spacing, mm=mm)


def smooth_inside(
    values: NDArray[np.float32], mask: NDArray[np.bool_], *, spacing: tuple[float, float, float], mm: float
) -> NDArray[np.float32]:
    """Gaussian of σ = `mm` over the mask only (normalised convolution): G(v·m) / G(m), 0 outside."""
    weight = _smooth(np.float32(1), mask, spacing=spacing, mm=mm)
    return _normalised(values, mask, weight, spacing=spacing, mm=mm)


def _normalised(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    weight: NDArray[np.float32],
    *,
    spacing: tuple[float, float, float],
    mm: float,
) -> NDArray[np.float32]:
    """G(v·m) / G(m), G(m) being known in the box around the mask."""
    box, result = box_around(mask), np.zeros(mask.shape, np.float32)
    smooth = _smooth(values, mask, spacing=spacing, mm=mm)
    result[box] = np.where(mask[box], smooth / np.maximum(weight, 1e-6), np.float32(0))
    return result


def _smooth(
    values: NDArray[np.float32] | np.float32,
    mask: NDArray[np.bool_],
    *,
    spacing: tuple[float, float, float],
    mm: float,
) -> NDArray[np.float32]:
    """G(v·m) in the box around the mask; nothing beyond the mask is needed of it."""
    box = box_around(mask)
    kept = np.where(mask, values, np.float32(0))[box]
    if mm <= 0:
        return kept
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(kept, mm / np.array(spacing), truncate=3, mode="constant")
    return smooth
