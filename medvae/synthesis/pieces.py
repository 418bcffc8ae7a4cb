"""Connected pieces (`CORNERS`) of shapes and labels: a sample is in one piece where all training scans are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.prepare.pieces import CORNERS, largest_piece, numbered

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

CRUMBS = 0.1  # the largest piece may hold a share less by this than in any training scan


def share_of_largest(inside: NDArray[np.bool_]) -> float:
    """The share of the voxels of `inside` `(X, Y, Z)` that are in its largest piece; 0 where there are none."""
    sizes = numbered(inside, CORNERS)[1]
    return float(sizes.max() / sizes.sum()) if sizes.size else 0.0


def without_crumbs(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece alone, where all others together are crumbs; else as it is, for a shape that is broken.

    Args:
        inside: `(X, Y, Z)`.
    """
    return largest_piece(inside, CORNERS) if share_of_largest(inside) >= 1 - CRUMBS else inside


def all_in_one_piece(shapes: Iterable[NDArray[np.bool_]]) -> bool:
    """Whether each shape `(X, Y, Z)` is a single piece."""
    return all(share_of_largest(one) == 1 for one in shapes)
