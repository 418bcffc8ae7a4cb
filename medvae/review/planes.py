"""A small picture of a scan without a map: three planes through the middle of its foreground, side by side."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imsave
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEIGHT = 96  # pixels of the highest plane
_GAP = 3  # pixels between planes


def three_planes(
    grey: NDArray[np.floating], inside: NDArray[np.bool_], *, spacing: tuple[float, float, float]
) -> bytes:
    """A PNG: axial, coronal, sagittal; the patient's right and nose on the left, as on the pages; pixels square.

    Args:
        grey: `(X, Y, Z)` along R, A, S, 0 is black and 1 is white.
        inside: bool, the same shape; the planes lie in its middle.
        spacing: voxel size, mm.
    """
    at = [int(n) for n in np.median(np.argwhere(inside), axis=0)] if inside.any() else [n // 2 for n in grey.shape]
    longest = max(grey.shape[axis] * spacing[axis] for axis in (1, 2))
    planes = [_upright(np.take(grey, at[axis], axis=axis), axis, spacing, _HEIGHT / longest) for axis in (2, 1, 0)]
    height = max(len(plane) for plane in planes)
    strip = [np.pad(plane, ((0, height - len(plane)), (0, _GAP))) for plane in planes]
    file = BytesIO()
    shown = np.rint(np.concatenate(strip, axis=1)[:, :-_GAP] * 255).astype(np.uint8)
    imsave(file, np.repeat(shown[..., None], 3, axis=-1), format="png", metadata={"Software": ""})
    return file.getvalue()


def _upright(
    plane: NDArray[np.floating], axis: int, spacing: tuple[float, float, float], per_mm: float
) -> NDArray[np.floating]:
    """A plane across an axis as a picture: head or front up; both horizontal axes run from right to left on screen."""
    across, up = (spacing[other] for other in range(3) if other != axis)
    shown = ndimage.zoom(plane, (per_mm * across, per_mm * up), order=1, mode="nearest", grid_mode=True)
    clipped: NDArray[np.floating] = np.clip(shown, 0, 1)
    return clipped.T[::-1, ::-1]
