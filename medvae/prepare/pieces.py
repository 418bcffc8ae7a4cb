"""Connected pieces of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACES = ndimage.generate_binary_structure(3, 1)  # voxels touch by a face: 6 neighbours
CORNERS = ndimage.generate_binary_structure(3, 3)  # or by an edge or a corner: 26 neighbours


def numbered(mask: NDArray[np.bool_], touching: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The number of each voxel's piece, 0 outside the mask, and the voxels of piece 1, 2, and so on.

    Args:
        mask: `(X, Y, Z)`.
        touching: which neighbours are of one piece, `FACES` or `CORNERS`.
    """
    numbers: NDArray[np.int32] = ndimage.label(mask, touching)[0]
    return numbers, np.bincount(numbers.ravel())[1:]


def largest_piece(mask: NDArray[np.bool_], touching: NDArray[np.bool_] = FACES) -> NDArray[np.bool_]:
    """The piece with the most voxels, the first of equals; of an empty mask, an empty one."""
    numbers, sizes = numbered(mask, touching)
    if len(sizes) < 2:
        return mask
    return np.asarray(numbers == 1 + sizes.argmax())
