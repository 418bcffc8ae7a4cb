"""How well a map finds lesions: pooled voxel AP, mean per-scan AP, AUROC and AP of scans, and intervals over subjects.

Voxels of one scan, and scans of one subject, are not independent: only subjects are resampled. Two methods are compared
on the same draws. With few subjects a percentile interval is too narrow (five subjects have 126 different draws): say
how many there were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import average_precision_score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
BINS = 2048  # thresholds that the draws share; the bootstrap is exact where there are no more lesion voxels than that
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number on all subjects, and the percentile interval of its bootstrap over subjects.

    Attributes:
        value: on all subjects.
        low: 2.5% of the draws lie below; NaN where there is no interval, as of one subject.
        high: 2.5% of the draws lie above; NaN where there is no interval.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> list[float | None]:
        """Value, low, high; None where it is not defined."""
        return [float(one) if math.isfinite(one) else None for one in (self.value, self.low, self.high)]

    def __str__(self) -> str:
        return f"{self.value:.3f}" + ("" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]")


@dataclass(frozen=True, eq=False)
class ScanVoxels:
    """The foreground voxels of one scan: which of them are lesion, and what the maps say.

    Attributes:
        subject: who was scanned.
        truth: bool `(N,)`, True in a lesion.
        maps: by name, float32 `(N,)`, higher = less normal.
    """

    subject: str
    truth: NDArray[np.bool_] = field(repr=False)
    maps: Mapping[str, NDArray[np.float32]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One map against others, voxel by voxel, on the same scans and the same draws.

    Attributes:
        prevalence: share of lesion voxels: the AP of a map without information.
        subjects: how many there are.
        ap: pooled voxel AP by map.
        per_scan: mean AP of the scans with a lesion, by map.
        gain: AP of the map in question minus that of each other map.
    """

    prevalence: float
    subjects: int
    ap: Mapping[str, Interval]
    per_scan: Mapping[str, Interval]
    gain: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class Draws:
    """Subjects drawn with replacement.

    Attributes:
        subjects: whom to draw from.
        times: int `(R, S)`, how often each subject is in each draw.
    """

    subjects: tuple[str, ...]
    times: NDArray[np.int64] = field(repr=False)

    @classmethod
    def from_subjects(cls, subjects: Iterable[str], *, count: int = DRAWS, seed: int = 0) -> Draws:
        """`count` draws of as many subjects as there are different ones in `subjects`."""
        names = tuple(sorted(set(subjects)))
        return cls(names, _times(len(names), count=count, seed=seed))

    def weights(self, subjects: Sequence[str]) -> NDArray[np.int64]:
        """How often each scan is in each draw, given whose scans they are: `(R, len(subjects))`.

        All 0 where all are of one subject: every draw would be the same, and the interval would have no width.
        """
        at = [self.subjects.index(subject) for subject in subjects]
        return self.times[:, at] * (len(set(at)) > 1)


def compare(scans: Sequence[ScanVoxels], of: str, *, count: int = DRAWS, seed: int = 0) -> Comparison:
    """The map `of` against all others of the scans.

    Args:
        scans: all with the same maps; at least one with a lesion.
        of: name of the map in question.
        count: draws of the bootstrap.
        seed: of the draws.
    """
    draws = Draws.from_subjects((scan.subject for scan in scans), count=count, seed=seed)
    names = list(scans[0].maps)
    ap = {name: pooled_ap(scans, name) for name in names}
    drawn = {name: pooled_ap_draws(scans, name, draws=draws, value=ap[name]) for name in names}
    lesion_scans = [scan for scan in scans if scan.truth.any()]
    each = {name: np.array([average_precision(s.truth, s.maps[name]) for s in lesion_scans]) for name in names}
    weights = draws.weights([scan.subject for scan in lesion_scans])
    return Comparison(
        prevalence=prevalence(scans),
        subjects=len(draws.subjects),
        ap={name: interval(ap[name], drawn[name]) for name in names},
        per_scan={name: interval(float(each[name].mean()), _weighted_mean(each[name], weights)) for name in names},
        gain={name: interval(ap[of] - ap[name], drawn[of] - drawn[name]) for name in names if name != of},
    )


def prevalence(scans: Sequence[ScanVoxels]) -> float:
    """Share of lesion voxels among all foreground voxels."""
    return sum(int(scan.truth.sum()) for scan in scans) / sum(scan.truth.size for scan in scans)


def average_precision(truth: NDArray[np.bool_], values: NDArray[np.float32]) -> float:
    """Step-wise average precision, equal values taken together: Σ (Rₖ − Rₖ₋₁) Pₖ. NaN where nothing is True."""
    return float(average_precision_score(truth, values)) if truth.any() else float("nan")


def pooled_ap(scans: Sequence[ScanVoxels], name: str) -> float:
    """AP of all foreground voxels of all scans together: a map has to be on one scale over scans."""
    return average_precision(
        np.concatenate([scan.truth for scan in scans]), np.concatenate([scan.maps[name] for scan in scans])
    )


def pooled_ap_draws(
    scans: Sequence[ScanVoxels], name: str, *, draws: Draws, value: float, bins: int = BINS
) -> NDArray[np.float64]:
    """`pooled_ap` in each draw, `(R,)`; NaN in a draw without a lesion.

    AP only steps where a lesion voxel is passed. So the lesion voxels' own values are thresholds enough: voxels are
    counted between them once per scan, and a draw adds counts up instead of sorting voxels. Where there are more
    different values than `bins`, quantiles of them stand for all. Fewer steps give a lower AP: all draws are raised by
    what the AP of all scans, each taken once, has lost to `value`.

    Args:
        scans: all with this map.
        name: of the map.
        draws: of their subjects.
        value: `pooled_ap` of the scans.
        bins: thresholds that the draws share at most.
    """
    lesion_values = np.concatenate([scan.maps[name][scan.truth] for scan in scans])
    edges = np.unique(lesion_values)
    if edges.size > bins:
        edges = np.unique(np.quantile(lesion_values, np.linspace(0, 1, bins), method="inverted_cdf"))
    hits = np.stack([_between(edges, scan.maps[name][scan.truth]) for scan in scans])
    misses = np.stack([_between(edges, scan.maps[name][~scan.truth]) for scan in scans])
    weights = draws.weights([scan.subject for scan in scans]).astype(np.float64)
    once = np.ones((1, len(scans)))
    lost = value - _ap_of_counts(once @ hits, once @ misses)
    return np.minimum(_ap_of_counts(weights @ hits, weights @ misses) + lost, 1)


def scan_auroc(
    scores: ArrayLike, diseased: ArrayLike, *, subjects: Sequence[str], count: int = DRAWS, seed: int = 0
) -> Interval:
    """How often a diseased scan has a higher score than a healthy one, ties counted half (Mann-Whitney).

    Args:
        scores: one number per scan.
        diseased: True where the scan has a lesion; both kinds are needed.
        subjects: whose scans they are.
        count: draws of the bootstrap.
        seed: of the draws.
    """
    values, ill = np.asarray(scores, np.float64), np.asarray(diseased, bool)
    wins = np.sign(values[ill][:, None] - values[~ill]) / 2 + 0.5
    weights = Draws.from_subjects(subjects, count=count, seed=seed).weights(subjects).astype(np.float64)
    with np.errstate(invalid="ignore"):  # a draw may have one kind only
        drawn = ((weights[:, ill] @ wins) * weights[:, ~ill]).sum(1)
        drawn = drawn / (weights[:, ill].sum(1) * weights[:, ~ill].sum(1))
    return interval(float(wins.mean()), drawn)


def scan_ap(
    scores: ArrayLike, diseased: ArrayLike, *, subjects: Sequence[str], count: int = DRAWS, seed: int = 0
) -> Interval:
    """Average precision of the scans' scores; with the pooled voxel AP the two scores of the MOOD challenge.

    Without information it is the share of diseased scans (Zimmerer et al., IEEE Trans. Med. Imaging 2022).

    Args:
        scores: one number per scan.
        diseased: True where the scan has a lesion; at least one has.
        subjects: whose scans they are.
        count: draws of the bootstrap.
        seed: of the draws.
    """
    rows = zip(subjects, np.asarray(diseased, bool), np.asarray(scores, np.float32), strict=True)
    scans = [ScanVoxels(subject, np.array([ill]), {"score": np.array([score])}) for subject, ill, score in rows]
    draws = Draws.from_subjects(subjects, count=count, seed=seed)
    value = pooled_ap(scans, "score")
    return interval(value, pooled_ap_draws(scans, "score", draws=draws, value=value))


def paired_ratio(ours: ArrayLike, theirs: ArrayLike, *, count: int = DRAWS, seed: int = 0) -> Interval:
    """Geometric mean of ours / theirs, both one positive number per subject, in the same order.

    One subject weighs as much as another, and ours / theirs is the inverse of theirs / ours.
    """
    logs = np.log(np.asarray(ours, np.float64) / np.asarray(theirs, np.float64))
    mean = _mean(logs, count=count, seed=seed)
    return Interval(*(float(np.exp(end)) for end in (mean.value, mean.low, mean.high)))


def paired_difference(ours: ArrayLike, theirs: ArrayLike, *, count: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of ours − theirs, both one number per subject, in the same order."""
    return _mean(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), count=count, seed=seed)


def interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """A value with the middle 95% of its draws; draws where it is not defined are left out."""
    known = drawn[np.isfinite(drawn)]
    if not known.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, float(low), float(high))


def _mean(values: NDArray[np.float64], *, count: int, seed: int) -> Interval:
    times = _times(values.size, count=count, seed=seed) * (values.size > 1)  # as in `Draws.weights`
    return interval(float(values.mean()), _weighted_mean(values, times))


def _times(subjects: int, *, count: int, seed: int) -> NDArray[np.int64]:
    """How often each of `subjects` is in each of `count` draws of as many, `(R, S)`."""
    times: NDArray[np.int64] = np.random.default_rng(seed).multinomial(
        subjects, np.full(subjects, 1 / subjects), size=count
    )
    return times


def _weighted_mean(values: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a draw may have none of these scans
        mean: NDArray[np.float64] = (weights @ values) / weights.sum(1)
    return mean


def _between(edges: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many values lie in each `[edge, next edge)`; those below the first edge come after the last lesion voxel."""
    at = np.searchsorted(edges, values, side="right") - 1
    return np.bincount(at[at >= 0], minlength=edges.size).astype(np.float64)


def _ap_of_counts(hits: NDArray[np.float64], misses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Step-wise AP of lesion and healthy voxels counted by bin, `(R, K)` in rising order -> `(R,)`."""
    hits, misses = hits[:, ::-1], misses[:, ::-1]
    found, all_above = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.divide(found, all_above, out=np.zeros_like(found), where=all_above > 0)
        ap: NDArray[np.float64] = (hits * precision).sum(axis=1) / found[:, -1]
    return ap
