"""Voxelwise statistics of healthy scans: running sums that a scan can leave again, and mean and spread from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

PRIOR_STRENGTH = 8.0  # how many scans the prior counts for
FLOOR = 0.3  # a voxel's spread is at least this share of the typical one
_LEAST = 1e-12  # variance, of scans that are all the same: z stays a number
_REACH = 4.0  # of a Gaussian, in its σ
SMOOTH_MM = 3.0  # variances of neighbours are pooled at this σ: n is small, and spread is smooth


@dataclass(frozen=True, eq=False)
class Normal:
    """Voxelwise normal statistics of healthy scans.

    Attributes:
        mean: float32 `(C, X, Y, Z)`.
        sd: float32 `(C, X, Y, Z)`, positive, shrunk and floored; includes the error of the mean.
    """

    mean: NDArray[np.float32] = field(repr=False)
    sd: NDArray[np.float32] = field(repr=False)

    def z(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(values − mean) / sd, `(C, X, Y, Z)`."""
        standard: NDArray[np.float32] = (values - self.mean) / self.sd
        return standard

    def interval(self, width: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean minus and plus this many SD, each `(C, X, Y, Z)`."""
        reach = np.float32(width) * self.sd
        return self.mean - reach, self.mean + reach

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As a map's `fit` gives it."""
        return {"mean": self.mean, "sd": self.sd}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Normal:
        """What `to_arrays` gave."""
        return cls(arrays["mean"], arrays["sd"])


@dataclass(eq=False)
class Moments:
    """Running sums over masked arrays, from which one of them can be left out again.

    Attributes:
        count: float32 of any shape, scans with this element in their mask.
        total: float64, sum of values.
        square: float64, sum of squared values.
        n: scans added.
    """

    count: NDArray[np.float32] = field(repr=False)
    total: NDArray[np.float64] = field(repr=False)
    square: NDArray[np.float64] = field(repr=False)
    n: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Moments:
        """Sums over nothing."""
        return cls(np.zeros(shape, np.float32), np.zeros(shape), np.zeros(shape))

    def add(self, values: NDArray[Any], mask: NDArray[np.bool_], *, sign: int = 1) -> None:
        """Add (or with sign −1 take away) an array where its mask, which broadcasts to its shape, is True.

        A NaN is a value that a scan does not have: it does not count.
        """
        counted = mask & ~np.isnan(values)
        kept = np.where(counted, values, 0).astype(np.float64)
        self.count += sign * counted
        self.total += sign * kept
        self.square += sign * kept**2
        self.n += sign

    def without(self, values: NDArray[Any], mask: NDArray[np.bool_]) -> Moments:
        """The sums as if this array had not been added."""
        rest = Moments(self.count.copy(), self.total.copy(), self.square.copy(), self.n)
        rest.add(values, mask, sign=-1)
        return rest

    def normal(self, *, spacing: tuple[float, float, float], prior: Normal | None = None) -> Normal:
        """Mean and spread of volumes `(C, X, Y, Z)` or `(X, Y, Z)` with little noise though n is small.

        Variances are pooled over neighbours (Gaussian σ of `SMOOTH_MM`), shrunk towards a prior and floored:
        σ² ← (n σ² + k σ₀²) / (n + k) and σ ≥ FLOOR·σ̄, k = `PRIOR_STRENGTH`. Without a prior σ₀ is the typical spread
        σ̄ of the channel. With one (the training scans' own statistics) σ₀ is its pattern at the level of these scans,
        and the mean is shrunk towards its mean likewise; where no voxel was seen twice, the spread is the prior's. The
        factor √(1 + 1/n) is the error of the mean (prediction interval of a normal).

        Args:
            spacing: voxel size, mm.
            prior: of the same shape; counts for k scans.
        """
        n = np.maximum(self.count, 1)
        mean = self.total / n
        variance = np.maximum(self.square - self.total**2 / n, 0) / np.maximum(self.count - 1, 1)
        variance = _pooled(variance, np.maximum(self.count - 1, 0), spacing=spacing)
        twice = self.count >= 2
        typical = np.maximum(_by_channel(variance, twice), _LEAST)
        target = typical
        if prior is not None:
            target = prior.sd.astype(np.float64) ** 2 * (typical / _by_channel(prior.sd**2, twice))
            mean = (self.count * mean + PRIOR_STRENGTH * prior.mean) / (self.count + PRIOR_STRENGTH)
            if not twice.any():  # of one scan nothing is known of the spread, of none nothing at all
                return Normal(mean.astype(np.float32), prior.sd)
        variance = (self.count * variance + PRIOR_STRENGTH * target) / (self.count + PRIOR_STRENGTH)
        known = self.count + (PRIOR_STRENGTH if prior is not None else 0)
        sd = np.sqrt(np.maximum(variance, FLOOR**2 * typical) * (1 + 1 / np.maximum(known, 1)))
        return Normal(mean.astype(np.float32), sd.astype(np.float32))


def _by_channel(values: NDArray[np.floating], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each channel over the voxels that were seen, 1 where none was: `(C, 1, 1, 1)` or `(1, 1, 1)`."""
    channels = [one.reshape(-1, *one.shape[-3:]) for one in (values, seen)]
    means = [float(one[there].mean()) if there.any() else 1.0 for one, there in zip(*channels, strict=True)]
    return np.array(means).reshape(*values.shape[:-3], 1, 1, 1)


def _pooled(
    variance: NDArray[np.float64], weight: NDArray[np.float32], *, spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Variances averaged with their neighbours of the same channel, weighted by their degrees of freedom.

    0 beyond the reach of any voxel with weight: only the box around these is computed.
    """
    sigma = [SMOOTH_MM / mm for mm in spacing]
    pooled = np.zeros(variance.shape)
    near = ndimage.find_objects(weight.any(axis=tuple(range(weight.ndim - 3))).astype(np.int8))
    if not near:
        return pooled
    reach = [int(_REACH * one) + 1 for one in sigma]
    x, y, z = (slice(max(0, side.start - more), side.stop + more) for side, more in zip(near[0], reach, strict=True))
    by_axis = [0.0] * (variance.ndim - 3) + sigma
    both = weight[..., x, y, z].astype(np.float64), (variance * weight)[..., x, y, z]
    of_weights, sums = (ndimage.gaussian_filter(one, by_axis, truncate=_REACH) for one in both)
    pooled[..., x, y, z] = sums / np.maximum(of_weights, 1e-6)
    return pooled
