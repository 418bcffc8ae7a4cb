"""The part of a scan that a page shows: cropped around what was evaluated, axes turned to lie nearest to R, A, S."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.prepare.grid import nearest_ras
from medvae.scan import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MARGIN_MM = 8.0  # around what was evaluated


def turned(volume: NDArray[Any], turn: NDArray[np.float64]) -> NDArray[Any]:
    """The same voxels with axes along R, A, S.

    Args:
        volume: `(X, Y, Z)`.
        turn: 4×4 of `medvae.prepare.grid.nearest_ras`, new index -> index of the array.
    """
    order = np.abs(turn[:3, :3]).argmax(axis=0)
    flips = tuple(new for new, old in enumerate(order) if turn[old, new] < 0)
    new: NDArray[Any] = np.flip(volume.transpose(order), flips)
    return new


@dataclass(frozen=True, eq=False)
class Frame:
    """A box of a scan's grid, turned. Nothing is resampled: an oblique scan stays oblique.

    Attributes:
        box: of the scan's own grid.
        to_file: 4×4, index in the turned box -> voxel index of the scan's own grid.
        geometry: of the turned box.
    """

    box: tuple[slice, slice, slice]
    to_file: NDArray[np.float64] = field(repr=False)
    geometry: Geometry

    @classmethod
    def around(cls, inside: NDArray[np.bool_], geometry: Geometry) -> Frame:
        """The box around a region, with a margin; the whole grid where the region is empty.

        Args:
            inside: bool `(X, Y, Z)`.
            geometry: of that grid.
        """
        ends = [_ends(inside, axis, _MARGIN_MM / geometry.spacing[axis]) for axis in range(3)]
        x, y, z = (slice(first, last) for first, last in ends)
        moved = np.eye(4)
        moved[:3, 3] = [first for first, _ in ends]
        shape = x.stop - x.start, y.stop - y.start, z.stop - z.start
        turn = nearest_ras(Geometry(shape, geometry.affine @ moved))
        a, b, c = (shape[old] for old in np.abs(turn[:3, :3]).argmax(axis=0))
        to_file = moved @ turn
        return cls((x, y, z), to_file, Geometry((a, b, c), geometry.affine @ to_file))

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """What lies in the box, turned."""
        return turned(volume[self.box], self.to_file)


def _ends(inside: NDArray[np.bool_], axis: int, margin: float) -> tuple[int, int]:
    along = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
    if not len(along):
        return 0, inside.shape[axis]
    wide = int(np.ceil(margin))
    return max(0, int(along[0]) - wide), min(inside.shape[axis], int(along[-1]) + wide + 1)
