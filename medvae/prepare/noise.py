"""How much white noise a scan has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEDIAN_SIZE = 0.6744898  # median size of a unit normal


def noise_of(image: NDArray[np.float32], foreground: NDArray[np.bool_]) -> float:
    """Standard deviation of white noise in a scan, in its units (Immerkær, CVIU 1996, in three dimensions).

    The second difference along all three axes is 0 for whatever is linear along one of them, and has 6³ times the
    variance of white noise. Its median size treats the remaining anatomy as outliers. The estimate is too small where
    interpolation has smoothed the noise.
    """
    difference = image.astype(np.float32)
    for axis in range(3):
        difference = ndimage.correlate1d(difference, [1, -2, 1], axis=axis, mode="nearest")
    core = ndimage.binary_erosion(foreground, iterations=2)
    sizes = np.abs(difference[core if core.any() else foreground])
    return float(np.median(sizes)) / _MEDIAN_SIZE / float(np.sqrt(6**3))
