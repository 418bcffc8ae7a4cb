"""A cohort of made brains: the MNI152 template under random diffeomorphisms, contrast, bias field, noise and pose.

No person was scanned for it. The demo and the tests use it where real scans may not be shipped. Some members carry a
lesion whose mask is known. All lengths are mm; all draws come from one seed a member, so member 7 is the same brain
whatever the size of the cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from medvae.prepare import template
from medvae.scan import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

Lesion = Literal["none", "dark", "bright"]

VOXEL = 2.0  # mm
_COARSE = 2  # the warp is composed on a grid this much coarser: it is smooth, and 8 times cheaper there
_SQUARINGS = 5


@dataclass(frozen=True, eq=False)
class Member:
    """One made scan.

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
    rng = np.random.default_rng([seed, index])
    tissue = _warp(_tissues(), _diffeomorphism(rng))
    image, brain = _contrast(tissue, rng)
    where = _blob(brain, rng) if lesion != "none" else np.zeros(brain.shape, np.float32)
    image *= 1 + where * ({"none": 0.0, "dark": -0.45, "bright": 0.6}[lesion])
    image = _acquire(image, brain, rng)
    return _pose(image.astype(np.int16), where > 0.5, rng)


@cache
def _tissues() -> NDArray[np.float32]:
    """T1, grey and white matter of the template at `VOXEL`, `(3, X, Y, Z)`, each 0..1."""
    step = round(VOXEL)
    volumes = []
    for kind in ("t1", "gm", "wm"):
        data = np.asarray(nib.load(template.path(kind)).dataobj, dtype=np.float32) / 255
        nx, ny, nz = (n // step for n in data.shape)
        blocks = data[: nx * step, : ny * step, : nz * step].reshape(nx, step, ny, step, nz, step)
        volumes.append(blocks.mean(axis=(1, 3, 5)))
    return np.stack(volumes)


def _diffeomorphism(rng: np.random.Generator) -> NDArray[np.float32]:
    """Displacement in voxels, `(3, X, Y, Z)`: the exponential of a smooth random velocity field.

    Scaling and squaring (Arsigny et al., MICCAI 2006): φ = (id + v/2ⁿ) composed with itself n times, so that no fold
    can arise from a smooth v.
    """
    shape = _tissues().shape[1:]
    coarse = tuple(n // _COARSE for n in shape)
    velocity = np.stack([_smooth(rng, coarse, mm=24.0, voxel=VOXEL * _COARSE) for _ in range(3)])
    step = velocity * (3.5 / (VOXEL * _COARSE)) / 2**_SQUARINGS
    grid = np.indices(coarse, dtype=np.float32)
    for _ in range(_SQUARINGS):
        step = step + np.stack([ndimage.map_coordinates(c, grid + step, order=1, mode="nearest") for c in step])
    fine = np.indices(shape, dtype=np.float32) / np.float32(_COARSE)
    return np.stack([ndimage.map_coordinates(c, fine, order=1, mode="nearest") for c in step * _COARSE])


def _warp(volumes: NDArray[np.float32], displacement: NDArray[np.float32]) -> NDArray[np.float32]:
    at = np.indices(volumes.shape[1:], dtype=np.float32) + displacement
    return np.stack([ndimage.map_coordinates(volume, at, order=1) for volume in volumes])


def _contrast(tissue: NDArray[np.float32], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """An image with its own grey-white contrast, and the brain."""
    t1, grey, white = tissue
    brain = ndimage.binary_opening(t1 > 0.08, iterations=1)
    grey_gain, white_gain = rng.uniform(-0.08, 0.08, size=2)
    return (t1 + grey_gain * grey + white_gain * white).astype(np.float32), brain


def _blob(brain: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """A lesion of 8 to 18 mm radius with an irregular soft edge, well inside the brain: 0..1."""
    inside = np.argwhere(ndimage.distance_transform_edt(brain) * VOXEL > 10)
    centre = inside[rng.integers(len(inside))]
    distance = np.linalg.norm((np.indices(brain.shape, dtype=np.float32).T - centre) * VOXEL, axis=-1).T
    ragged = distance + 4 * _smooth(rng, brain.shape, mm=6.0, voxel=VOXEL)
    soft = 1 / (1 + np.exp((ragged - rng.uniform(8, 18)) / 1.5))
    return (soft * brain).astype(np.float32)


def _acquire(image: NDArray[np.float32], brain: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Receive field, scanner gain and noise; 0 outside the brain, at least 1 inside."""
    bias = np.exp(0.1 * _smooth(rng, image.shape, mm=40.0, voxel=VOXEL))
    noisy = image * bias + rng.normal(0, rng.uniform(0.01, 0.03), image.shape)
    return np.where(brain, np.clip(noisy * rng.uniform(300, 3000), 1, 32000), 0).astype(np.float32)


def _pose(data: NDArray[np.int16], lesion: NDArray[np.bool_], rng: np.random.Generator) -> Member:
    """Another axis order and a small rotation and shift, as scanners give; the brain itself is not resampled."""
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
    turned = [np.flip(volume.transpose(order), axis=np.flatnonzero(flips)) for volume in (data, lesion)]
    geometry = Geometry(turned[0].shape, affine @ reorder)  # type: ignore[arg-type]
    return Member(np.ascontiguousarray(turned[0]), np.ascontiguousarray(turned[1]), geometry)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], *, mm: float, voxel: float) -> NDArray[np.float32]:
    """A Gaussian random field of unit variance, smoothed at `mm`, drawn as coarsely as its smoothness allows."""
    step = max(1, int(mm / voxel / 2))
    coarse = tuple(n // step + 3 for n in shape)
    field_ = ndimage.gaussian_filter(rng.normal(size=coarse), mm / voxel / step, mode="wrap")
    at = np.indices(shape, dtype=np.float32) / np.float32(step)
    values = ndimage.map_coordinates(field_ / field_.std(), at, order=1, mode="nearest")
    return values.astype(np.float32)
