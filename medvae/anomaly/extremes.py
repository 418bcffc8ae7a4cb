"""The upper end of one map on healthy scans: its regions and quantiles, and the thresholds that they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

KEPT = 50  # regions per scan
NEIGHBOURS = np.ones((3, 3, 3), bool)  # 26: voxels that share a face, an edge or a corner
RATES = (0.001, 0.002, 0.005, 0.01, 0.05)  # of healthy voxels, for which thresholds are given
FORMING = 0.005  # share of healthy voxels above the level that regions are formed at
TAIL = np.array([*np.geomspace(0.5, 1e-4, 48), 0.0])  # shares of voxels that lie above the kept quantiles
_TOP = 0.05  # share of a scan's voxels that are kept until the level is known; a scan with more above it is far out


@dataclass(frozen=True, eq=False)
class UpperEnd:
    """The upper end of one map on one scan.

    Attributes:
        shape: of the grid.
        index: flat indices of the highest foreground voxels, the share `_TOP` of them, int32.
        values: of these voxels, float32.
        quantiles: the values that `TAIL` of the foreground voxels lie above, float32 `(len(TAIL),)`, rising.
    """

    shape: tuple[int, ...]
    index: NDArray[np.int32] = field(repr=False)
    values: NDArray[np.float32] = field(repr=False)
    quantiles: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of_map(cls, values: NDArray[np.float32], foreground: NDArray[np.bool_]) -> Self:
        """Of a map `(X, Y, Z)` in its foreground."""
        inside = values[foreground]
        count = max(1, int(np.ceil(_TOP * inside.size)))
        highest = np.argpartition(inside, -count)[-count:]
        index = np.flatnonzero(foreground)[highest].astype(np.int32)
        quantiles = np.quantile(inside, 1 - TAIL).astype(np.float32)
        return cls(values.shape, index, inside[highest].astype(np.float32), quantiles)

    def masses(self, level: float) -> NDArray[np.float32]:
        """Of the `KEPT` regions above a level with the largest mass, falling, in values times voxels; else 0."""
        values = np.full(self.shape, -np.inf, np.float32)
        values.flat[self.index] = self.values
        found = np.sort(region_masses(values, regions_above(values, level), level=level))[::-1][:KEPT]
        masses = np.zeros(KEPT, np.float32)
        masses[: found.size] = found
        return masses


@dataclass(frozen=True, eq=False)
class Extremes:
    """The upper end of one map on n healthy scans, each mapped against the others.

    Attributes:
        masses: of each scan those of its largest regions above `level`, falling, in the map's unit · mL, float32
            `(n, KEPT)`; 0 where there are fewer.
        quantiles: of each scan the values that `TAIL` of its foreground voxels lie above, float32 `(n, len(TAIL))`.
    """

    masses: NDArray[np.float32] = field(repr=False)
    quantiles: NDArray[np.float32] = field(repr=False)

    @classmethod
    def empty(cls) -> Self:
        """Of no scan."""
        return cls(np.zeros((0, KEPT), np.float32), np.zeros((0, TAIL.size), np.float32))

    @classmethod
    def of_scans(cls, scans: Sequence[UpperEnd], *, scale: float, voxel_ml: float) -> Self:
        """Of scans whose maps are to be divided by `scale`, on a grid whose voxels have `voxel_ml`."""
        if not scans:
            return cls.empty()
        quantiles = np.stack([one.quantiles for one in scans])
        level = _exceeded_by(FORMING, quantiles)
        masses = np.stack([one.masses(level) for one in scans])
        return cls((masses * (voxel_ml / scale)).astype(np.float32), (quantiles / scale).astype(np.float32))

    @property
    def level(self) -> float:
        """The value that the share `FORMING` of healthy voxels exceed: regions are formed above it."""
        return self.voxel_threshold(FORMING)

    @property
    def maxima(self) -> NDArray[np.float32]:
        """The mass of the largest region of each scan, `(n,)`."""
        return self.masses[:, 0]

    def mass_threshold(self, rate: float) -> float:
        """The mass above which healthy scans have at most `rate` regions each.

        The (k + 1)-th largest of all, k = ⌊rate (n + 1)⌋ − 1 (Vovk et al. 2005), but no less than 0 and no more
        than rate n. With n + 1 < 2 / rate it is the largest healthy mass. Infinite without healthy scans.
        """
        kept = np.sort(self.masses.ravel())[::-1]
        if not kept.size:
            return float("inf")
        n = len(self.masses)
        k = max(0, min(_floor(rate * (n + 1)) - 1, _floor(rate * n)))
        return float(kept[min(k, kept.size - 1)])

    def voxel_threshold(self, rate: float) -> float:
        """The value that at most the share `rate` of healthy foreground voxels exceed, each scan weighing the same.

        Between two kept quantiles of a scan the share falls linearly. Infinite without healthy scans.
        """
        return _exceeded_by(rate, self.quantiles) if len(self.quantiles) else float("inf")

    def p_value(self, mass: float) -> float:
        """Conformal p of a region: (1 + #{healthy scans whose largest region has at least this mass}) / (n + 1)."""
        return float((1 + (self.maxima >= mass).sum()) / (len(self.maxima) + 1))


def regions_above(values: NDArray[np.float32], level: float) -> NDArray[np.int32]:
    """The connected regions (26 neighbours) of values above a level, numbered from 1, 0 elsewhere."""
    labels: NDArray[np.int32] = ndimage.label(values > level, NEIGHBOURS)[0]
    return labels


def region_masses(values: NDArray[np.float32], regions: NDArray[np.int32], *, level: float) -> NDArray[np.float32]:
    """Σ (value − level) over the voxels of each region, `(regions,)` (Bullmore et al., IEEE Trans. Med. Imag. 1999)."""
    inside = regions > 0
    count = int(regions.max(initial=0))
    masses = np.bincount(regions[inside], weights=values[inside] - np.float32(level), minlength=count + 1)
    return masses[1:].astype(np.float32)


def _exceeded_by(rate: float, quantiles: NDArray[np.float32]) -> float:
    """`Extremes.voxel_threshold` of the kept quantiles of at least one scan."""
    levels = np.unique(quantiles)
    above = np.mean([np.interp(levels, rising, TAIL, left=1.0, right=0.0) for rising in quantiles], axis=0)
    return float(levels[np.argmax(above <= rate)])


def _floor(value: float) -> int:
    """0.1 · 30 is 3."""
    return int(value + 1e-9)
