"""Kinds of simulated anomalies for training: what a patch of a healthy scan is changed into.

They are unlike each other, so that the network cannot learn the traces of one of them. The lesions of the tests
(`medvae.simulate.lesions`) are made by other code; `shift` and `texture` come near to their kinds. Values are prepared
intensities; `there` is the patch as it is, `weight` 0 to 1 says how much of each voxel is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from medvae.detector.shapes import Box, Spacing

    Values = NDArray[np.float32]

_WITHIN = 0.5  # weight from which a voxel belongs to the shape


@dataclass(frozen=True, eq=False)
class Place:
    """Where an anomaly is put.

    Attributes:
        image: the scan, `(X, Y, Z)`.
        foreground: of the scan.
        donor: another scan on the same grid. Outside their foreground both have the value of fluid.
        box: of the patch.
        weight: `(x, y, z)` of the box, 0 to 1.
        spacing: of the voxels, mm.
        noise: standard deviation of the scan's noise.
        spread: of the scan's tissue.
    """

    image: Values = field(repr=False)
    foreground: NDArray[np.bool_] = field(repr=False)
    donor: Values = field(repr=False)
    box: Box
    weight: Values = field(repr=False)
    spacing: Spacing
    noise: float
    spread: float

    @property
    def there(self) -> Values:
        """The patch as it is."""
        return self.image[self.box]

    def changed_by(self, change: NDArray[np.floating]) -> Values:
        """The patch with a change."""
        changed: Values = (self.there + change).astype(np.float32)
        return changed

    @property
    def levels(self) -> tuple[float, float]:
        """Levels of the darkest and the brightest tissue."""
        low, high = np.percentile(self.image[self.foreground][::7], (1, 99))
        return float(low), float(high)


def foreign(place: Place, rng: np.random.Generator) -> Values:
    """A patch of another scan from nearly the same place, at times matched to the values (Tan et al., MELBA 2022)."""
    return _blended(place, _cut(place, place.donor, reach=8.0, rng=rng), rng)


def elsewhere(place: Place, rng: np.random.Generator) -> Values:
    """A patch of the same scan from another place, mirrored at random."""
    patch = _cut(place, place.image, reach=80.0, rng=rng)
    flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(3))
    return _blended(place, patch[flips], rng)


def shift(place: Place, rng: np.random.Generator) -> Values:
    """Brighter or darker by an amount that varies smoothly; anatomy stays visible (Baugh et al., MICCAI 2023)."""
    size = place.spread * float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    sign = 1 if rng.random() < 0.5 else -1
    uneven = _smooth(place, mm=rng.uniform(4, 20), rng=rng)
    change = sign * size * np.clip(1 + rng.uniform(0, 0.6) * uneven, 0.1, None)
    return place.changed_by(place.weight * change)


def tissue(place: Place, rng: np.random.Generator) -> Values:
    """Drawn towards one grey value between the darkest and the brightest tissue, with the scan's noise."""
    low, high = place.levels
    level = rng.uniform(low - 0.2 * (high - low), high + 0.5 * (high - low))
    uneven = place.spread * rng.uniform(0, 0.4) * _smooth(place, mm=rng.uniform(2, 12), rng=rng)
    noise = place.noise * rng.standard_normal(place.weight.shape, np.float32)
    share = np.float32(rng.uniform(0.3, 1))
    return place.changed_by(place.weight * share * (level + uneven + noise - place.there))


def cluster(place: Place, rng: np.random.Generator) -> Values:
    """One tissue changed and the others left: voxels near a grey value, as water spreads in white matter only."""
    low, high = place.levels
    centre = float(rng.choice(place.there[place.weight > _WITHIN])) if (place.weight > _WITHIN).any() else high
    fine = ndimage.gaussian_filter(place.there, 1.0 / np.array(place.spacing), truncate=3, mode="nearest")
    width = rng.uniform(0.1, 0.25) * (high - low)
    alike = np.exp(-np.square((fine - centre) / width) / 2)
    size = place.spread * float(np.exp(rng.uniform(np.log(0.3), np.log(2.0))))
    sign = -1 if rng.random() < 0.7 else 1
    uneven = 1 + rng.uniform(0, 0.4) * _smooth(place, mm=rng.uniform(3, 12), rng=rng)
    return place.changed_by(place.weight * alike * sign * size * np.clip(uneven, 0.1, None))


def texture(place: Place, rng: np.random.Generator) -> Values:
    """Fine structure lost, or too much of it; what is left of the mean stays."""
    sigma = rng.uniform(1.5, 6) / np.array(place.spacing)
    fine = place.there - ndimage.gaussian_filter(place.there, sigma, truncate=3, mode="nearest")
    gain = -rng.uniform(0.6, 1) if rng.random() < 0.7 else rng.uniform(0.5, 1.5)
    noise = place.noise * rng.standard_normal(place.weight.shape, np.float32)
    return place.changed_by(place.weight * gain * (fine - (noise if gain < 0 else 0)))


def warp(place: Place, rng: np.random.Generator) -> Values:
    """Pushed outwards from a centre, or drawn into it, by up to 12 mm."""
    shape, mm = place.weight.shape, np.array(place.spacing)
    centre = np.array(ndimage.center_of_mass(place.weight + 1e-6))
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float64)
    away = (at - centre[:, None, None, None]) * mm[:, None, None, None]
    distance = np.sqrt(np.square(away).sum(axis=0))
    radius = np.cbrt(3 / (4 * np.pi) * float(place.weight.sum()) * float(np.prod(mm)))
    push = rng.uniform(0.25, 0.75) * min(radius, 16.0) * (1 if rng.random() < 0.5 else -1)
    bump = push * distance / max(radius, 1e-3) * np.exp(0.5 - 0.5 * (distance / max(radius, 1e-3)) ** 2)
    moved = at - away / np.maximum(distance, 1e-3) * bump / mm[:, None, None, None]
    values: Values = ndimage.map_coordinates(place.there, moved, order=1, mode="nearest")
    far = np.clip(2.2 - distance / max(radius, 1e-3), 0, 1)  # the box ends where nothing has moved
    return place.changed_by(far * (values - place.there))


TASKS: dict[str, Callable[[Place, np.random.Generator], Values]] = {
    one.__name__: one for one in (foreign, elsewhere, shift, tissue, cluster, texture, warp)
}


def _cut(place: Place, source: Values, *, reach: float, rng: np.random.Generator) -> Values:
    """A patch of the size of the box whose place differs by up to `reach` mm along each axis."""
    cut = []
    for one, mm, n in zip(place.box, place.spacing, source.shape, strict=True):
        steps = int(reach / mm)
        start = int(np.clip(one.start + rng.integers(-steps, steps + 1), 0, n - (one.stop - one.start)))
        cut.append(slice(start, start + one.stop - one.start))
    return source[tuple(cut)]


def _blended(place: Place, patch: Values, rng: np.random.Generator) -> Values:
    """The patch over what is there, with a random share, at times with the mean and spread of what is there."""
    weight, total = place.weight, max(float(place.weight.sum()), 1e-6)
    if rng.random() < 0.5:
        here, new = (float((weight * one).sum() / total) for one in (place.there, patch))
        spreads = [np.sqrt((weight * (one - m) ** 2).sum() / total) for one, m in ((place.there, here), (patch, new))]
        patch = (patch - new) * np.float32(min(spreads[0] / max(spreads[1], 1e-3 * place.spread), 2)) + np.float32(here)
    return place.changed_by(rng.uniform(0.3, 1) * weight * (patch - place.there))


def _smooth(place: Place, *, mm: float, rng: np.random.Generator) -> Values:
    """Smooth noise of unit spread over the box."""
    noise = rng.standard_normal(place.weight.shape, np.float32)
    smooth = ndimage.gaussian_filter(noise, mm / np.array(place.spacing), truncate=3, mode="reflect")
    scaled: Values = smooth / max(float(smooth.std()), 1e-6)
    return scaled
