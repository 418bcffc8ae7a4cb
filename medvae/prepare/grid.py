"""One resampling between two voxel grids, along one 4×4 matrix, with smoothing before going coarser.

Everything here is in voxel indices: a matrix maps an index of the output to an index of the input. World coordinates
and their conventions are settled before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Geometry, Shape

_FWHM = 2 * np.sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian of σ = 1


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
    return _sample(data, matrix, shape, sitk.sitkLinear, outside)


def resample_labels(
    labels: NDArray[np.integer] | NDArray[np.bool_], matrix: NDArray[np.float64], shape: Shape
) -> NDArray[np.int16]:
    """Nearest neighbour, 0 outside: the set of values is kept."""
    return _sample(labels.astype(np.int16), matrix, shape, sitk.sitkNearestNeighbor, 0)


def smoothing(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ in input voxels along each input axis, 0 where the output is not coarser."""
    step = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma: NDArray[np.float64] = np.sqrt(np.maximum(step**2 - 1, 0)) / _FWHM
    return sigma


def inside(matrix: NDArray[np.float64], shape: Shape, *, of: Shape) -> NDArray[np.bool_]:
    """Output voxels whose centre falls on the input of shape `of`, half a voxel of margin included."""
    ranges = []
    for axis in range(3):
        parts = [matrix[axis, k] * np.arange(shape[k], dtype=np.float32) for k in range(3)]
        ranges.append(parts[0][:, None, None] + parts[1][:, None] + parts[2] + np.float32(matrix[axis, 3]))
    ok = np.ones(shape, bool)
    for at, length in zip(ranges, of, strict=True):
        ok &= (at >= -0.5 - 1e-3) & (at <= length - 0.5 + 1e-3)
    return ok


def nearest_ras(geometry: Geometry) -> NDArray[np.float64]:
    """Axis permutation and flips, as a 4×4, that bring an array closest to R, A, S: new index -> index of the array.

    No resampling comes with it: an oblique scan stays oblique.
    """
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    free = [0, 1, 2]
    for _ in range(3):  # the clearest pair first, so that a 45° oblique never uses an axis twice
        world, axis = max(
            ((w, a) for w in range(3) if not matrix[:3, w].any() for a in free),
            key=lambda pair: abs(directions[pair[0], pair[1]]),
        )
        sign = 1.0 if directions[world, axis] > 0 else -1.0
        matrix[axis, world] = sign
        matrix[axis, 3] = 0.0 if sign > 0 else geometry.shape[axis] - 1
        free.remove(axis)
    return matrix


def _sample(
    data: NDArray[np.generic], matrix: NDArray[np.float64], shape: Shape, how: int, outside: float
) -> NDArray[np.generic]:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    image = sitk.GetImageFromArray(data.T)  # SimpleITK's arrays run z, y, x
    size = [int(n) for n in shape]
    moved = sitk.Resample(image, size, transform, how, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), np.eye(3).ravel(), outside)
    result: NDArray[np.generic] = sitk.GetArrayFromImage(moved).T
    return result
