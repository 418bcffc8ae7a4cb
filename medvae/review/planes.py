"""A small picture of a scan without a map: three planes through its middle, side by side."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEIGHT = 96  # pixels of the highest plane
_GAP = 3  # pixels between planes


def three_planes(
    data: NDArray[Any], *, spacing: tuple[float, float, float], limits: tuple[float, float], height: int = _HEIGHT
) -> bytes:
    """A PNG: axial, coronal, sagittal; the patient's right and nose on the left, as on the pages; pixels square.

    Args:
        data: `(X, Y, Z)` along R, A, S.
        spacing: voxel size, mm.
        limits: values shown as black and white.
        height: pixels of the highest plane.
    """
    x, y, z = (n // 2 for n in data.shape)
    per_mm = height / max(data.shape[axis] * spacing[axis] for axis in (1, 2))
    sides = ((0, 1), (0, 2), (1, 2))  # across and up
    planes = []
    for plane, (across, up) in zip((data[:, :, z], data[:, y, :], data[x]), sides, strict=True):
        zoom = (per_mm * spacing[across], per_mm * spacing[up])
        shown = ndimage.zoom(plane.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
        planes.append(shown.T[::-1, ::-1])  # head or front up; both axes that run across begin on the right
    highest, (low, high) = max(len(one) for one in planes), limits
    strip = []
    for one in planes:
        grey = np.rint(np.clip((one - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        above = (highest - len(one)) // 2
        strip.append(np.pad(grey, ((above, highest - len(one) - above), (0, _GAP))))
    file = BytesIO()
    Image.fromarray(np.concatenate(strip, axis=1)[:, :-_GAP]).save(file, format="png", compress_level=3)
    return file.getvalue()
