"""Coarse noise, which the denoiser learns to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.prepare.intensity import robust_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.detector.shapes import Spacing

_SD = 1.6  # robust SDs; with 0.9, that of the paper, large dark lesions are found less (docs/figures.md)
_APART_MM = 16.0  # in the paper 8 pixels of a slice of 128


def coarse_noise(
    image: NDArray[np.float32], foreground: NDArray[np.bool_], *, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise at points 16 mm apart, trilinear between them (after Kascenas et al., MIDL 2022), `(X, Y, Z)`.

    Args:
        image: the scan that it is for, `(X, Y, Z)`: its SD is 1.6 times the robust SD of the foreground.
        foreground: bool, the same shape.
        spacing: of the voxels, mm.
        rng: all that is random, the place of the points included.

    Raises:
        ScanError: `blank`, where the foreground has one value.
    """
    step = np.maximum(_APART_MM / np.array(spacing), 1.0)  # voxels from point to point
    points = rng.normal(scale=_SD, size=np.ceil(np.array(image.shape) / step).astype(int) + 2).astype(np.float32)
    noise: NDArray[np.float32] = ndimage.affine_transform(
        points, 1 / step, offset=rng.uniform(size=3), output_shape=image.shape, order=1
    )
    return noise * np.float32(robust_spread(image, foreground))
