"""Crops around connected lesions, in a frame of their own: centre, principal axes and size taken off."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from medvae.lesions.fill import harmonic_fill
from medvae.prepare.pieces import CORNERS, numbered
from medvae.vae.distances import signed_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from medvae.prepare.grid import Box
    from medvae.scan import Geometry

    Values = NDArray[np.float32]
    Mask = NDArray[np.bool_]

SIDE = 16  # voxels of a crop along an axis
REACH = 1.7  # half of its side; the ellipsoid of the lesion's moments has the radius 1
FAR = 0.5  # distances to the border are clipped here
_BALL = 5**0.5  # radius of a ball over the standard deviation of its places along an axis
_PROFILE = (-1.0, 3.0)  # a change over its mean is clipped here
_NO_CHANGE = 0.02  # mean change, prepared units, too small to show a profile
_FINE, _ENOUGH, _SHELL = 1.0, 8, 3  # σ in voxels of what is not a detail; voxels for its spread; width of the ring


@dataclass(frozen=True, eq=False)
class Crop:
    """One connected lesion, in a frame in which the ellipsoid of its second moments is the unit ball.

    Attributes:
        profile: float32 `(S, S, S)`, image minus what lies below, over its mean in the lesion; 0 outside `support`.
        support: bool `(S, S, S)`, the lesion and the voxels beside it, where its change was measured.
        distance: float32 `(S, S, S)`, signed distance to the border, positive inside, clipped to ±`FAR` and divided by
            it: −1 to 1.
        change: mean change of intensity in the lesion, prepared units; NaN where the mask alone is known.
        axes: 3×3, principal axes as columns, the longest first; a rotation.
        sizes: semi-axes of the ellipsoid along them, mm, `(3,)`.
        place: centre, RAS+ mm.
        level: mean of what lies below, prepared units; NaN where it is not known.
        detail: spread of fine structure inside over that around, 0 to 1; NaN where it cannot be measured.
        source: id of the scan or mask.
    """

    profile: Values = field(repr=False)
    support: Mask = field(repr=False)
    distance: Values = field(repr=False)
    change: float
    axes: NDArray[np.float64] = field(repr=False)
    sizes: NDArray[np.float64]
    place: NDArray[np.float64]
    level: float
    detail: float
    source: str

    @property
    def known(self) -> bool:
        """Whether there is a change of intensity, or the mask alone."""
        return bool(np.isfinite(self.change))


def crops_of_scan(
    image: Values, lesions: Mask, *, foreground: Mask, geometry: Geometry, source: str, least: int
) -> list[Crop]:
    """The lesions of a scan, with their change of intensity. All arrays are `(X, Y, Z)`.

    What lies below a lesion is the harmonic continuation of the tissue around it (`harmonic_fill`), from one voxel
    beside all lesions on.

    Args:
        image: prepared.
        lesions: where it has lesions.
        foreground: where it has tissue; a lesion outside is none.
        geometry: of the arrays.
        source: id of the scan.
        least: voxels of the smallest lesion.
    """
    grown = ndimage.binary_dilation(lesions) & foreground
    below = harmonic_fill(image, grown, known=foreground, spacing=geometry.spacing)
    change, fine = image - below, image - ndimage.gaussian_filter(image, _FINE)
    around = ndimage.binary_dilation(grown, iterations=_SHELL) & foreground & ~grown
    found = []
    for piece in _pieces(lesions & foreground, least):
        near = piece.around((_SHELL + 1,) * 3)
        inside = piece.inside(near)
        level, mean = float(below[near][inside].mean()), float(change[near][inside].mean())
        detail = _detail(fine[near], inside, around[near])
        made = _crop(piece, geometry, source=source)
        found.append(replace(made, **_profile(made, change, mean, geometry), level=level, detail=detail))
    return found


def crops_of_mask(lesions: Mask, *, geometry: Geometry, source: str, least: int) -> list[Crop]:
    """The lesions of a mask `(X, Y, Z)` without its scan: shapes alone."""
    return [_crop(one, geometry, source=source) for one in _pieces(lesions, least)]


def frame() -> NDArray[np.float64]:
    """Places of a crop's voxels, `(3, S, S, S)`."""
    line = np.linspace(-REACH, REACH, SIDE)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"))


@dataclass(frozen=True, eq=False)
class _Piece:
    """One connected lesion: its number in an array `(X, Y, Z)` of all, and the box that it fills."""

    numbers: NDArray[np.int32]
    number: int
    box: Box

    def around(self, margin: Sequence[int]) -> Box:
        """The box, wider by this many voxels along each axis where the grid has them."""
        x, y, z = (
            slice(max(0, one.start - wide), min(n, one.stop + wide))
            for one, wide, n in zip(self.box, margin, self.numbers.shape, strict=True)
        )
        return x, y, z

    def inside(self, box: Box) -> Mask:
        """Where it is in a box."""
        return np.asarray(self.numbers[box] == self.number)


def _pieces(lesions: Mask, least: int) -> Iterator[_Piece]:
    """Connected lesions of at least this many voxels."""
    numbers, sizes = numbered(lesions, CORNERS)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if sizes[number - 1] >= least:
            yield _Piece(numbers, number, box)


def _crop(piece: _Piece, geometry: Geometry, *, source: str) -> Crop:
    """Shape and place of a lesion."""
    place, axes, sizes = _own_frame(piece, geometry)
    box = piece.around([int(np.ceil(REACH * 3**0.5 * sizes[0] / mm)) + 2 for mm in geometry.spacing])
    inside = piece.inside(box)
    at = _index(place, axes, sizes, geometry) - np.array([one.start for one in box])[:, None, None, None]
    border = _sampled(signed_distance(inside, geometry.spacing), at)
    step = 2 * REACH / (SIDE - 1)
    distance = np.clip(signed_distance(border > 0, (step,) * 3) / FAR, -1, 1).astype(np.float32)
    support = _sampled(ndimage.binary_dilation(inside).astype(np.float32), at) > 0.5
    nothing = np.zeros_like(distance)
    return Crop(nothing, support, distance, np.nan, axes, sizes, place, np.nan, np.nan, source)


def _profile(crop: Crop, change: Values, mean: float, geometry: Geometry) -> dict[str, Any]:
    """The mean change, and its profile over a crop; none where there is next to no change."""
    if abs(mean) < _NO_CHANGE:
        return {}
    at = _index(crop.place, crop.axes, crop.sizes, geometry)
    profile = np.clip(_sampled(change, at) / np.float32(mean), *_PROFILE)
    return {"profile": np.where(crop.support, profile, np.float32(0)).astype(np.float32), "change": mean}


def _index(
    place: NDArray[np.float64], axes: NDArray[np.float64], sizes: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float64]:
    """Voxel indices of a crop's places in the volume, `(3, S, S, S)`."""
    at = place[:, None] + (axes * sizes) @ frame().reshape(3, -1)
    inverse = np.linalg.inv(geometry.affine)
    return np.asarray((inverse[:3, :3] @ at + inverse[:3, 3:]).reshape(3, SIDE, SIDE, SIDE))


def _sampled(values: NDArray[np.floating], at: NDArray[np.float64]) -> Values:
    return np.asarray(ndimage.map_coordinates(values, at, order=1, mode="nearest", output=np.float32))


def _own_frame(
    piece: _Piece, geometry: Geometry
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre in mm, principal axes as columns of a rotation, semi-axes in mm of the ellipsoid with its moments.

    A voxel has an extent: its variance, mm²/12, is a part of the moments. An axis points to where the lesion has its
    longer tail (third moment), so that like shapes have like crops.
    """
    index = np.argwhere(piece.inside(piece.box)) + [one.start for one in piece.box]
    at = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    away = at - at.mean(axis=0)
    moments = away.T @ away / len(away) + geometry.affine[:3, :3] @ geometry.affine[:3, :3].T / 12
    variances, vectors = np.linalg.eigh(moments)
    axes = vectors[:, ::-1].copy()
    axes *= np.where(((away @ axes) ** 3).sum(axis=0) < 0, -1.0, 1.0)
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    return at.mean(axis=0), axes, _BALL * np.sqrt(variances[::-1])


def _detail(fine: Values, inside: Mask, around: Mask) -> float:
    """How much fine structure is left in a lesion; all arrays are of one box."""
    core = ndimage.binary_erosion(inside)
    if core.sum() < _ENOUGH or around.sum() < _ENOUGH:
        return float("nan")
    return float(np.clip(fine[core].std() / max(float(fine[around].std()), 1e-6), 0, 1))
