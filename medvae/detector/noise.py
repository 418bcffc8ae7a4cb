"""Coarse noise, which the denoiser learns to take out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.detector.shapes import Spacing
    from medvae.scan import Shape

_SD = (
    1.6  # robust SD of the foreground; with 0.9, that of the paper, large dark lesions are found less (docs/figures.md)
)
_APART_MM = 16.0  # in the paper an eighth of a slice of 128 pixels


def coarse_noise(shape: Shape, *, spacing: Spacing, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise of SD 1.6 at points 16 mm apart, trilinear between them (after Kascenas et al., MIDL 2022).

    It is meant for intensities in units of the foreground's robust SD.

    Args:
        shape: `(X, Y, Z)` of the noise.
        spacing: of the voxels, mm.
        rng: all that is random, the place of the points included.
    """
    step = np.maximum(_APART_MM / np.array(spacing), 1.0)  # voxels from point to point
    points = rng.normal(scale=_SD, size=np.ceil(np.array(shape) / step).astype(int) + 2).astype(np.float32)
    noise: NDArray[np.float32] = ndimage.affine_transform(
        points, 1 / step, offset=rng.uniform(size=3), output_shape=shape, order=1
    )
    return noise
