"""Intervals over trainings and test subjects: exact differences, both kinds of spread, balanced accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from medvae.evaluation.nested import nested_difference, nested_mean
from medvae.evaluation.tasks import Measure

PEOPLE = [str(i) for i in range(30)]
PLAIN = np.zeros(30, np.intp)


def trainings(spread: float, subjects: float, *, seed: int = 0, count: int = 10) -> list[Measure]:
    rng = np.random.default_rng(seed)
    people = subjects * rng.normal(size=30)
    return [Measure(spread * rng.normal() + people, PLAIN) for _ in range(count)]


def width(spread: float, subjects: float) -> float:
    one = nested_mean(trainings(spread, subjects), subjects=PEOPLE)
    assert one.low <= one.value <= one.high
    return one.high - one.low


def test_the_interval_has_the_spread_of_both() -> None:
    assert width(0, 1) == pytest.approx(4 / np.sqrt(30), rel=0.4)
    assert width(1, 0) == pytest.approx(4 / np.sqrt(10), rel=0.4)
    assert width(1, 1) > max(width(0, 1), width(1, 0))
    assert width(0, 0) == 0


def test_what_both_arms_share_cancels() -> None:
    theirs = trainings(1, 1)
    ours = [Measure(one.values + 0.1, PLAIN) for one in theirs]
    gain = nested_difference(ours, theirs, subjects=PEOPLE)
    assert [gain.value, gain.low, gain.high] == pytest.approx([0.1] * 3)


def test_scans_of_one_subject_go_together_and_what_is_unknown_is_left_out() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    one = nested_mean([Measure(values, np.zeros(5, np.intp))], subjects=["a", "a", "b", "b", "a"])
    assert one.value == 0.5
    assert (one.low, one.high) == (0, 1), "two subjects: both may be one of them"


def test_strata_are_averaged_first() -> None:
    strata = np.array([0] * 9 + [1])
    measure = Measure(np.array([1.0] * 9 + [0.0]), strata)
    assert nested_mean([measure], subjects=PEOPLE[:10]).value == 0.5, "balanced, not 0.9"
