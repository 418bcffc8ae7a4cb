"""Where a near-copy begins: limits measured on copies of training scans, and on their distance to other people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.synthesis.compared import Compared
    from medvae.synthesis.nearest import Nearest

    Array = NDArray[np.float64]

COPY_QUANTILE = 0.05  # share of scans of different people that are nearer to each other than the distance limit
RATE = 0.01  # of scans of new people that have a lower ratio than a limit by registration, or of one block


@dataclass(frozen=True)
class KnownCopy:
    """A copy of a training scan.

    Attributes:
        own: its distance to that scan over the distance to the nearest other subject.
        others: what it is nearest to among the scans of other subjects.
    """

    own: float
    others: Compared


@dataclass(frozen=True)
class Region:
    """The part of an image that copies one training scan.

    Attributes:
        id: of the training scan that most blocks copy; None where no block is a copy.
        share: of all blocks.
    """

    id: str | None
    share: float


@dataclass(frozen=True, eq=False)
class Limits:
    """What near-copies stay below, or above for the share; NaN where unknown.

    Attributes:
        distance: to the nearest scan.
        ratio: of the distances to the nearest and the second nearest scan.
        registered: of both after registration.
        blocks: of both in each block, `(B,)`.
        share: of the blocks that copy one scan: copies have more.
    """

    distance: float
    ratio: float
    registered: float
    blocks: Array = field(repr=False)
    share: float

    @classmethod
    def fit(cls, known: Sequence[KnownCopy]) -> Limits:
        """From copies of the training scans."""
        distance, ratio = image_limits(known)
        registered = ratio_limit(_ratios([one.others.registered for one in known if one.others.registered is not None]))
        among = [_ratios(one.others.blocks) for one in known if one.others.blocks]
        blocks = ratio_limit(np.array(among)) if among else np.zeros(0)
        without = cls(distance, ratio, float(registered), blocks, float("nan"))
        shares = [without.region(one.others.blocks).share for one in known]
        one_block = 1 / max(1, len(blocks))
        return cls(distance, ratio, float(registered), blocks, max([one_block, *shares]))

    def region(self, blocks: Sequence[Nearest]) -> Region:
        """The part of an image that copies one training scan, from the nearest scan of each block."""
        below = zip(blocks, self.blocks, strict=True) if len(blocks) == len(self.blocks) else ()
        votes = Counter(one.id for one, limit in below if one.ratio < limit)
        if not votes:
            return Region(None, 0.0)
        most, count = max(votes.items(), key=lambda pair: (pair[1], pair[0]))
        return Region(most, count / len(blocks))

    def found_by(self, one: Compared) -> tuple[str, ...]:
        """The comparisons that take an image for a near-copy: "image", "registered", "region"."""
        near, registered = one.near, one.registered
        said = {
            # also where there is no one else to compare with
            "image": near is not None and near.distance < self.distance and not near.ratio >= self.ratio,
            "registered": registered is not None and registered.ratio < self.registered,
            "region": self.region(one.blocks).share > self.share,
        }
        return tuple(name for name, flagged in said.items() if flagged)


def image_limits(known: Sequence[KnownCopy]) -> tuple[float, float]:
    """Limits of the distance and of the ratio of nearest to second nearest; NaN where there is only one subject.

    Distance: the 5% quantile of the copies' distances to scans of other subjects. Ratio: in the middle between the
    ratios of scans of other people (5% quantile) and those of the copies themselves (95% quantile).
    """
    near = [one.others.near for one in known if one.others.near is not None]
    if not near:
        return float("nan"), float("nan")
    ratios = [one.ratio for one in near if np.isfinite(one.ratio)] or [1.0]
    own = np.quantile([one.own for one in known if np.isfinite(one.own)], 1 - COPY_QUANTILE)
    middle = (np.quantile(ratios, COPY_QUANTILE) + own) / 2
    return float(np.quantile([one.distance for one in near], COPY_QUANTILE)), float(middle)


def ratio_limit(ratios: Array) -> Array:
    """What ratios of new people fall below at `RATE`, from those of n people, `(n, ...)` -> `(...)`; NaN where n is 0.

    1 − ratio is the relative distance between two neighbouring order statistics, nearly exponential (Rényi, 1953). Over
    the mean of n others it then has the F distribution with 2 and 2n degrees of freedom, which gives a wide margin to
    few people.
    """
    gaps = 1 - ratios
    count = np.isfinite(gaps).sum(axis=0)
    mean = np.nansum(gaps, axis=0) / np.where(count > 0, count, np.nan)
    limit: Array = 1 - mean * stats.f.isf(RATE, 2, 2 * np.maximum(count, 1))
    return limit


def _ratios(found: Sequence[Nearest]) -> Array:
    return np.array([one.ratio for one in found], np.float64)
