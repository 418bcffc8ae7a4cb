"""One resampling between two voxel grids, along one 4×4 matrix, with smoothing before going coarser.

Everything here is in voxel indices: a matrix maps an index of the output to an index of the input. World coordinates
and their conventions are settled before.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.scan import Geometry, Shape

Box = tuple[slice, slice, slice]
_FWHM = 2 * np.sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian of σ = 1


def box_around(region: NDArray[np.bool_], *, margin: Sequence[int] = (0, 0, 0)) -> Box:
    """The smallest box around a region `(X, Y, Z)`, wider by this many voxels along each axis where the grid has them.

    The whole grid where the region is empty.
    """
    flat = np.any(region, axis=2)  # once over all voxels
    along = np.any(flat, axis=1), np.any(flat, axis=0), np.any(region, axis=(0, 1))
    x, y, z = (_ends(there, wide) for there, wide in zip(along, margin, strict=True))
    return x, y, z


def _ends(there: NDArray[np.bool_], wide: int) -> slice:
    """From the first to the last index that a region has along an axis, wider on both sides; all where it has none."""
    index = np.flatnonzero(there)
    first, last = (index[0], index[-1]) if len(index) else (0, len(there) - 1)
    return slice(max(0, int(first) - wide), min(len(there), int(last) + 1 + wide))


def resample(
    data: NDArray[np.float32], matrix: NDArray[np.float64], shape: Shape, *, outside: float = 0.0
) -> NDArray[np.float32]:
    """Linear interpolation of `data` `(X, Y, Z)` at `matrix @ index`, for every index of an output of `shape`.

    Where one output step spans r > 1 input voxels the input is first smoothed, so that nothing between two samples is
    lost: σ = √(r² − 1) / (2√(2 ln 2)) voxels, which turns a point spread of one voxel into one of r (Cardoso et al.,
    MICCAI 2015).
    """
    sigma = smoothing(matrix)
    if sigma.max() > 0.1:
        data = ndimage.gaussian_filter(data, sigma, truncate=3.0, mode="nearest")
    moved: NDArray[np.float32] = _sample(data, matrix, shape, sitk.sitkLinear, outside)
    return moved


def resample_labels(
    labels: NDArray[np.integer] | NDArray[np.bool_], matrix: NDArray[np.float64], shape: Shape
) -> NDArray[np.int16]:
    """Nearest neighbour, 0 outside: the set of values is kept."""
    moved: NDArray[np.int16] = _sample(labels.astype(np.int16), matrix, shape, sitk.sitkNearestNeighbor, 0)
    return moved


def smoothing(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ in input voxels along each input axis, 0 where the output is not coarser."""
    step = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma: NDArray[np.float64] = np.sqrt(np.maximum(step**2 - 1, 0)) / _FWHM
    return sigma


def inside(matrix: NDArray[np.float64], shape: Shape, *, of: Shape) -> NDArray[np.bool_]:
    """Output voxels whose centre falls into a voxel of an input of shape `of`: where `resample` interpolates."""
    ranges = []
    for axis in range(3):
        parts = [matrix[axis, k] * np.arange(shape[k], dtype=np.float32) for k in range(3)]
        ranges.append(parts[0][:, None, None] + parts[1][:, None] + parts[2] + np.float32(matrix[axis, 3]))
    ok = np.ones(shape, bool)
    for at, length in zip(ranges, of, strict=True):
        ok &= (at > -0.5 + 1e-3) & (at < length - 0.5 - 1e-3)
    return ok


def nearest_ras(geometry: Geometry) -> NDArray[np.float64]:
    """The axis permutation and flips that bring an array closest to R, A, S: a 4×4, new index -> index of the array.

    No resampling comes with it: an oblique scan stays oblique. Of the 48 it is the one with the largest sum of cosines
    among the 24 that do not mirror the anatomy.
    """
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    handed = np.linalg.det(directions) > 0
    turns = [
        turn
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if (np.linalg.det(turn := np.eye(3)[:, order] * signs) > 0) == handed
    ]
    linear = max(turns, key=lambda turn: float(np.trace(directions @ turn)))
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.where(linear.sum(axis=1) < 0, np.array(geometry.shape) - 1, 0)
    return matrix


def straight(geometry: Geometry, turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation `(3, 3)` nearest to the directions of a turned array: the same unless there is shear.

    The orthogonal factor of the polar decomposition (Higham, SIAM J. Sci. Stat. Comput. 1986).
    """
    directions = geometry.affine[:3, :3] @ turn[:3, :3]
    left, _, right = np.linalg.svd(directions / np.linalg.norm(directions, axis=0))
    return np.asarray(left @ right, np.float64)


def _sample(
    data: NDArray[np.generic], matrix: NDArray[np.float64], shape: Shape, how: int, outside: float
) -> NDArray[Any]:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    image = sitk.GetImageFromArray(data.T)  # SimpleITK's arrays run z, y, x
    size = [int(n) for n in shape]
    moved = sitk.Resample(image, size, transform, how, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), np.eye(3).ravel(), outside)
    result: NDArray[Any] = sitk.GetArrayFromImage(moved).T
    return result


def mirrored(values: NDArray[np.float32], grid: Geometry) -> NDArray[np.float32]:
    """Values at −x in world coordinates, interpolated linearly along x; NaN outside the grid.

    Args:
        values: `(X, Y, Z)` on a grid along R, A, S in a space whose middle plane is x = 0 mm.
        grid: of the values.
    """
    last = -2 * grid.affine[0, 3] / grid.spacing[0]  # the counterpart of index i lies at last − i
    low = int(np.floor(last + 1e-6))
    part = np.float32(max(0.0, last - low))
    if part < 1e-6:
        return _reversed(values, low)
    between: NDArray[np.float32] = (1 - part) * _reversed(values, low) + part * _reversed(values, low + 1)
    return between


def difference_of_sides(image: NDArray[np.float32], mask: NDArray[np.bool_], grid: Geometry) -> NDArray[np.float32]:
    """The image minus its mirror image, `(X, Y, Z)`; NaN where a voxel or its counterpart is not in the mask."""
    inside = np.where(mask, image, np.float32(np.nan))
    difference: NDArray[np.float32] = inside - mirrored(inside, grid)
    return difference


def _reversed(values: NDArray[np.float32], last: int) -> NDArray[np.float32]:
    """Values at index last − i along the first axis; NaN outside."""
    index = last - np.arange(len(values))
    there = (index >= 0) & (index < len(values))
    result = np.full_like(values, np.nan)
    result[there] = values[index[there]]
    return result
