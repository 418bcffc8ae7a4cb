"""Simulated tumours, spots and white matter disease: what the weights of the map `fused` are fitted to.

Another generator than those of the detector's training (`medvae.detector.tasks`) and of the tests
(`medvae.simulate.lesions`): nothing is judged by what it was fitted to. A tumour has a core with fine structure of its
own, at times a necrosis or a bleeding, swelling that spreads in white matter, and displaces the tissue around it.
Spots are small pieces, at times on both sides alike. White matter disease is darker white matter in confluent pieces,
on both sides nearly alike. Values are prepared intensities on an aligned brain's grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy import ndimage

from medvae.prepare.noise import noise_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Spacing = tuple[float, float, float]
    Values = NDArray[np.float32]

Kind = Literal["tumour", "dark spots", "bright spots", "both sides"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TUMOUR_ML, _SPOT_ML, _MOST_SPOTS = (8.0, 80.0), (0.1, 6.0), 12  # volumes are log-uniform
_EDGE_MM = 2.4  # over which a border goes from almost nothing to almost all


@dataclass(frozen=True, eq=False)
class Anomaly:
    """A scan with a simulated anomaly.

    Attributes:
        image: float32 `(X, Y, Z)`, prepared intensities, unchanged outside the foreground.
        truth: bool `(X, Y, Z)`: core and swelling of a tumour, all spots, or all darker white matter.
    """

    image: Values = field(repr=False)
    truth: NDArray[np.bool_] = field(repr=False)


def add_anomaly(
    image: Values, foreground: NDArray[np.bool_], *, kind: Kind, spacing: Spacing, rng: np.random.Generator
) -> Anomaly:
    """Put an anomaly of a kind at a random place of a healthy brain.

    Args:
        image: prepared, `(X, Y, Z)`.
        foreground: the brain, bool of the same shape.
        kind: of the anomaly.
        spacing: of the voxels, mm.
        rng: all that is random.
    """
    brain = _Brain(image, foreground, spacing, rng)
    changed, truth = _MAKE[kind](brain)
    return Anomaly(np.where(foreground, changed, image).astype(np.float32), truth & foreground)


class _Brain:
    """A brain, its grey values, and random fields on its grid."""

    def __init__(
        self, image: Values, foreground: NDArray[np.bool_], spacing: Spacing, rng: np.random.Generator
    ) -> None:
        self.image, self.foreground, self.rng = image, foreground, rng
        self.mm = np.array(spacing)
        self.fluid, self.grey, self.white = _tissues(image[foreground])
        self.depth = ndimage.distance_transform_edt(foreground, sampling=spacing)
        self.at = np.indices(image.shape, dtype=np.float32)

    def smooth(self, values: NDArray[np.floating] | NDArray[np.bool_], mm: float) -> Values:
        """Smoothed by a Gaussian."""
        smooth: Values = ndimage.gaussian_filter(values.astype(np.float32), mm / self.mm, truncate=3)
        return smooth

    def noise(self, mm: float) -> Values:
        """Smooth noise of unit spread."""
        noise = self.smooth(self.rng.standard_normal(self.image.shape, np.float32), mm)
        unit: Values = noise / noise.std()
        return unit

    def place(self, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
        """A voxel, among all of the foreground where none is allowed."""
        places = np.flatnonzero(allowed if allowed.any() else self.foreground)
        return np.array(np.unravel_index(self.rng.choice(places), self.image.shape))

    def opposite(self, place: NDArray[np.intp]) -> NDArray[np.intp]:
        """About the same place on the other side, up to 8 mm off."""
        mirrored = np.array([self.image.shape[0] - 1 - place[0], *place[1:]])
        off = np.rint(self.rng.uniform(-8, 8, 3) / self.mm).astype(np.intp)
        inside: NDArray[np.intp] = np.clip(mirrored + off, 0, np.array(self.image.shape) - 1)
        return inside

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def ellipsoid(self, centre: NDArray[np.intp], *, elongation: float) -> tuple[NDArray[np.floating], Values]:
        """mm from the centre as vectors `(3, X, Y, Z)`, and as the distance in a ball that was stretched at random."""
        away = (self.at - centre[:, None, None, None]) * self.mm[:, None, None, None]
        axes = np.exp(self.rng.uniform(-elongation, elongation, 3))
        axes /= np.cbrt(np.prod(axes))
        distance = np.sqrt(np.square(away / axes[:, None, None, None]).sum(axis=0))
        return away, distance.astype(np.float32)


def _tissues(values: Values) -> tuple[float, float, float]:
    """Usual grey values of fluid, grey and white matter: the centres of three clusters."""
    from sklearn.cluster import KMeans  # half a second to load

    centres = KMeans(3, n_init=2, random_state=0).fit(values[::20, None]).cluster_centers_[:, 0]
    fluid, grey, white = (float(one) for one in np.sort(centres))
    return fluid, grey, white


def _step(height: NDArray[np.floating], *, edge_mm: float = _EDGE_MM) -> Values:
    """From 1 where the height above a border is far below 0, to 0."""
    step: Values = (1 / (1 + np.exp(np.clip(2 * height / edge_mm, -50, 50)))).astype(np.float32)
    return step


def _tumour(brain: _Brain) -> tuple[Values, NDArray[np.bool_]]:
    rng, grey, white, fluid = brain.rng, brain.grey, brain.white, brain.fluid
    radius = float(np.cbrt(3 / (4 * np.pi) * 1000 * brain.log_uniform(*_TUMOUR_ML)))
    centre = brain.place((brain.depth > max(8.0, 0.6 * radius)) & (brain.smooth(brain.image, 2.0) > grey))
    away, distance = brain.ellipsoid(centre, elongation=0.25)
    height = brain.smooth(distance - radius * (1 + 0.22 * brain.noise(0.45 * radius)), 2.0)
    pushed = _pushed(brain, away, distance, radius)
    swelling = _swelling(brain, pushed, height, radius)
    changed = pushed - swelling * rng.uniform(0.5, 1.3) * (white - grey)
    core = _step(height)
    level = rng.uniform(0.3 * fluid + 0.7 * grey, 0.6 * grey + 0.4 * white)
    structure = 0.12 * (white - fluid) * brain.noise(rng.uniform(3, 6))
    changed += core * rng.uniform(0.65, 1) * (level + structure - changed)
    if rng.random() < 0.7:  # necrosis
        dead = _step(height + rng.uniform(0.25, 0.6) * radius * (1 + 0.4 * brain.noise(6)))
        changed += dead * (rng.uniform(0.7 * fluid + 0.3 * grey, 0.2 * fluid + 0.8 * grey) - changed)
    if rng.random() < 0.15:  # bleeding
        changed += core * (brain.noise(6) > 1.2) * (white + 0.3 * (white - grey) - changed)
    grain = noise_of(brain.image, brain.foreground) * rng.standard_normal(changed.shape, np.float32)
    changed += core * grain
    return changed.astype(np.float32), (core > 0.5) | (swelling > 0.5)


def _pushed(brain: _Brain, away: NDArray[np.floating], distance: Values, radius: float) -> Values:
    """The tissue around a tumour, displaced by up to 12 mm; less farther away and towards the border of the brain."""
    push = min(brain.rng.uniform(0.15, 0.45) * radius, 12.0)
    size = push * np.exp(-np.maximum(distance - radius, 0) / brain.rng.uniform(12, 30))
    size *= np.clip(distance / radius, 0, 1) * np.clip(brain.depth / 12, 0, 1)
    outwards = away / np.maximum(np.sqrt(np.square(away).sum(axis=0)), 1e-3)
    values: Values = ndimage.map_coordinates(
        brain.image, brain.at - outwards * size / brain.mm[:, None, None, None], order=1, mode="nearest"
    )
    return values


def _swelling(brain: _Brain, image: Values, height: Values, radius: float) -> Values:
    """Water in the white matter around a tumour, 0 to 1; one tumour in five has none."""
    if brain.rng.random() < 0.2:
        return np.zeros_like(image)
    reach = brain.rng.uniform(0.4, 1.2) * radius
    near = _step(height - reach * (1 + 0.3 * brain.noise(8)), edge_mm=3.0)
    swelling: Values = near * _white_matter(brain, image)
    return swelling


def _white_matter(brain: _Brain, image: Values) -> Values:
    """Where it is, 0 to 1, with a soft border."""
    share = brain.smooth(brain.smooth(image, 1.0) > (brain.grey + brain.white) / 2, 2.0)
    white: Values = np.clip(1.6 * share - 0.3, 0, 1)
    return white


def _both_sides(brain: _Brain) -> tuple[Values, NDArray[np.bool_]]:
    """Darker white matter in confluent pieces, on both sides nearly alike."""
    rng, coarse = brain.rng, brain.rng.uniform(5, 9)
    rough = brain.noise(coarse)
    rough = rough + rng.uniform(0.6, 1) * np.flip(rough, axis=0)
    white = np.where(brain.depth > 5, _white_matter(brain, brain.image), np.float32(0))
    allowed = np.sort(rough[white > 0.5])[::-1]
    count = int(1000 * brain.log_uniform(*_TUMOUR_ML) / np.prod(brain.mm))
    least = allowed[min(count, allowed.size // 2)]
    weight = _step(coarse * (least - rough)) * white
    size = rng.uniform(0.4, 1.4) * (brain.white - brain.grey) * (1 + 0.2 * brain.noise(4))
    return (brain.image - weight * size).astype(np.float32), weight > 0.5


def _spots(brain: _Brain, sign: int) -> tuple[Values, NDArray[np.bool_]]:
    """Up to a dozen darker or brighter pieces, in most brains deep ones, in half of them on both sides alike."""
    rng, image = brain.rng, brain.image
    allowed, weight, rough = brain.depth > (8.0 if rng.random() < 0.7 else 3.0), np.zeros_like(image), brain.noise(4)
    both = rng.random() < 0.5
    for _ in range(int(rng.integers(1, _MOST_SPOTS + 1))):
        radius = float(np.cbrt(3 / (4 * np.pi) * 1000 * brain.log_uniform(*_SPOT_ML)))
        centre = brain.place(allowed)
        for place in (centre, brain.opposite(centre)) if both else (centre,):
            _, distance = brain.ellipsoid(place, elongation=0.4)
            weight = np.maximum(weight, _step(distance - radius * (1 + 0.3 * rough), edge_mm=1.6))
    low, high, darkest = (float(v) for v in np.percentile(image[brain.foreground], (5, 95, 1)))
    size = sign * brain.log_uniform(0.6, 2.2) * (high - low) / 3.29
    changed = np.maximum(image + weight * size * (1 + 0.2 * brain.noise(4)), np.minimum(image, darkest))
    return changed.astype(np.float32), weight > 0.5


_MAKE: Mapping[Kind, Callable[[_Brain], tuple[Values, NDArray[np.bool_]]]] = {
    "tumour": _tumour,
    "dark spots": lambda brain: _spots(brain, -1),
    "bright spots": lambda brain: _spots(brain, 1),
    "both sides": _both_sides,
}
