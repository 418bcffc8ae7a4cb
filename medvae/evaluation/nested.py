"""Intervals over two things that were drawn: trainings, and the test subjects that each is measured on.

Both are resampled, trainings and subjects with replacement, the same subjects for all trainings of a draw (a nested
bootstrap; Efron and Tibshirani, 1993). An interval over test subjects alone would say nothing about another training.
With few trainings it is too narrow: three have ten different draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.evaluation.metrics import DRAWS, Draws, Interval, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.evaluation.tasks import Measure


def nested_mean(measures: Sequence[Measure], *, subjects: Sequence[str], count: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of a measure over trainings and test scans.

    Args:
        measures: one per training, of the same scans.
        subjects: whose scans they are, `(S,)`.
        count: draws of the bootstrap.
        seed: of the draws.
    """
    weights = Draws.from_subjects(subjects, count=count, seed=seed).weights(subjects)
    means = np.stack([_means(one, weights) for one in measures], axis=1)  # (R, D)
    value = float(np.mean([_means(one, np.ones((1, len(subjects)), np.int64))[0] for one in measures]))
    return interval(value, (means * _trainings(len(measures), count=count, seed=seed)).sum(axis=1))


def nested_difference(
    ours: Sequence[Measure], theirs: Sequence[Measure], *, subjects: Sequence[str], count: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean of ours − theirs over trainings and test scans; training number d of both is one pair.

    Args:
        ours: one per training.
        theirs: the same of another arm, in the same order.
        subjects: whose scans they are, `(S,)`.
        count: draws of the bootstrap.
        seed: of the draws.
    """
    weights = Draws.from_subjects(subjects, count=count, seed=seed).weights(subjects)
    pairs = list(zip(ours, theirs, strict=True))
    gains = np.stack([_means(a, weights) - _means(b, weights) for a, b in pairs], axis=1)
    once = np.ones((1, len(subjects)), np.int64)
    value = float(np.mean([_means(a, once)[0] - _means(b, once)[0] for a, b in pairs]))
    return interval(value, (gains * _trainings(len(pairs), count=count, seed=seed)).sum(axis=1))


def _means(measure: Measure, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the strata of the weighted mean in each, `(R, S)` -> `(R,)`; NaN where a draw lacks a stratum."""
    known = np.isfinite(measure.values)
    values = np.where(known, measure.values, 0)
    rows = []
    for stratum in np.unique(measure.strata):
        chosen = weights * (known & (measure.strata == stratum))
        with np.errstate(invalid="ignore"):
            rows.append((chosen @ values) / chosen.sum(axis=1))
    mean: NDArray[np.float64] = np.mean(rows, axis=0)
    return mean


def _trainings(number: int, *, count: int, seed: int) -> NDArray[np.float64]:
    """The share of each training in each draw, `(R, D)`."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    shares: NDArray[np.float64] = rng.multinomial(number, np.full(number, 1 / number), size=count) / number
    return shares
