"""The foreground of a synthetic scan, predicted by ridge regression of the training outlines on their latent codes.

A VAE is trained inside the foreground only, so its decoder does not predict where a synthetic scan ends. In a model
with conditions the code is independent of them, so the outline is predicted from both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.prepare.grid import box_around

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REACH = 6.0  # distances are clipped at this many (coarse) voxels from an outline
_COARSE = 40  # outlines are kept on a grid of about this many voxels per axis; signed distances are smooth
_PENALTIES = np.logspace(-3, 3, 13)  # relative to the mean square of the features


@dataclass(frozen=True, eq=False)
class Outline:
    """Signed distance to the outline as a linear function of code and conditions (the features).

    Attributes:
        centre: mean features, `(D,)`.
        features: of the training scans, less their mean, `(n, D)`.
        weight: factor on the conditions, so that they have as much variance in all as the code.
        solve: `(n, n)`, inner products with `features` -> weights of the scans.
        distances: signed distances less their mean, `(n, x, y, z)`, coarse voxels, positive inside.
        mean: mean signed distance, `(x, y, z)`.
        seen: bool `(X, Y, Z)`, voxels that were foreground in at least one training scan: the decoder knows no others.
        block: training outlines are boxes, as fields of view are.
    """

    centre: NDArray[np.float32] = field(repr=False)
    features: NDArray[np.float32] = field(repr=False)
    weight: float
    solve: NDArray[np.float64] = field(repr=False)
    distances: NDArray[np.float32] = field(repr=False)
    mean: NDArray[np.float32] = field(repr=False)
    seen: NDArray[np.bool_] = field(repr=False)
    block: bool

    def mask(self, z: NDArray[np.float32], conditions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Foreground `(1, X, Y, Z)` for a code and a vector of conditions `(k,)`, empty for a model without any."""
        features = np.concatenate([z.ravel(), np.float32(self.weight) * conditions])
        weights = self.solve @ (self.features @ (features - self.centre)).astype(np.float64)
        distance = self.mean + np.tensordot(weights.astype(np.float32), self.distances, axes=1)
        inside = (_refine(distance, self.seen.shape) > 0) & self.seen
        if self.block and inside.any():  # a smooth distance has rounded corners
            inside[box_around(inside)] = True
        return np.ascontiguousarray(inside[None])


def fit(codes: NDArray[np.float32], masks: NDArray[np.bool_], conditions: NDArray[np.float32]) -> Outline:
    """Fit to training scans.

    Args:
        codes: posterior means `(n, d...)`.
        masks: foregrounds `(n, 1, X, Y, Z)` of the same scans.
        conditions: of the same scans, `(n, k)`; k is 0 for a model without conditions.
    """
    foregrounds = np.asarray(masks.any(axis=1))
    flat = codes.reshape(len(codes), -1)
    weight = _balance(flat, conditions)
    features = np.concatenate([flat, np.float32(weight) * conditions], axis=1)
    centre = features.mean(axis=0)
    signed = np.stack([_signed_distance(one) for one in foregrounds])
    mean = signed.mean(axis=0)
    signed -= mean
    gram = (features - centre).astype(np.float64) @ (features - centre).T.astype(np.float64)
    seen = np.asarray(foregrounds.any(axis=0))
    block = all(one[box_around(one)].all() for one in foregrounds)
    return Outline(centre, features - centre, weight, _solver(gram, signed), signed, mean, seen, block)


def _balance(codes: NDArray[np.float32], conditions: NDArray[np.float32]) -> float:
    """The factor that gives conditions as much variance in all as the codes have; 0 where they do not vary."""
    total = float(conditions.var(axis=0).sum())
    return float(np.sqrt(codes.var(axis=0).sum() / total)) if total > 0 else 0.0


def _solver(gram: NDArray[np.float64], targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """A = (K + λI)⁻¹ with the λ of smallest leave-one-out error, which is (A·Y)ᵢ / Aᵢᵢ (PRESS; Allen, 1974)."""
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
    """Coarse signed distance to the outline, positive inside, clipped; masks without an outline are all in or out."""
    step = tuple(max(1, n // _COARSE) for n in mask.shape)
    share = ndimage.uniform_filter(mask.astype(np.float32), step)  # at i: the mean over step voxels from i - step//2
    coarse = share[tuple(slice(s // 2, None, s) for s in step)]
    inside = coarse > 0.5
    if inside.all() or not inside.any():
        return np.full(coarse.shape, _REACH if inside.any() else -_REACH, np.float32)
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    distance -= np.sign(distance) * (1 - np.abs(2 * coarse - 1))  # position of the outline between two voxels
    return np.asarray(np.clip(distance, -_REACH, _REACH), np.float32)


def _refine(coarse: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Linear interpolation from the coarse grid of `_signed_distance` to `shape`."""
    step = np.array([max(1, n // _COARSE) for n in shape])
    offset = (1 - step) / (2 * step)  # a coarse voxel is centred on the voxels that it represents
    fine = ndimage.affine_transform(coarse, 1 / step, offset, output_shape=shape, order=1, mode="nearest")
    return np.asarray(fine, np.float32)
