"""What of a scan counts: a stripped brain, a body in air, or all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Scan
    from medvae.settings import PrepareSettings

# A stripped adult brain with its fluid has 0.9 to 1.9 litres; a whole head cut at the nose has 3 or more.
_STRIPPED_ML = (400.0, 2300.0)
_STRIPPED_ZEROS = 0.25  # a stripped image is exactly 0 in at least this share of its voxels


def find_foreground(scan: Scan, settings: PrepareSettings) -> NDArray[np.bool_]:
    """Foreground on the scan's own grid, `(X, Y, Z)`, by the rule that the settings name."""
    if settings.foreground == "whole":
        found = np.ones(scan.data.shape, bool)
    elif settings.foreground == "air":
        found = _body(scan, settings.air_below)
    else:
        found = scan.data != 0
    return found if scan.valid is None else found & scan.valid


def is_stripped(scan: Scan) -> bool:
    """Whether a head scan is a stripped brain: exact zeros around a brain-sized rest."""
    rest = scan.data != 0
    millilitres = rest.sum() * scan.geometry.voxel_volume / 1000
    low, high = _STRIPPED_ML
    return bool(1 - rest.mean() >= _STRIPPED_ZEROS and low <= millilitres <= high)


def _body(scan: Scan, threshold: float) -> NDArray[np.bool_]:
    """The largest thing denser than air, with what it encloses in each axial slice (lungs, bowel)."""
    dense = ndimage.binary_opening(scan.data > threshold, iterations=1)  # cuts the table's thin contact off
    labels, count = ndimage.label(dense)
    if count == 0:
        return dense
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    axial = int(np.abs(scan.geometry.affine[2, :3]).argmax())  # the array axis nearest to head-foot
    slices = np.moveaxis(largest, axial, 0)
    filled = np.stack([ndimage.binary_fill_holes(one) for one in slices])
    return np.moveaxis(filled, 0, axial)
