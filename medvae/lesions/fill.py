"""What would be under a lesion: the harmonic function that continues the tissue around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from medvae.prepare.grid import box_around

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pairs = tuple[NDArray[np.intp], NDArray[np.intp], float]

_HELD = 1e-6  # weight of the median of what is known: a piece that touches nothing known has a value, too
_TOLERANCE = 1e-5  # relative residual of the linear system


def harmonic_fill(
    image: NDArray[np.float32],
    hole: NDArray[np.bool_],
    *,
    known: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> NDArray[np.float32]:
    """The image with the solution of Laplace's equation in the hole, whose border values are the known voxels.

    Each voxel of the hole is the mean of its six neighbours, weighted by 1/mm². Voxels that are neither in the hole nor
    known have no part in it (a border of no flux). With f the given values, this is the membrane of seamless blending
    (Pérez et al., SIGGRAPH 2003).

    Args:
        image: `(X, Y, Z)`.
        hole: bool, the same shape: what is filled.
        known: bool, the same shape: what it is filled from.
        spacing: of the voxels, mm.
    """
    if not hole.any():
        return image
    box = box_around(hole, margin=(1, 1, 1))
    inside, around, values = hole[box], (known & ~hole)[box], image[box]
    count = int(inside.sum())
    number = np.full(inside.shape, -1, np.intp)
    number[inside] = np.arange(count)
    level = float(np.median(values[around])) if around.any() else float(np.median(values))
    diagonal, right = np.full(count, _HELD), np.full(count, _HELD * level)
    rows, columns, weights = [], [], []
    for one, other, weight in _neighbours(inside.shape, spacing):
        a, b = number.ravel()[one], number.ravel()[other]
        both, edge = (a >= 0) & (b >= 0), (a >= 0) & around.ravel()[other]
        np.add.at(diagonal, a[both | edge], weight)
        np.add.at(right, a[edge], weight * values.ravel()[other[edge]].astype(np.float64))
        rows.append(a[both])
        columns.append(b[both])
        weights.append(np.full(int(both.sum()), -weight))
    places = (np.concatenate(rows), np.concatenate(columns))
    off = sparse.csr_array((np.concatenate(weights), places), shape=(count, count))
    matrix = off + sparse.diags_array(diagonal)
    solved, _ = cg(matrix, right, x0=np.full(count, level), rtol=_TOLERANCE, M=sparse.diags_array(1 / diagonal))
    filled = image.copy()
    part = filled[box]
    part[inside] = solved.astype(np.float32)
    return filled


def _neighbours(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> Iterator[Pairs]:
    """Flat indices of all pairs of face neighbours, both ways along each axis, and their weight."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    for axis, mm in enumerate(spacing):
        low = np.take(flat, range(shape[axis] - 1), axis=axis).ravel()
        high = np.take(flat, range(1, shape[axis]), axis=axis).ravel()
        yield low, high, 1 / mm**2
        yield high, low, 1 / mm**2
