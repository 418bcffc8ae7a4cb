"""The foreground of a synthetic scan, told from its code by ridge regression of the training outlines on their codes.

A VAE is trained inside the foreground only, so its decoder does not say where a synthetic scan ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REACH = 6.0  # distances beyond this many (coarse) voxels from an outline say nothing more
_COARSE = 40  # outlines are kept on a grid of about this many voxels an axis; signed distances are smooth
_PENALTIES = np.logspace(-3, 3, 13)  # over the mean square of the codes


@dataclass(frozen=True, eq=False)
class Outline:
    """Signed distance to the outline as a linear function of the code.

    Attributes:
        centre: mean code, `(D,)`.
        codes: codes less their mean, `(n, D)`.
        solve: `(n, n)`, inner products with `codes` -> weights of the scans.
        distances: signed distances less their mean, `(n, x, y, z)`, coarse voxels, positive inside.
        mean: mean signed distance, `(x, y, z)`.
        seen: bool `(X, Y, Z)`, voxels that any training scan had in its foreground: the decoder knows no others.
    """

    centre: NDArray[np.float32] = field(repr=False)
    codes: NDArray[np.float32] = field(repr=False)
    solve: NDArray[np.float64] = field(repr=False)
    distances: NDArray[np.float32] = field(repr=False)
    mean: NDArray[np.float32] = field(repr=False)
    seen: NDArray[np.bool_] = field(repr=False)

    def mask(self, z: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Foreground `(1, X, Y, Z)` that fits a code."""
        weights = self.solve @ (self.codes @ (z.ravel() - self.centre)).astype(np.float64)
        distance = self.mean + np.tensordot(weights.astype(np.float32), self.distances, axes=1)
        inside = _refine(distance, self.seen.shape) > 0
        return np.ascontiguousarray((inside & self.seen)[None])


def fit(codes: NDArray[np.float32], masks: NDArray[np.bool_]) -> Outline:
    """Fit to training scans.

    Args:
        codes: posterior means `(n, d...)`.
        masks: foregrounds `(n, 1, X, Y, Z)` of the same scans.
    """
    flat = codes.reshape(len(codes), -1)
    centre = flat.mean(axis=0)
    seen = np.asarray(masks.any(axis=(0, 1)))
    signed = np.stack([_signed_distance(mask[0]) for mask in masks])
    mean = signed.mean(axis=0)
    signed -= mean
    gram = (flat - centre).astype(np.float64) @ (flat - centre).T.astype(np.float64)
    return Outline(centre, flat - centre, _solver(gram, signed), signed, mean, seen)


def _solver(gram: NDArray[np.float64], targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K + λI)⁻¹ with the λ of least leave-one-out error, which is known in closed form: (A·Y)ᵢ / Aᵢᵢ."""
    size = float(np.trace(gram)) / len(gram)
    if size == 0:
        return np.zeros_like(gram)
    flat = targets.reshape(len(targets), -1)
    products = (flat @ flat.T).astype(np.float64)
    best, least = np.zeros_like(gram), float("inf")
    for penalty in _PENALTIES * size:
        inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
        error = float((np.einsum("ij,jk,ik->i", inverse, products, inverse) / np.square(np.diag(inverse))).sum())
        if error < least:
            best, least = inverse, error
    return best


def _signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Coarse signed distance to the outline, positive inside, clipped; a mask without an outline is all one side."""
    step = tuple(max(1, n // _COARSE) for n in mask.shape)
    share = ndimage.uniform_filter(mask.astype(np.float32), step)  # at i: the mean over i - step//2 and what follows
    coarse = share[tuple(slice(s // 2, None, s) for s in step)]
    inside = coarse > 0.5
    if inside.all() or not inside.any():
        return np.full(coarse.shape, _REACH if inside.any() else -_REACH, np.float32)
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    distance -= np.sign(distance) * (1 - np.abs(2 * coarse - 1))  # where between two voxels the outline runs
    return np.asarray(np.clip(distance, -_REACH, _REACH), np.float32)


def _refine(coarse: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Linear interpolation from the coarse grid of `_signed_distance` to `shape`."""
    step = np.array([max(1, n // _COARSE) for n in shape])
    offset = (1 - step) / (2 * step)  # a coarse voxel lies in the middle of the voxels that it stands for
    fine = ndimage.affine_transform(coarse, 1 / step, offset, output_shape=shape, order=1, mode="nearest")
    return np.asarray(fine, np.float32)
