"""Putting a lesion into a scan: seamless blending of its change with the tissue that continues under it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.lesions.crops import FAR, REACH, SIDE, frame
from medvae.lesions.fill import harmonic_fill
from medvae.prepare.pieces import CORNERS, largest_piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.prepare.grid import Box
    from medvae.scan import Geometry

    Values = NDArray[np.float32]
    Mask = NDArray[np.bool_]

_MARGIN = 2  # voxels around a lesion from which the tissue under it is continued


@dataclass(frozen=True, eq=False)
class Lesion:
    """A new lesion, not yet in a scan.

    Attributes:
        change: float32 `(S, S, S)`, prepared units, in the lesion's own frame.
        distance: float32 `(S, S, S)`, as in `Crop`.
        axes: 3×3, of the frame, as columns.
        sizes: semi-axes along them, mm, `(3,)`.
        detail: how much of the fine structure below is left, 0 to 1.
    """

    change: Values = field(repr=False)
    distance: Values = field(repr=False)
    axes: NDArray[np.float64] = field(repr=False)
    sizes: NDArray[np.float64]
    detail: float

    @property
    def reach(self) -> NDArray[np.float64]:
        """Greatest distance of the lesion from its centre along R, A, S, mm, plus a voxel of its own array."""
        inside = np.append(frame()[:, self.distance > 0], np.zeros((3, 1)), axis=1)
        along = np.abs((self.axes * self.sizes) @ inside).max(axis=1)
        return np.asarray(along + 2 * REACH / (SIDE - 1) * self.sizes.max())


@dataclass(frozen=True, eq=False)
class Placed:
    """A lesion on a grid.

    Attributes:
        lesion: which one.
        box: where, with some voxels around it.
        at: places of the box's voxels in the lesion's own array, `(3, x, y, z)`.
        distance: signed distance to the border in the lesion's own frame, positive inside, `(x, y, z)`.
        mask: bool `(x, y, z)`, its largest connected piece.
    """

    lesion: Lesion = field(repr=False)
    box: Box
    at: NDArray[np.float64] = field(repr=False)
    distance: Values = field(repr=False)
    mask: Mask = field(repr=False)

    @property
    def change(self) -> Values:
        """Change of intensity, prepared units, `(x, y, z)`."""
        return _sampled(self.lesion.change, self.at)


def place_lesion(lesion: Lesion, place: NDArray[np.float64], geometry: Geometry) -> Placed | None:
    """The lesion with its centre at a place, RAS+ mm; None where no voxel of the grid is in it."""
    middle = np.linalg.inv(geometry.affine)[:3] @ np.append(place, 1)
    x, y, z = (
        slice(max(0, int(np.floor(c - r)) - _MARGIN), min(n, int(np.ceil(c + r)) + _MARGIN + 1))
        for c, r, n in zip(middle, lesion.reach / np.array(geometry.spacing), geometry.shape, strict=True)
    )
    index = np.stack(np.meshgrid(*(np.arange(one.start, one.stop) for one in (x, y, z)), indexing="ij"))
    if index.size == 0:
        return None
    away = geometry.affine[:3, :3] @ index.reshape(3, -1) + geometry.affine[:3, 3:] - place[:, None]
    own = lesion.axes.T @ away / lesion.sizes[:, None]
    at = ((own / REACH + 1) * (SIDE - 1) / 2).reshape(index.shape)
    beyond = np.maximum(np.abs(own).max(axis=0) - REACH, 0).reshape(index.shape[1:])
    distance = np.float32(FAR) * _sampled(lesion.distance, at) - beyond.astype(np.float32)
    mask = largest_piece(distance > 0, CORNERS)  # lesions are counted by pieces
    return Placed(lesion, (x, y, z), at, distance, mask) if mask.any() else None


def implant(image: Values, placed: Placed, *, foreground: Mask, geometry: Geometry) -> Values:
    """The scan with a lesion, `(X, Y, Z)`; voxels more than one beside the mask, or outside the foreground, are kept.

    With g the scan, h its harmonic continuation from around the lesion, c the change, and α 1 in the mask and a ramp
    from ½ to 0 in the voxel beside it, the new values are h + (1 − α(1 − k))(g − h) + αc, k being the lesion's
    `detail`: in the lesion that is h + k(g − h) + c. It solves Poisson's equation with the mixed gradients k∇g + ∇c
    (Pérez et al., SIGGRAPH 2003), for h is harmonic, and at its border it is g.

    Args:
        image: `(X, Y, Z)`.
        placed: of the same grid.
        foreground: bool `(X, Y, Z)`.
        geometry: of the grid.
    """
    box = placed.box
    there, inside = image[box], foreground[box]
    near = ndimage.binary_dilation(placed.mask) & inside
    voxel = np.float32(np.cbrt(geometry.voxel_volume / np.prod(placed.lesion.sizes)))
    ramp = np.clip(1 + placed.distance / voxel, 0, 1)
    weight = np.where(near, np.where(placed.mask, np.float32(1), np.minimum(ramp, np.float32(0.5))), np.float32(0))
    below = harmonic_fill(there, near, known=inside, spacing=geometry.spacing)
    changed = below + (1 - weight * np.float32(1 - placed.lesion.detail)) * (there - below) + weight * placed.change
    result = image.copy()
    result[box] = np.where(weight > 0, changed, there)
    return result


def _sampled(values: Values, at: NDArray[np.float64]) -> Values:
    """Values of a lesion's own array at places in it, linearly interpolated."""
    flat = ndimage.map_coordinates(values, at.reshape(3, -1), order=1, mode="nearest", output=np.float32)
    return np.asarray(flat.reshape(at.shape[1:]))
