"""Sharpness: the power of an image per band of spatial frequency."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = 8  # of equal width, up to half the Nyquist frequency
HIGHEST = 0.25  # cycles per voxel: half the Nyquist frequency
_LEAST = 1e-12  # power: the spectrum of an image without contrast has a ratio, too


def radial_power(image: NDArray[np.floating], mask: NDArray[np.bool_], *, bands: int = BANDS) -> NDArray[np.float64]:
    """Mean power per band of an image within its foreground, 0 elsewhere, per foreground voxel.

    Frequencies are in cycles per voxel, the same along all axes; the mean value (frequency 0) belongs to no band.

    Args:
        image: `(1, X, Y, Z)`.
        mask: bool, the same shape.
        bands: how many.

    Returns:
        `(bands,)`, from the lowest frequency to `HIGHEST`; NaN for a band that a small grid has no frequency in.
    """
    values = np.where(mask, image, 0)[0].astype(np.float32)
    power = np.square(np.abs(np.fft.rfftn(values))) / max(1, mask.sum())
    lines = np.meshgrid(*[np.fft.fftfreq(n) for n in values.shape[:2]], np.fft.rfftfreq(values.shape[2]), indexing="ij")
    radius = np.sqrt(sum(np.square(line) for line in lines))
    edges = np.linspace(0, HIGHEST, bands + 1)
    found = [power[(radius > low) & (radius <= high)] for low, high in pairwise(edges)]
    return np.array([one.mean() if one.size else np.nan for one in found]) + _LEAST
