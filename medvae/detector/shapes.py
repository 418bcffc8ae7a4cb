"""Random shapes of anomalies: rough ellipsoids and boxes, blobs and scattered pieces of smooth noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]

_MILLILITRES = (0.2, 150.0)  # log-uniform
_LARGEST = 0.12  # share of the foreground that one anomaly covers at most
_REACH = 1.9  # half the side of the box around a shape, in radii of a ball of its volume
_SCATTER_MM = (1.5, 4.0)  # σ of the noise whose highest values are scattered pieces
_SCATTER_ML = 15.0  # scattered pieces have at most this volume together


def draw_shape(
    foreground: NDArray[np.bool_], *, spacing: Spacing, rng: np.random.Generator
) -> tuple[Box, NDArray[np.bool_]]:
    """A box inside the grid, and a shape of random kind, size and place in it, all of it foreground.

    Args:
        foreground: bool `(X, Y, Z)`, not empty.
        spacing: of the voxels, mm.
        rng: all that is random.

    Returns:
        The box, and bool of the size of the box.
    """
    voxel = float(np.prod(spacing)) / 1000
    low, high = np.log(_MILLILITRES)
    volume = min(float(np.exp(rng.uniform(low, high))), _LARGEST * foreground.sum() * voxel)
    draw = _KINDS[int(rng.integers(len(_KINDS)))]
    if draw is _scatter:
        volume = min(volume, _SCATTER_ML)
    radius = np.cbrt(3 / (4 * np.pi) * 1000 * volume)
    reach = radius * (3.0 if draw is _scatter else _REACH) + max(spacing)
    centre = np.unravel_index(int(rng.choice(np.flatnonzero(foreground))), foreground.shape)
    box = tuple(
        slice(max(0, int(c - np.ceil(reach / mm))), min(n, int(c + np.ceil(reach / mm)) + 1))
        for c, mm, n in zip(centre, spacing, foreground.shape, strict=True)
    )
    inside = foreground[box]
    axes = [(np.arange(s.start, s.stop) - c) * mm for s, c, mm in zip(box, centre, spacing, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    height = np.where(inside, draw(offsets, radius, spacing, rng), -np.inf)
    count = int(np.clip(round(volume / voxel), 1, inside.sum()))
    lowest = np.partition(height[inside], -count)[-count]
    return (box[0], box[1], box[2]), height >= lowest


def _rounded(offsets: NDArray[np.float32], power: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Less the distance from the centre by a random turned and stretched norm: 2 is an ellipsoid, 8 nearly a box."""
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    stretch = np.exp(rng.uniform(-0.5, 0.5, (3, 1)))  # of rows: of columns, it would stretch before it turns
    turned = np.abs(np.tensordot((stretch * turn).astype(np.float32), offsets, axes=1))
    return -np.asarray((turned**power).sum(axis=0) ** (1 / power), np.float32)


def _smooth_noise(shape: tuple[int, ...], sigma: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, truncate=3)
    scaled: NDArray[np.float32] = noise / max(float(noise.std()), 1e-6)
    return scaled


def _ellipsoid(
    offsets: NDArray[np.float32], radius: float, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    return _rounded(offsets, 2.0, rng)


def _brick(
    offsets: NDArray[np.float32], radius: float, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    return _rounded(offsets, 8.0, rng)


def _blob(
    offsets: NDArray[np.float32], radius: float, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """An ellipsoid whose border smooth noise moves in and out."""
    sigma = radius * rng.uniform(0.2, 0.6) / np.array(spacing)
    noise = _smooth_noise(offsets.shape[1:], np.maximum(sigma, 0.7), rng)
    height: NDArray[np.float32] = _rounded(offsets, 2.0, rng) + np.float32(radius * rng.uniform(0.2, 0.7)) * noise
    return height


def _scatter(
    offsets: NDArray[np.float32], radius: float, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The highest values of smooth noise around the centre: several small pieces."""
    sigma = rng.uniform(*_SCATTER_MM) / np.array(spacing)
    wide = np.square(offsets).sum(axis=0) / np.float32(2 * (1.5 * radius) ** 2)
    height: NDArray[np.float32] = _smooth_noise(offsets.shape[1:], sigma, rng) - wide
    return height


_KINDS: tuple[Callable[..., NDArray[np.float32]], ...] = (_ellipsoid, _brick, _blob, _blob, _scatter)
