"""Small shifts and a left-right mirror: a moved copy is still a copy, so distances are taken after the best move.

All moves are compared on some thousands of voxels, at once for all training scans; the distances themselves are then
measured on all voxels, after the one move that brings the image nearest to a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
REACH = 2  # voxels along each axis
PROBES = 20_000  # voxels that moves are compared on
Shift = tuple[int, int, int]


@dataclass(frozen=True)
class Move:
    """A mirror, then a shift.

    Attributes:
        mirror: left and right change places.
        shift: whole voxels along R, A, S.
    """

    mirror: bool
    shift: Shift

    def apply(self, image: NDArray[T], *, fill: float) -> NDArray[T]:
        """An image `(C, X, Y, Z)` after the move; `fill` comes in at the edge."""
        (padded,) = _padded([image[:, ::-1] if self.mirror else image], fill=fill)
        ends = [slice(REACH - step, REACH - step + n) for step, n in zip(self.shift, image.shape[1:], strict=True)]
        return np.ascontiguousarray(padded[:, *ends])


_STEPS = sorted(range(-REACH, REACH + 1), key=abs)
MOVES = tuple(Move(mirror, shift) for mirror in (False, True) for shift in product(_STEPS, _STEPS, _STEPS))


def probe(region: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Numbers of voxels, evenly spread over those of a region `(C, X, Y, Z)`, counted over the region alone."""
    count = int(region.sum())
    return np.unique(np.linspace(0, max(0, count - 1), min(count, PROBES)).astype(np.intp))


def best_moves(
    image: NDArray[np.float32], known: NDArray[np.float32], at: NDArray[np.intp], *, fill: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each known scan the move that brings an image nearest to it, as a place in `MOVES`, and how near.

    Args:
        image: `(C, X, Y, Z)`.
        known: values of the known scans at the probed voxels, `(n, P)`.
        at: the probed voxels, as places in the flattened image, `(P,)`.
        fill: what comes in at the edge.

    Returns:
        Places `(n,)`, and sums of squared differences over the probed voxels `(n,)`, up to rounding.
    """
    moved = np.concatenate([_probed(one, at, image.shape) for one in _padded([image, image[:, ::-1]], fill=fill)])
    squares = np.square(known).sum(axis=1)[:, None] + np.square(moved).sum(axis=1)[None] - 2 * known @ moved.T
    best = squares.argmin(axis=1)
    return best, squares[np.arange(len(best)), best].astype(np.float64)


def _probed(padded: NDArray[np.float32], at: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values of a padded image at the probed voxels after each shift, `(shifts, P)`, in the order of `MOVES`."""
    channel, *places = np.unravel_index(at, shape)
    inner = np.ravel_multi_index((channel, *(one + REACH for one in places)), padded.shape)
    strides = np.array(padded.strides[1:]) // padded.itemsize
    offsets = np.array(list(product(_STEPS, _STEPS, _STEPS))) @ strides
    flat = padded.ravel()
    return np.stack([flat[inner - offset] for offset in offsets])


def _padded(images: list[NDArray[T]], *, fill: float) -> list[NDArray[T]]:
    width = [(0, 0), *[(REACH, REACH)] * 3]
    return [np.pad(one, width, constant_values=fill) for one in images]
