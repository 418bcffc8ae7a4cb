"""Distances by coarse blocks of the grid: a sample may copy one patient's temporal lobe and be new elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.synthesis.nearest import find_nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.synthesis.nearest import Nearest, TrainingImages

BLOCKS = 4  # along each axis of the box around all foregrounds
_SMALLEST = 0.1  # of the block: scans must have this much foreground in it, on average


@dataclass(frozen=True, eq=False)
class Regions:
    """The training scans, divided into blocks.

    Attributes:
        images: the scans.
        block: `(V,)`, for each voxel of `images.region` the number of its block; `count` where it is in none.
        count: of the blocks.
    """

    images: TrainingImages = field(repr=False)
    block: NDArray[np.intp] = field(repr=False)
    count: int

    @classmethod
    def of(cls, images: TrainingImages) -> Regions:
        """Blocks of the box around all foregrounds, without those that hold little of them."""
        _, *places = np.nonzero(images.region)
        if not len(places[0]):
            return cls(images, np.zeros(0, np.intp), 0)
        ends = [int(one.max()) - int(one.min()) + 1 for one in places]
        parts = [(one - one.min()) * BLOCKS // n for one, n in zip(places, ends, strict=True)]
        number = np.ravel_multi_index(parts, (BLOCKS,) * 3)
        foreground = np.bincount(number, images.inside.mean(axis=0), minlength=BLOCKS**3)
        kept = np.flatnonzero(foreground >= _SMALLEST * np.prod(ends) / BLOCKS**3)
        names = np.full(BLOCKS**3, len(kept))
        names[kept] = np.arange(len(kept))
        return cls(images, names[number], len(kept))

    def distances(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Root mean squared difference to each scan in each block, over both foregrounds, `(n, count)`.

        Args:
            image: `(C, X, Y, Z)`, background outside its mask.
            mask: `(1, X, Y, Z)`.
        """
        known, values = self.images, image[self.images.region]
        inside = np.broadcast_to(mask, image.shape)[known.region]
        rows = zip(known.values, known.inside, strict=True)
        squares, union = np.stack([(self._sums(np.square(v - values)), self._sums(i | inside)) for v, i in rows], 1)
        return np.asarray(np.sqrt(squares / np.maximum(union, 1)), np.float64)

    def nearest(
        self, image: NDArray[np.float32], mask: NDArray[np.bool_], *, without: str | None = None
    ) -> tuple[Nearest, ...]:
        """The nearest scan of each block, leaving out those of a subject; empty where no scan is left."""
        known = self.images
        columns = self.distances(image, mask).T
        found = [find_nearest(one, known.ids, subjects=known.subjects, without=without) for one in columns]
        return tuple(one for one in found if one is not None)

    def _sums(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Over the voxels of each block."""
        return np.asarray(np.bincount(self.block, values, minlength=self.count + 1)[: self.count], np.float64)
