"""The part of a scan that a page shows: cropped around what was evaluated, axes turned to lie nearest to R, A, S."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.prepare.grid import box_around, nearest_ras
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
        x, y, z = box_around(inside, margin=[int(np.ceil(_MARGIN_MM / mm)) for mm in geometry.spacing])
        moved = np.eye(4)
        moved[:3, 3] = x.start, y.start, z.start
        shape = x.stop - x.start, y.stop - y.start, z.stop - z.start
        turn = nearest_ras(Geometry(shape, geometry.affine @ moved))
        a, b, c = (shape[old] for old in np.abs(turn[:3, :3]).argmax(axis=0))
        to_file = moved @ turn
        return cls((x, y, z), to_file, Geometry((a, b, c), geometry.affine @ to_file))

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """What lies in the box, turned."""
        return turned(volume[self.box], self.to_file)
