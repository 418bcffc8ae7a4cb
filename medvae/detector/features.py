"""What the detector is shown of a prepared scan: the image, and how unusual it is by place and by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.prepare.grid import difference_of_sides
from medvae.statistics import Moments, Normal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from medvae.detector.shapes import Box
    from medvae.scan import Geometry

ALIGNED, UNALIGNED = 6, 1  # features of a scan that is aligned to a template, and of another one
WHOLE: Box = (slice(None), slice(None), slice(None))
_FARTHEST = 10.0  # z beyond this says no more
_USUAL = 0.8  # |z| of a unit normal, about √(2/π)


@dataclass(frozen=True, eq=False)
class Usual:
    """Healthy aligned scans, voxel by voxel.

    Attributes:
        image: mean and spread of the prepared images, `(X, Y, Z)`.
        difference: of the image minus its mirror image about the middle plane.
    """

    image: Normal = field(repr=False)
    difference: Normal = field(repr=False)

    @classmethod
    def of_scans(cls, scans: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]], grid: Geometry) -> Usual:
        """Computed from healthy scans, each an image and its foreground `(X, Y, Z)` on the grid."""
        sums = [Moments.empty(grid.shape) for _ in range(2)]
        for image, mask in scans:
            sums[0].add(image, mask)
            sums[1].add(difference_of_sides(image, mask, grid), mask)
        return cls(*(one.normal(spacing=grid.spacing) for one in sums))


def features(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    grid: Geometry,
    usual: Usual | None,
    box: Box = WHOLE,
) -> NDArray[np.float32]:
    """Features of a box of a scan, float32 `(F, x, y, z)`, 0 outside the foreground.

    Of an aligned scan: x; x − μ; z / 3 and |z| − 0.8 of the image; the same two of the difference between the sides,
    0 where there is none. Of another one: x.

    Args:
        image: prepared, `(X, Y, Z)`.
        mask: its foreground.
        grid: of both.
        usual: healthy aligned scans; None where scans are not aligned.
        box: the part that is wanted.
    """
    inside, here = mask[box], np.where(mask[box], image[box], np.float32(0))
    if usual is None:
        return here[None]
    z = np.clip((here - usual.image.mean[box]) / usual.image.sd[box], -_FARTHEST, _FARTHEST)
    side = (difference_of_sides(image, mask, grid)[box] - usual.difference.mean[box]) / usual.difference.sd[box]
    known = inside & ~np.isnan(side)
    side = np.nan_to_num(np.clip(side, -_FARTHEST, _FARTHEST))
    rows = (here, here - usual.image.mean[box], z / 3, np.abs(z) - _USUAL, side / 3, np.abs(side) - _USUAL)
    masks = (inside, inside, inside, inside, known, known)
    return np.stack([np.where(m, row, np.float32(0)) for row, m in zip(rows, masks, strict=True)]).astype(np.float32)
