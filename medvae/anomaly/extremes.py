"""The upper end of one map on healthy scans: peaks and quantiles of its voxels, and the thresholds that they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

KEPT = 50  # peaks per scan
NEIGHBOURS = np.ones((3, 3, 3), bool)  # 26: voxels that share a face, an edge or a corner
RATES = (0.001, 0.002, 0.005, 0.01, 0.05)  # of healthy voxels, for which thresholds are given
TAIL = np.array([*np.geomspace(0.5, 1e-4, 48), 0.0])  # shares of voxels that lie above the kept quantiles


@dataclass(frozen=True, eq=False)
class Extremes:
    """The upper end of one map on n healthy scans, each mapped against the others.

    Attributes:
        peaks: of each scan its highest local maxima, falling, float32 `(n, KEPT)`; −inf where there are fewer.
        quantiles: of each scan the values that `TAIL` of its foreground voxels lie above, float32 `(n, len(TAIL))`.
    """

    peaks: NDArray[np.float32] = field(repr=False)
    quantiles: NDArray[np.float32] = field(repr=False)

    @classmethod
    def empty(cls) -> Self:
        """Of no scan."""
        return cls(np.zeros((0, KEPT), np.float32), np.zeros((0, TAIL.size), np.float32))

    @classmethod
    def of_scans(cls, scans: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], *, scale: float) -> Self:
        """Of scans whose `highest_peaks` and `tail_quantiles` are given, all divided by `scale`."""
        if not scans:
            return cls.empty()
        peaks, quantiles = (np.stack(parts) for parts in zip(*scans, strict=True))
        return cls((peaks / scale).astype(np.float32), (quantiles / scale).astype(np.float32))

    @property
    def maxima(self) -> NDArray[np.float32]:
        """The highest voxel of each scan, `(n,)`."""
        return self.peaks[:, 0]

    def peak_threshold(self, rate: float) -> float:
        """The value above which healthy scans have at most `rate` candidates each.

        A connected region above t holds a local maximum above t, so that there are no more regions than such maxima.
        t is the (k + 1)-th highest of all, k = ⌊rate (n + 1)⌋ − 1 (Vovk et al. 2005), but no less than 0 and no more
        than rate n. With n + 1 < 2 / rate it is the largest healthy peak. Infinite without healthy scans.
        """
        kept = np.sort(self.peaks[np.isfinite(self.peaks)])[::-1]
        if not kept.size:
            return float("inf")
        n = len(self.peaks)
        k = max(0, min(_floor(rate * (n + 1)) - 1, _floor(rate * n)))
        return float(kept[min(k, kept.size - 1)])

    def voxel_threshold(self, rate: float) -> float:
        """The value that at most the share `rate` of healthy foreground voxels exceed, each scan weighing the same.

        Between two kept quantiles of a scan the share falls linearly. Infinite without healthy scans.
        """
        if not len(self.quantiles):
            return float("inf")
        levels = np.unique(self.quantiles)
        above = np.mean([np.interp(levels, rising, TAIL, left=1.0, right=0.0) for rising in self.quantiles], axis=0)
        return float(levels[np.argmax(above <= rate)])

    def p_value(self, peak: float) -> float:
        """Conformal p of a candidate: (1 + #{healthy scans whose highest voxel is ≥ peak}) / (n + 1)."""
        return float((1 + (self.maxima >= peak).sum()) / (len(self.maxima) + 1))


def _floor(value: float) -> int:
    """0.1 · 30 is 3."""
    return int(value + 1e-9)


def highest_peaks(values: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The `KEPT` highest local maxima of a map `(X, Y, Z)` in the foreground, falling; −inf where there are fewer.

    A local maximum is a voxel that none of its 26 neighbours exceeds; neighbours of one value count once.
    """
    inside = np.where(foreground, values, np.float32(-np.inf))
    tops = foreground & (inside == ndimage.maximum_filter(inside, footprint=NEIGHBOURS, mode="nearest"))
    labels, count = ndimage.label(tops, NEIGHBOURS)
    heights = np.sort(ndimage.maximum(values, labels, np.arange(1, count + 1)))[::-1][:KEPT]
    peaks = np.full(KEPT, -np.inf, np.float32)
    peaks[: heights.size] = heights
    return peaks


def tail_quantiles(inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that the shares `TAIL` of the voxels `(N,)` lie above, float32 `(len(TAIL),)`, rising."""
    found: NDArray[np.float32] = np.quantile(inside, 1 - TAIL).astype(np.float32)
    return found
