"""Another contrast between tissues, as another scanner or protocol gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Denser where more voxels are: a tissue has a width of its own, the tails hold vessels and fat.
_SHARES = (0, 0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.98, 1)
_SD = 1.2  # of the logarithm of a rise (docs/figures.md)


def other_contrast(
    image: NDArray[np.float32], foreground: NDArray[np.bool_], *, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The image after a random map of its grey values, `(X, Y, Z)`: increasing, and linear between quantiles.

    Between neighbouring quantiles (0, 2, 10, 25, 40, 55, 70, 85, 98 and 100%) of the foreground the map rises by their
    distance times exp(N(0, 1.2²)), so that tissues keep their order but not their distances.

    Args:
        image: `(X, Y, Z)`.
        foreground: bool, the same shape, not empty. Values outside it stay.
        rng: all that is random.
    """
    knots = np.quantile(image[foreground], _SHARES)
    rises = np.diff(knots) * np.exp(rng.normal(scale=_SD, size=len(_SHARES) - 1))
    heights = knots[0] + np.concatenate([[0], np.cumsum(rises)])
    return np.where(foreground, np.interp(image, knots, heights), image).astype(np.float32)
