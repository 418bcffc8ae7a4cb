"""Training scans registered onto an image: a warped patient is still that patient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from medvae.prepare.grid import box_around
from medvae.prepare.native import only_channel
from medvae.synthesis.nearest import find_nearest, nearest_subjects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.prepare.grid import Box
    from medvae.synthesis.nearest import Nearest, TrainingImages

    Volume = NDArray[np.float32]

CANDIDATES = 3  # subjects whose nearest scan is registered onto an image
_CELLS = 48  # along the longest axis: the grid is averaged down to at most this many
_ITERATIONS = 12
_SMOOTH = 1.5  # cells: standard deviation of the Gaussian that smooths the displacement after each iteration


@dataclass(frozen=True, eq=False)
class RegisteredScans:
    """Training scans on a coarse grid, to be registered onto images.

    Attributes:
        images: the scans.
        volumes: float32 `(n, x, y, z)`, prepared intensities less those of the background, which is 0.
        box: the part of the model's grid that holds all foregrounds.
        step: voxels of the model's grid that a cell stands for, along each axis.
    """

    images: TrainingImages = field(repr=False)
    volumes: Volume = field(repr=False)
    box: Box
    step: int

    @classmethod
    def of(cls, images: TrainingImages) -> RegisteredScans:
        """The scans, averaged down."""
        box = box_around(only_channel(images.region))
        step = max(1, math.ceil(max(one.stop - one.start for one in box) / _CELLS))
        rows = (images.scan(row)[0] for row in range(len(images.ids)))
        coarse = [_coarse(image, box=box, step=step, background=images.background) for image in rows]
        return cls(images, np.stack(coarse), box, step)

    def nearest(
        self, image: NDArray[np.float32], distances: NDArray[np.float64], *, without: str | None = None
    ) -> Nearest | None:
        """The scan that an image is nearest to after registration, by the root mean squared difference that is left.

        Args:
            image: `(1, X, Y, Z)`, background outside its mask.
            distances: to the scans, `(n,)`: those of the nearest subjects are registered, one scan of each.
            without: the scans of this subject are left out.
        """
        ids, subjects = self.images.ids, self.images.subjects
        rows = nearest_subjects(distances, subjects, count=CANDIDATES, without=without)
        fixed = _coarse(image, box=self.box, step=self.step, background=self.images.background)
        left = np.array([residual(self.volumes[row], fixed) for row in rows])
        return find_nearest(left, [ids[row] for row in rows], subjects=[subjects[row] for row in rows])


def residual(moving: Volume, fixed: Volume) -> float:
    """Root mean squared difference of two volumes `(x, y, z)`, where one has tissue, after registration.

    The background is 0. Demons with symmetric forces (Vercauteren et al., NeuroImage 2009).
    """
    target, source = (sitk.GetImageFromArray(one.T) for one in (fixed, moving))
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetGlobalDefaultNumberOfThreads(1)  # of the filters inside of it
    demons.SetNumberOfThreads(1)
    demons.SetNumberOfIterations(_ITERATIONS)
    demons.SetStandardDeviations(_SMOOTH)
    field_of = sitk.Cast(demons.Execute(target, source), sitk.sitkVectorFloat64)
    warped = sitk.Resample(source, target, sitk.DisplacementFieldTransform(field_of), sitk.sitkLinear, 0.0)
    values = sitk.GetArrayFromImage(warped).T
    tissue = (values != 0) | (fixed != 0)
    return float(np.sqrt(np.square(values[tissue] - fixed[tissue]).mean())) if tissue.any() else 0.0


def _coarse(image: NDArray[np.floating], *, box: Box, step: int, background: float) -> Volume:
    """Means over cells of `step` voxels, minus the background; cells at the end reach beyond the box."""
    inside = only_channel(image)[box].astype(np.float32) - np.float32(background)
    padded = np.pad(inside, [(0, -n % step) for n in inside.shape])
    x, y, z = (n // step for n in padded.shape)
    return np.asarray(padded.reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5)), np.float32)
