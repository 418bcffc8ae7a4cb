"""How much a head lies as the template does: by local correlation, which a lesion or a weak contrast changes little.

A tumour changes the blocks it lies in, not the others; thick slices, bias fields and low contrast change the size of
local differences, not their order. The median over blocks is the measure.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from medvae.prepare import template
from medvae.prepare.grid import resample, resample_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Geometry

MM = 4.0  # voxels that are compared
_BLOCK = 5  # voxels along each axis of a block: 20 mm
_MOSTLY = 0.5  # share of a block that lies in the template's brain


def likeness(data: NDArray[np.float32], geometry: Geometry, matrix: NDArray[np.float64]) -> float:
    """Median over blocks of 20 mm of Pearson's r between a head and the template, within the template's brain.

    A block of a single value counts as 0. −1 to 1; 0 for what has nothing in common with the template.

    Args:
        data: of the head, `(X, Y, Z)`.
        geometry: of the head.
        matrix: 4×4, template RAS+ mm -> head RAS+ mm.
    """
    moved = resample(data, np.linalg.inv(geometry.affine) @ matrix @ _grid().affine, _grid().shape)
    mine, theirs, inside = (_blocks(one) for one in (moved, *template.on_grid(_grid())))
    mine, theirs, inside = (one[_used()] for one in (mine, theirs, inside))
    mine, theirs = (_centred(one, inside) for one in (mine, theirs))
    size = np.sqrt((mine**2).sum(axis=1) * (theirs**2).sum(axis=1))
    return float(np.median((mine * theirs).sum(axis=1) / np.maximum(size, 1e-6)))


def overlap(foreground: NDArray[np.bool_], geometry: Geometry, matrix: NDArray[np.float64]) -> float:
    """Dice coefficient of a stripped head's foreground and the template's brain; arguments as in `likeness`."""
    to_head = np.linalg.inv(geometry.affine) @ matrix @ _grid().affine
    moved, brain = resample_labels(foreground, to_head, _grid().shape) > 0, template.on_grid(_grid())[1]
    return float(2 * (moved & brain).sum() / (moved.sum() + brain.sum()))


def _grid() -> Geometry:
    return template.wide_grid(MM)


@cache
def _used() -> NDArray[np.bool_]:
    """Which blocks lie mostly in the template's brain."""
    return np.asarray(_blocks(template.on_grid(_grid())[1]).mean(axis=1) > _MOSTLY)


def _blocks(volume: NDArray[np.generic]) -> NDArray[np.float64]:
    """`(blocks, voxels of a block)`; the grid is filled up with 0 at its far ends."""
    filled = np.pad(volume.astype(np.float64), [(0, -n % _BLOCK) for n in volume.shape])
    a, b, c = (n // _BLOCK for n in filled.shape)
    return filled.reshape(a, _BLOCK, b, _BLOCK, c, _BLOCK).transpose(0, 2, 4, 1, 3, 5).reshape(a * b * c, -1)


def _centred(blocks: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less its mean inside, 0 outside."""
    mean = (blocks * inside).sum(axis=1, keepdims=True) / inside.sum(axis=1, keepdims=True)
    centred: NDArray[np.float64] = (blocks - mean) * inside
    return centred
