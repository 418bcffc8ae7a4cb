"""Simulated brains: the MNI152 template under random diffeomorphisms, contrast, bias field, noise and pose.

No person was scanned for them. The demo and the tests use them where real scans may not be distributed. Some have a
lesion whose mask is known. All lengths are in mm. Each member of a cohort has its own seed, so that member 7 is the
same brain whatever the size of the cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from medvae.prepare import template
from medvae.prepare.grid import resample
from medvae.scan import Geometry
from medvae.simulate import lesions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Shape

Lesion = Literal["none", "dark", "bright", "iso"]

VOXEL = 2.0
_COARSE = 2  # the warp is composed on a grid this much coarser: it is smooth, and 8 times cheaper there
_SQUARINGS = 5
_WARPS = ((35.0, 3.0), (10.0, 1.5))  # smoothness and size of the random velocity: lobes, then folds
_SHARPER = 3  # power of the tissue shares
_FLUID_MM = 4.0  # how far around fluid its growth or loss reaches


@dataclass(frozen=True, eq=False)
class Member:
    """One simulated scan.

    Attributes:
        data: int16 `(X, Y, Z)`, arbitrary units, 0 outside the brain.
        lesion: bool `(X, Y, Z)`; all False where there is none.
        geometry: a random oblique pose, in one of several axis orders.
    """

    data: NDArray[np.int16] = field(repr=False)
    lesion: NDArray[np.bool_] = field(repr=False)
    geometry: Geometry


def make(index: int, *, seed: int, lesion: Lesion = "none") -> Member:
    """Member number `index` of the cohort with this seed, with or without a lesion."""
    rng, of_lesion = np.random.default_rng([seed, index]), np.random.default_rng([seed, index, 1])
    image, brain = _contrast(_warp(_tissues(), _diffeomorphism(rng)), rng)
    truth = np.zeros(brain.shape, bool)
    if lesion != "none":
        shape, spacing = _blob(brain, of_lesion), (VOXEL, VOXEL, VOXEL)
        implanted = lesions.implant(image, shape, foreground=brain, spacing=spacing, kind=lesion, seed=index)
        image, truth = implanted.image, implanted.truth
    return _pose(_acquire(image, brain, rng), truth, rng)


@cache
def _tissues() -> NDArray[np.float32]:
    """Grey matter, white matter and fluid of the template at `VOXEL`, `(3, X, Y, Z)`, shares that sum to 0..1.

    The template is a mean of many brains. The shares are sharpened, so that a voxel is mostly one tissue.
    """
    volumes = []
    for kind in ("t1", "gm", "wm"):
        data = np.asarray(nib.load(template.path(kind)).dataobj, dtype=np.float32) / np.float32(255)
        volumes.append(_blocks(data, round(VOXEL)))
    t1, grey, white = volumes
    brain = ndimage.binary_opening(t1 > 0.08)
    shares = np.stack([grey, white, np.clip(1 - grey - white, 0, 1)]) ** _SHARPER
    sharp: NDArray[np.float32] = (shares / np.maximum(shares.sum(axis=0), 1e-6) * brain).astype(np.float32)
    return sharp


def _diffeomorphism(rng: np.random.Generator) -> NDArray[np.float32]:
    """Displacement in voxels, `(3, X, Y, Z)`: the exponential of a smooth random velocity field.

    Scaling and squaring (Arsigny et al., MICCAI 2006): φ = (id + v/2ⁿ) composed with itself n times, so that no fold
    can arise from a smooth v.
    """
    _, nx, ny, nz = _tissues().shape
    shape, coarse = (nx, ny, nz), (nx // _COARSE, ny // _COARSE, nz // _COARSE)
    unit = VOXEL * _COARSE
    velocity = _fluid_growth() * (rng.uniform(-0.6, 1.8) / unit)
    for mm, size in _WARPS:
        velocity = velocity + np.stack([_smooth(rng, coarse, mm=mm, voxel=unit) for _ in range(3)]) * (size / unit)
    step = velocity / 2**_SQUARINGS
    grid = np.indices(coarse, dtype=np.float32)
    for _ in range(_SQUARINGS):
        step = step + np.stack([ndimage.map_coordinates(c, grid + step, order=1, mode="nearest") for c in step])
    return np.stack([_finer(component, _COARSE, shape) for component in step * _COARSE])


@cache
def _fluid_growth() -> NDArray[np.float32]:
    """A velocity of size 1 at the edges of fluid, on the coarse grid: ventricles and sulci widen together."""
    fluid = ndimage.gaussian_filter(_blocks(_tissues()[2], _COARSE), _FLUID_MM / (VOXEL * _COARSE))
    slope = np.stack(np.gradient(fluid))
    size = np.linalg.norm(slope, axis=0)
    growth: NDArray[np.float32] = (slope / np.quantile(size[size > 0], 0.95)).astype(np.float32)
    return growth


def _blocks(data: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means over blocks of `step` × `step` × `step` voxels."""
    nx, ny, nz = (n // step for n in data.shape)
    cut = data[: nx * step, : ny * step, : nz * step].reshape(nx, step, ny, step, nz, step)
    means: NDArray[np.float32] = cut.mean(axis=(1, 3, 5))
    return means


def _warp(volumes: NDArray[np.float32], displacement: NDArray[np.float32]) -> NDArray[np.float32]:
    at = np.indices(volumes.shape[1:], dtype=np.float32) + displacement
    return np.stack([ndimage.map_coordinates(volume, at, order=1) for volume in volumes])


def _contrast(tissue: NDArray[np.float32], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An image with a random T1 contrast (fluid dark, white matter bright), and the mask of the brain."""
    grey, white, fluid = tissue
    brain = ndimage.binary_opening(grey + white + fluid > 0.5)
    values = np.array([0.62, 0.95, 0.2]) + rng.uniform(-0.04, 0.04, size=3)
    image = values[0] * grey + values[1] * white + values[2] * fluid
    return image.astype(np.float32), brain


def _blob(brain: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A ragged shape of 8 to 18 mm radius, its centre well inside the brain."""
    inside = np.argwhere(ndimage.distance_transform_edt(brain) * VOXEL > 10)
    centre = inside[rng.integers(len(inside))]
    distance = np.linalg.norm((np.indices(brain.shape, dtype=np.float32).T - centre) * VOXEL, axis=-1).T
    ragged: NDArray[np.bool_] = distance + 4 * _smooth(rng, brain.shape, mm=6.0, voxel=VOXEL) < rng.uniform(8, 18)
    return ragged


def _acquire(image: NDArray[np.float32], brain: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int16]:
    """Receive field, scanner gain and noise; 0 outside the brain, at least 1 inside."""
    bias = np.exp(0.1 * _smooth(rng, image.shape, mm=40.0, voxel=VOXEL))
    noisy = image * bias + rng.normal(0, rng.uniform(0.01, 0.03), image.shape)
    return np.where(brain, np.clip(noisy * rng.uniform(300, 3000), 1, 32000), 0).astype(np.int16)


def _pose(data: NDArray[np.int16], lesion: NDArray[np.bool_], rng: np.random.Generator) -> Member:
    """A random axis order, rotation and shift, as in scanners; the voxels are not resampled."""
    angles = np.radians(rng.uniform(-8, 8, size=3))
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * VOXEL
    affine[:3, 3] = rng.uniform(-15, 15, size=3) - affine[:3, :3] @ ((np.array(data.shape) - 1) / 2)
    order = rng.permutation(3)
    flips = rng.integers(0, 2, size=3)
    reorder = np.zeros((4, 4))
    reorder[3, 3] = 1
    for new, old in enumerate(order):
        reorder[old, new] = -1 if flips[new] else 1
        reorder[old, 3] = data.shape[old] - 1 if flips[new] else 0
    backwards = tuple(int(axis) for axis in np.flatnonzero(flips))
    turned = np.ascontiguousarray(np.flip(data.transpose(order), axis=backwards))
    mask = np.ascontiguousarray(np.flip(lesion.transpose(order), axis=backwards))
    nx, ny, nz = turned.shape
    return Member(turned, mask, Geometry((nx, ny, nz), affine @ reorder))


def _smooth(rng: np.random.Generator, shape: Shape, *, mm: float, voxel: float) -> NDArray[np.float32]:
    """A Gaussian random field of unit variance, smoothed at `mm`, drawn on a grid as coarse as that allows."""
    step = max(1, int(mm / voxel / 2))
    coarse = tuple(n // step + 3 for n in shape)
    drawn = ndimage.gaussian_filter(rng.normal(size=coarse), mm / voxel / step, mode="wrap")
    return _finer(drawn / drawn.std(), step, shape)


def _finer(values: NDArray[np.floating], step: int, shape: Shape) -> NDArray[np.float32]:
    """Linear interpolation on a grid that is `step` times finer and has its first voxel in the same place."""
    return resample(values.astype(np.float32), np.diag([1 / step, 1 / step, 1 / step, 1.0]), shape)
