"""Prepared scans as another scanner might have made them: thick slices, weak contrast, a receive field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float32]

Change = Literal["none", "thick slices", "low contrast", "receive field", "gamma"]
CHANGES: tuple[Change, ...] = get_args(Change)

_SLICE_MM = 5.5
_FIELD_MM, _FIELD = 45.0, 0.12  # σ of its smoothness, and the spread of its logarithm
_FLATTER, _NOISE = 0.55, 0.15  # of white matter's distance from grey matter, and added noise, in prepared intensities


def changed_by_scanner(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    *,
    change: Change,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """A prepared scan `(X, Y, Z)` with other intensities; outside the foreground nothing changes.

    Intensities are not fitted again, and a receive field is not divided out: preparation does both.
    """
    made = _MAKE[change](image, foreground, np.array(spacing), rng)
    return np.where(foreground, made, image).astype(np.float32)


def _none(image: Values, inside: NDArray[np.bool_], mm: NDArray[np.float64], rng: np.random.Generator) -> Values:
    return image


def _thick(image: Values, inside: NDArray[np.bool_], mm: NDArray[np.float64], rng: np.random.Generator) -> Values:
    """Slices that average what they hold, with straight lines between them."""
    size = max(1.0, _SLICE_MM / mm[2])
    averaged = ndimage.uniform_filter1d(image, max(1, round(size)), axis=2, mode="nearest")
    thick = ndimage.zoom(averaged, (1, 1, 1 / size), order=1, mode="nearest", grid_mode=False)
    zooms = [1, 1, image.shape[2] / thick.shape[2]]
    back: NDArray[np.float32] = ndimage.zoom(thick, zooms, order=1, mode="nearest", grid_mode=False)
    return back


def _low_contrast(
    image: Values, inside: NDArray[np.bool_], mm: NDArray[np.float64], rng: np.random.Generator
) -> Values:
    knee = float(np.median(image[inside])) - 0.5
    flatter = np.where(image > knee, knee + _FLATTER * (image - knee), image)
    noisy: Values = flatter + _NOISE * rng.standard_normal(image.shape, np.float32)
    return noisy


def _field(image: Values, inside: NDArray[np.bool_], mm: NDArray[np.float64], rng: np.random.Generator) -> Values:
    rough = ndimage.gaussian_filter(rng.standard_normal(image.shape, np.float32), _FIELD_MM / mm, mode="wrap")
    lowest = image[inside].min()
    changed: Values = lowest + (image - lowest) * np.exp(_FIELD * rough / rough.std())
    return changed


def _gamma(image: Values, inside: NDArray[np.bool_], mm: NDArray[np.float64], rng: np.random.Generator) -> Values:
    low, high = np.percentile(image[inside], (0.5, 99.5))
    exponent = rng.choice([0.75, 1.3])
    changed: Values = low + (high - low) * np.clip((image - low) / (high - low), 0, 1.2) ** exponent
    return changed


_MAKE = {
    "none": _none,
    "thick slices": _thick,
    "low contrast": _low_contrast,
    "receive field": _field,
    "gamma": _gamma,
}
