"""Whether a head has the contrast of T1: white matter brighter than grey matter, and brighter than fluid.

A FLAIR may lie on the template as a T1 does, and a model of T1 has nothing to say about it. The figures are shares of
voxels that are darker than white matter: no scale, offset or gamma changes them. Grey and white matter are compared
block by block, as a receive field changes a block little and a lesion few of them; by the median of white matter, as
lesions and wide ventricles take its place in part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.prepare import template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Geometry

    Mask = NDArray[np.bool_]

DOUBTFUL_CONTRAST = "doubtful_contrast"  # a warning begins with it, or an error has it as code
# By benchmarks/contrast.py --choose, on training scans: whatever lesion, wide ventricles, receive field, noise, slices
# or weak contrast a T1 is given, `grey` is at least 0.77; with the tissue means of FLAIR, T2 or proton density, or
# inverted, at most 0.52. A mass may move the ventricles away from those of the template, but it hardly makes what lies
# there brighter than white matter: the limit of `fluid` is far below the 0.95 of a T1.
LEAST_GREY, LEAST_FLUID = 0.67, 0.4
_MOSTLY, _FLUID = 0.8, 0.9  # probability of a tissue in the template
_DEPTH_MM, _FLUID_DEPTH_MM = 5.0, 10.0  # below the surface of the brain: what a mask cuts off, or leaves, is not used
_BLOCK_MM = 32.0
_LEAST_ML = 0.5  # of each tissue, in a block, and of fluid
_LEAST_BLOCKS = 4


@dataclass(frozen=True)
class TissueContrast:
    """How bright white matter is compared with the other tissues, independent of scale.

    Attributes:
        grey: median over blocks of the share of grey matter that is darker than the median of white matter there.
        fluid: the share of the fluid inside the brain that is darker than the median of all white matter; None where
            the scan shows too little.
    """

    grey: float
    fluid: float | None

    @property
    def doubt(self) -> str | None:
        """A warning with the figures, where the contrast is not that of T1; else None."""
        if self.grey >= LEAST_GREY and (self.fluid is None or self.fluid >= LEAST_FLUID):
            return None
        return (
            f"{DOUBTFUL_CONTRAST}: white matter is brighter than {self.grey:.0%} of the grey matter around it "
            f"(T1: {LEAST_GREY:.0%} or more){self._beside_fluid()}"
        )

    def _beside_fluid(self) -> str:
        if self.fluid is None:
            return ""
        like = "T2 or inverted intensities" if self.fluid < LEAST_FLUID else "FLAIR or proton density"
        return f" and than {self.fluid:.0%} of the fluid ({LEAST_FLUID:.0%} or more), as in {like}"


def tissue_contrast(values: NDArray[np.float32], foreground: Mask, *, grid: Geometry) -> TissueContrast | None:
    """The contrast of a head that lies on the template; None where too little of it is there.

    Args:
        values: `(X, Y, Z)` on the grid, in any units.
        foreground: bool, the same shape: the brain.
        grid: in MNI space.
    """
    tissues = _tissues(grid)
    grey, white, fluid = (one & foreground for one in tissues)
    least = _LEAST_ML * 1000 / grid.voxel_volume
    shares = [
        _darker(values[block][grey[block]], than=values[block][white[block]])
        for block in _blocks(grid)
        if min(white[block].sum(), grey[block].sum()) >= least
    ]
    if len(shares) < _LEAST_BLOCKS:
        return None
    known = fluid.sum() >= least
    return TissueContrast(float(np.median(shares)), _darker(values[fluid], than=values[white]) if known else None)


def _darker(values: NDArray[np.float32], *, than: NDArray[np.float32]) -> float:
    """Share of values below the median of others, equal ones counted half."""
    middle = np.median(than)
    return float(((values < middle).mean() + (values <= middle).mean()) / 2)


def _blocks(grid: Geometry) -> list[tuple[slice, ...]]:
    """The grid in blocks."""
    steps = [max(1, round(_BLOCK_MM / mm)) for mm in grid.spacing]
    starts = np.stack(np.meshgrid(*(np.arange(0, n, step) for n, step in zip(grid.shape, steps, strict=True))), -1)
    return [tuple(slice(a, a + step) for a, step in zip(start, steps, strict=True)) for start in starts.reshape(-1, 3)]


@cache
def _tissues(grid: Geometry) -> tuple[Mask, Mask, Mask]:
    """Where the template is mostly grey matter, white matter or fluid, away from the surface of its brain."""
    grey, white = template.tissues(grid)
    brain = template.on_grid(grid)[1]
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), grid.spacing)[1:-1, 1:-1, 1:-1]
    inside, deep = depth > _DEPTH_MM, depth > _FLUID_DEPTH_MM
    return inside & (grey > _MOSTLY), inside & (white > _MOSTLY), deep & (1 - grey - white > _FLUID)
