"""The upper end of one map on healthy scans: its regions and quantiles, and the thresholds that they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medvae.prepare.pieces import CORNERS, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

KEPT = 50  # regions per scan
RATES = (0.001, 0.002, 0.005, 0.01, 0.05)  # of healthy voxels, for which thresholds are given
FORMING = 0.005  # share of the given scans' voxels above the level that regions are formed at
TAIL = np.array([*np.geomspace(0.5, 1e-4, 48), 0.0])  # shares of voxels that lie above the kept quantiles
_ROUNDING = 1e-9  # of shares and counts: 0.1 · 30 is 3
_TOP = 0.05  # share of a scan's voxels that are kept until the level is known; a scan with more above it is extreme


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
        """The upper end of a map `(X, Y, Z)` in its foreground."""
        inside = values[foreground]
        count = max(1, int(np.ceil(_TOP * inside.size)))
        highest = np.argpartition(inside, -count)[-count:]
        index = np.flatnonzero(foreground)[highest].astype(np.int32)
        quantiles = np.quantile(inside, 1 - TAIL).astype(np.float32)
        return cls(values.shape, index, inside[highest].astype(np.float32), quantiles)

    def masses(self, level: float) -> NDArray[np.float32]:
        """The `KEPT` largest masses of regions above a level, falling, in values times voxels; else 0."""
        values = np.full(self.shape, -np.inf, np.float32)
        values.flat[self.index] = self.values
        found = np.sort(region_masses(values, regions_above(values, level), level=level))[::-1][:KEPT]
        masses = np.zeros(KEPT, np.float32)
        masses[: found.size] = found
        return masses


@dataclass(frozen=True, eq=False)
class Extremes:
    """The upper end of one map on n healthy scans, each mapped against the others.

    Thresholds are for a scan of somebody else. Healthy people differ, so that more of a new person's voxels lie above
    the quantile of some given scans than of these scans' own. How many more is estimated by leaving out subjects: the
    thresholds are set so that subjects left out in turn exceed those of the others at the rate that was asked for.

    Attributes:
        masses: of each scan those of its largest regions above `level`, falling, in the map's unit · mL, float32
            `(n, KEPT)`; 0 where there are fewer.
        quantiles: of each scan the values that `TAIL` of its foreground voxels lie above, float32 `(n, len(TAIL))`.
        subjects: number of each scan's subject, int32 `(n,)`; the scans of one are left out together.
    """

    masses: NDArray[np.float32] = field(repr=False)
    quantiles: NDArray[np.float32] = field(repr=False)
    subjects: NDArray[np.int32] = field(repr=False)

    @classmethod
    def empty(cls) -> Self:
        """The extremes of no scan."""
        return cls(np.zeros((0, KEPT), np.float32), np.zeros((0, TAIL.size), np.float32), np.zeros(0, np.int32))

    @classmethod
    def of_scans(cls, scans: Sequence[UpperEnd], *, subjects: NDArray[np.int32], scale: float, voxel_ml: float) -> Self:
        """The extremes of scans whose maps are to be divided by `scale`, on a grid whose voxels have `voxel_ml`."""
        if not scans:
            return cls.empty()
        quantiles = np.stack([one.quantiles for one in scans])
        masses = np.stack([one.masses(_level(quantiles)) for one in scans])
        return cls((masses * (voxel_ml / scale)).astype(np.float32), (quantiles / scale).astype(np.float32), subjects)

    @property
    def level(self) -> float:
        """The value that the share `FORMING` of the given scans' voxels exceed: regions are formed above it."""
        return _level(self.quantiles) if len(self.quantiles) else float("inf")

    @property
    def maxima(self) -> NDArray[np.float32]:
        """The mass of the largest region of each scan, `(n,)`."""
        return self.masses[:, 0]

    def mass_threshold(self, rate: float) -> float:
        """The mass above which a new healthy scan has about `rate` regions.

        The (k + 1)-th largest of all, k the largest number at which the scans left out in turn have no more than
        rate (n + 1) regions altogether that exceed the (k + 1)-th largest of the other subjects, and no more than
        rate n. Where there is none it is the largest healthy mass. Infinite without healthy scans.
        """
        if not len(self.masses):
            return float("inf")
        return float(np.sort(self.masses, axis=None)[-1 - self._rank(self._beyond(rate), rate)])

    def left_out_regions(self, rate: float) -> float:
        """Regions per scan, left out in turn, above the mass that the others give: their number / (n + 1).

        That of `mass_threshold`, at the same rank. It is above `rate` where the scans are too few.
        """
        if not len(self.masses):
            return float("inf")
        beyond = self._beyond(rate)
        return float(beyond[self._rank(beyond, rate)] / (len(self.masses) + 1))

    def _rank(self, beyond: NDArray[np.int64], rate: float) -> int:
        """The largest k at which not too many regions lie beyond; 0 where there is none."""
        return max(0, int((beyond <= rate * (len(self.masses) + 1) + _ROUNDING).sum()) - 1)

    def _beyond(self, rate: float) -> NDArray[np.int64]:
        """Regions of scans left out in turn above the (k + 1)-th largest of the others, k = 0 ... ⌊rate n⌋, rising."""
        most = min(int(rate * len(self.masses) + _ROUNDING) + 1, self.masses.size)
        order = np.argsort(self.masses, axis=None)[::-1]
        falling, whose = self.masses.ravel()[order], self.subjects[order // KEPT]
        found = np.zeros(most, np.int64)
        for subject in np.unique(self.subjects):
            others = falling[whose != subject][:most]
            others = np.pad(others, (0, most - others.size))
            found += (self.masses[self.subjects == subject].ravel()[:, None] > others).sum(axis=0)
        return found

    def voxel_threshold(self, rate: float) -> float:
        """The value that about the share `rate` of a new healthy scan's foreground voxels exceeds, on average.

        The lowest at which `left_out_share` is no more than `rate`. Where there is none, with few scans, it is the
        largest healthy value. Infinite without healthy scans.
        """
        return float(self._left_out[0][self._place(rate)]) if len(self.quantiles) else float("inf")

    def left_out_share(self, rate: float) -> float:
        """The share of the voxels of scans left out in turn above the threshold that the others give them.

        That of `voxel_threshold`, at the same share of the given scans' voxels. It is above `rate` where the scans are
        too few, and 1 where all are of one subject.
        """
        return float(self._left_out[1][self._place(rate)]) if len(self.quantiles) else 1.0

    def _place(self, rate: float) -> int:
        """The index of the threshold among the levels."""
        low_enough = self._left_out[1] <= rate + _ROUNDING
        return int(np.argmax(low_enough)) if low_enough.any() else -1

    @cached_property
    def _left_out(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """−∞ and all kept quantiles, rising, and for each the share of left-out voxels above it, falling from 1.

        A level t is exceeded by some share of the voxels of all scans. Each subject is left out in turn; the level
        that the same share of the others' voxels exceeds is what they would set in place of t.
        """
        levels = np.append(np.float32(-np.inf), np.unique(self.quantiles))
        above = _above(levels, self.quantiles)
        shares = np.zeros(levels.size)
        for subject in np.unique(self.subjects):
            own = self.subjects == subject
            own_above = _above(levels, self.quantiles[own])
            others = (above - own_above) / max(1, (~own).sum())
            place = np.searchsorted(-others, -above / len(self.quantiles) - _ROUNDING)
            shares += own_above[np.minimum(place, levels.size - 1)]
        return levels, shares / len(self.quantiles)

    def p_value(self, mass: float) -> float:
        """Conformal p of a region: (1 + #{healthy scans whose largest region has at least this mass}) / (n + 1)."""
        return float((1 + (self.maxima >= mass).sum()) / (len(self.maxima) + 1))


def regions_above(values: NDArray[np.float32], level: float) -> NDArray[np.int32]:
    """The connected regions (26 neighbours) of values above a level, numbered from 1, 0 elsewhere."""
    return numbered(values > level, CORNERS)[0]


def region_masses(values: NDArray[np.float32], regions: NDArray[np.int32], *, level: float) -> NDArray[np.float32]:
    """Σ (value − level) over the voxels of each region, `(regions,)` (Bullmore et al., IEEE Trans. Med. Imag. 1999)."""
    inside = regions > 0
    count = int(regions.max(initial=0))
    masses = np.bincount(regions[inside], weights=values[inside] - np.float32(level), minlength=count + 1)
    return masses[1:].astype(np.float32)


def _level(quantiles: NDArray[np.float32]) -> float:
    """`Extremes.level` of the kept quantiles of at least one scan, each scan weighing the same."""
    levels = np.unique(quantiles)
    return float(levels[np.argmax(_above(levels, quantiles) / len(quantiles) <= FORMING)])


def _above(levels: NDArray[np.float32], quantiles: NDArray[np.float32]) -> NDArray[np.float64]:
    """The shares of the scans' voxels above rising levels, summed over scans; linear between two kept quantiles."""
    above = np.zeros(levels.size)
    for rising in quantiles:
        above += np.interp(levels, rising, TAIL, left=1.0, right=0.0)
    return above
