"""Whether the values of a CT can be Hounsfield units: files other than DICOM do not say what their numbers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PADDING = -1500.0  # below is not air, but what scanners fill the corners with (-2000, -3024)
_AIR, _FAT = -500.0, 0.0
_TISSUE_SHIFTED = (900.0, 1300.0)  # soft tissue after 1024, or 1000, was added
_FEW, _SOME, _MANY = 0.001, 0.01, 0.1  # shares of the voxels
_NARROWEST, _ONE_TISSUE = 50.0, 100.0  # HU: less than any noise leaves; what a crop of one organ may have
_TISSUE = (-200.0, 250.0)  # fat and soft tissue


def doubts(data: NDArray[np.float32]) -> list[str]:
    """What speaks against Hounsfield units, in words; nothing where they are plausible.

    In Hounsfield units air is about -1000, fat -100 and soft tissue 0 to 100. A body has some of what is below 0, also
    in a crop without air. Padding is not counted.

    Args:
        data: `(X, Y, Z)`, said to be in HU.
    """
    values = _without_padding(data[::2, ::2, ::2])
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    found = f"CT values from {low:.4g} to {high:.4g} do not look like Hounsfield units"
    if high - low < _NARROWEST:
        return [f"{found}: the range is too small (rescaled?)"]
    if np.mean(values < _AIR) >= _FEW:
        return [] if _share(values, _TISSUE) >= _SOME else [f"{found}: there is no soft tissue near 0 (shifted?)"]
    if np.mean(values < _FAT) < _FEW and not (high - low < _ONE_TISSUE and high < _TISSUE[1]):
        return [f"{found}: nothing is below 0 (shifted, rescaled or clipped?)"]
    if _share(values, _TISSUE_SHIFTED) > _MANY:
        return [f"{found}: there is no air, but much at 1000 (shifted by 1024?)"]
    return []


def _share(values: NDArray[np.float32], ends: tuple[float, float]) -> float:
    return float(np.mean((values > ends[0]) & (values < ends[1])))


def _without_padding(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what lies below all air, and without one lowest value that fills a part of the image."""
    values = data[data > _PADDING]
    if not values.size:
        return data.ravel()
    rest = values[values > values.min()]
    return rest if 0 < rest.size < 0.98 * values.size else values
