"""Where new lesions are put: near those of the training scans, in tissue, on values that lesions lie on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.lesions.implant import place_lesion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.lesion_codes import LesionCodes
    from medvae.lesions.implant import Lesion, Placed
    from medvae.scan import Geometry

_TRIES = 32  # places that are compared for one lesion
_INSIDE = 0.9  # share of a lesion that has to lie in the foreground
_BANDWIDTH = 0.5  # of Scott's rule, which is too wide where lesions cluster at several places
_LEAST_MM = 4.0  # standard deviation of the place of a lesion, at least
_LEVEL_WIDTH = 0.3  # width of the density of levels, in their standard deviations
_LEAST_WIDTH = 0.2  # of the spread of the tissue
_SPREAD_OF_P90 = 3.29  # the 5-95% range of a normal distribution, in standard deviations


@dataclass(frozen=True, eq=False)
class Host:
    """A scan that is given lesions.

    Attributes:
        image: float32 `(X, Y, Z)`, prepared.
        foreground: bool, the same shape.
        taken: bool, the same shape: lesions that it has, and the voxels beside them.
        median: of its tissue.
        spread: of its tissue, the 5-95% range over that of a unit normal distribution.
    """

    image: NDArray[np.float32] = field(repr=False)
    foreground: NDArray[np.bool_] = field(repr=False)
    taken: NDArray[np.bool_] = field(repr=False)
    median: float
    spread: float

    @classmethod
    def of(cls, image: NDArray[np.float32], foreground: NDArray[np.bool_], lesions: NDArray[np.bool_]) -> Host:
        """A scan with these lesions, all `(X, Y, Z)`."""
        p5, p50, p95 = (float(one) for one in np.percentile(image[foreground], (5, 50, 95)))
        return cls(image, foreground, _grown(lesions), p50, max((p95 - p5) / _SPREAD_OF_P90, 1e-6))

    def with_lesion(self, image: NDArray[np.float32], placed: Placed) -> Host:
        """The same scan with a further lesion."""
        taken = self.taken.copy()
        taken[placed.box] |= _grown(placed.mask)
        return replace(self, image=image, taken=taken)


@dataclass(frozen=True, eq=False)
class Places:
    """The density of places, and of the values below lesions.

    Where scans are aligned, a place is that of a training lesion, plus a normal deviation whose σ per axis is half of
    Scott's rule, σ·n^(−1/7); of a brain either side (the template is symmetric). Elsewhere, or where only masks are
    known, it is any voxel of the foreground. Of 32 such places one is chosen with a weight: the density of the mean
    value below training lesions, at that of the scan below this one.

    Attributes:
        codes: of the training lesions.
        grid: the model's.
        aligned: one voxel of the grid is one place in every scan.
    """

    codes: LesionCodes = field(repr=False)
    grid: Geometry
    aligned: bool

    def choose(self, lesion: Lesion, host: Host, generator: np.random.Generator) -> tuple[Placed, str | None] | None:
        """A place, and the source of the training lesion near it; None where none of those drawn will do."""
        found, weights, near = [], [], []
        for _ in range(_TRIES):
            row, place = self._draw(host, generator)
            placed = place_lesion(lesion, place, self.grid)
            weight = 0.0 if placed is None else self._weight(placed, host)
            if placed is not None and weight > 0:
                found.append(placed)
                weights.append(weight)
                near.append(None if row is None else self.codes.sources[row])
        if not found:
            return None
        chosen = int(generator.choice(len(found), p=np.array(weights) / sum(weights)))
        return found[chosen], near[chosen]

    def _draw(self, host: Host, generator: np.random.Generator) -> tuple[int | None, NDArray[np.float64]]:
        """A place in mm, and the training lesion that it is near."""
        rows = np.flatnonzero(np.isfinite(self.codes.places).all(axis=1)) if self.aligned else np.array([], int)
        if not len(rows):
            voxel = np.unravel_index(int(generator.choice(np.flatnonzero(host.foreground))), host.foreground.shape)
            return None, np.asarray(self.grid.to_world(voxel), np.float64)
        known = self.codes.places[rows]
        width = np.maximum(_BANDWIDTH * known.std(axis=0) * len(rows) ** (-1 / 7), _LEAST_MM)
        row = int(generator.choice(rows))
        place = self.codes.places[row] + width * generator.standard_normal(3)
        if generator.random() < 0.5:
            place[0] *= -1
        return row, place

    def _weight(self, placed: Placed, host: Host) -> float:
        """How plausible a place is: 0 outside of the tissue and on other lesions."""
        mask, inside = placed.mask, host.foreground[placed.box]
        if (mask & inside).sum() < _INSIDE * mask.sum() or (mask & host.taken[placed.box]).any():
            return 0.0
        return self._density_of(float(host.image[placed.box][mask & inside].mean()), host)

    def _density_of(self, level: float, host: Host) -> float:
        """Density of the values below training lesions; without them a normal one around the median of the tissue."""
        known = self.codes.levels[np.isfinite(self.codes.levels)]
        if not len(known):
            return float(np.exp(-0.5 * ((level - host.median) / host.spread) ** 2))
        width = max(_LEVEL_WIDTH * float(known.std()), _LEAST_WIDTH * host.spread)
        return float(np.exp(-0.5 * ((level - known) / width) ** 2).mean())


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and the voxels that touch it: lesions that touch would be one."""
    return np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3, 3))))
