"""Whether a mask lies on the voxels of its scan, and turned onto them where its axes run another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from medvae.scan import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", np.float32, np.uint16)
SAME_PLACE_MM = 0.1  # the same voxels: all corners agree to this


def turned_onto(data: NDArray[T], own: Geometry, like: Geometry) -> NDArray[T] | None:
    """`data` in the axis order and directions of `like`, where its voxels are those of `like`; else None.

    Programs store the same voxels with rows or axes turned (dcm2niix turns the rows of DICOM), drop a length unit that
    is not mm, or keep only the qform of a scan whose sform has a little shear. None of this moves a voxel.

    Args:
        data: `(X, Y, Z)`.
        own: where its voxels lie.
        like: where they should lie.
    """
    for there in _poses(like):
        for mine in _in_units(own, like):
            turn = _turn(mine, there)
            if turn is None:
                continue
            turned = Geometry(there.shape, mine.affine @ turn)
            if turned.distance_to(there) <= SAME_PLACE_MM:
                return _apply(data, turn)
    return None


def corners_apart(own: Geometry, like: Geometry) -> float:
    """How far the corners lie apart, mm, whichever way the axes of `own` run; infinite where the shapes differ."""
    turn = _turn(own, like)
    return (own if turn is None else Geometry(like.shape, own.affine @ turn)).distance_to(like)


def _poses(like: Geometry) -> list[Geometry]:
    """Where programs see the scan: by its affine, or by the rigid pose beside it."""
    rigid = None if like.stored is None else like.stored.rigid
    return [like] if rigid is None else [like, Geometry(like.shape, rigid)]


def _in_units(own: Geometry, like: Geometry) -> list[Geometry]:
    """The mask as it says, and in the scan's unit where that is not mm and the mask states none."""
    unit = 1.0 if like.stored is None else like.stored.unit
    if unit == 1 or (own.stored is not None and own.stored.unit != 1):
        return [own]
    return [own, Geometry(own.shape, np.diag([unit, unit, unit, 1.0]) @ own.affine)]


def _turn(own: Geometry, like: Geometry) -> NDArray[np.float64] | None:
    """The axis permutation and flips nearest to what maps an index of `like` to one of `own`, 4×4.

    None where the two are not near to any, or the lengths do not fit.
    """
    linear = np.linalg.solve(own.affine[:3, :3], like.affine[:3, :3])
    turn = np.rint(linear)
    if sorted(np.abs(turn).ravel()) != [0] * 6 + [1] * 3 or np.linalg.matrix_rank(turn) < 3:
        return None
    if tuple(np.array(own.shape) @ np.abs(turn).astype(int)) != like.shape:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = np.where(turn.sum(axis=1) < 0, np.array(own.shape) - 1, 0)
    return matrix


def _apply(data: NDArray[T], turn: NDArray[np.float64]) -> NDArray[T]:
    order = np.abs(turn[:3, :3]).argmax(axis=0)  # the old axis of each new one
    flips = tuple(axis for axis in range(3) if turn[order[axis], axis] < 0)
    turned: NDArray[T] = np.flip(data.transpose(order), flips)
    return turned
