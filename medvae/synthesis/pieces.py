"""Connected pieces (26 neighbours) of shapes and labels: a sample is in one piece where all training scans are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CRUMBS = 0.1  # the largest piece may hold a share less by this than in any training scan
_TOUCHING = np.ones((3, 3, 3), bool)


def share_of_largest(inside: NDArray[np.bool_]) -> float:
    """The share of the voxels of `inside` `(X, Y, Z)` that are in its largest piece; 0 where there are none."""
    sizes = np.bincount(_numbered(inside).ravel())[1:]
    return float(sizes.max() / sizes.sum()) if sizes.size else 0.0


def without_crumbs(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece alone, where all others together are crumbs; else as it is, for a shape that is broken.

    Args:
        inside: `(X, Y, Z)`.
    """
    numbers = _numbered(inside)
    sizes = np.bincount(numbers.ravel())[1:]
    if sizes.size < 2 or sizes.max() < (1 - CRUMBS) * sizes.sum():
        return inside
    return np.asarray(numbers == 1 + sizes.argmax())


def all_in_one_piece(shapes: Iterable[NDArray[np.bool_]]) -> bool:
    """Whether each shape `(X, Y, Z)` is a single piece."""
    return all(share_of_largest(one) == 1 for one in shapes)


def _numbered(inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    numbers: NDArray[np.int32] = ndimage.label(inside, _TOUCHING)[0]
    return numbers
