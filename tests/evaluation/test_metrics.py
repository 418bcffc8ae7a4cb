"""Metrics against hand-computed values and scikit-learn; the bootstrap against literal resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medvae.evaluation import metrics
from medvae.evaluation.lesions import MEASURES, mean_measures
from medvae.evaluation.metrics import Draws, ScanVoxels

if TYPE_CHECKING:
    from numpy.typing import NDArray


def voxels(subject: str, truth: list[int], values: list[float]) -> ScanVoxels:
    return ScanVoxels(subject, np.array(truth, bool), {"m": np.array(values, np.float32)})


def made_scans(
    *, subjects: int = 5, scans: int = 2, voxels: int = 800, levels: int | None = None, seed: int = 0
) -> list[ScanVoxels]:
    """Scans of two maps: `good` sees the lesion, `poor` a little of it; with `levels` values are tied."""
    rng = np.random.default_rng(seed)
    made = []
    for subject in range(subjects):
        for _ in range(scans):
            truth = rng.random(voxels) < rng.uniform(0.02, 0.2)
            maps = {name: rng.normal(size=voxels) + gain * truth for name, gain in (("good", 2.0), ("poor", 0.5))}
            if levels is not None:
                maps = {name: np.round(values * levels) / levels for name, values in maps.items()}
            made.append(ScanVoxels(f"s{subject}", truth, {n: v.astype(np.float32) for n, v in maps.items()}))
    return made


def taken(scans: list[ScanVoxels], draws: Draws, row: int) -> list[ScanVoxels]:
    """The scans of one draw, each as often as its subject was drawn."""
    return [s for s in scans for _ in range(draws.times[row, draws.subjects.index(s.subject)])]


def test_average_precision_by_hand() -> None:
    # ranks: hit, miss, hit, miss -> 1/2 * 1/1 + 1/2 * 2/3
    assert metrics.average_precision(np.array([1, 0, 1, 0], bool), np.float32([4, 3, 2, 1])) == pytest.approx(5 / 6)


def test_tied_values_are_taken_together() -> None:
    # one hit among four equal values: precision 1/4 whatever their order in memory
    for place in range(4):
        truth = np.arange(4) == place
        assert metrics.average_precision(truth, np.ones(4, np.float32)) == pytest.approx(0.25)


def test_a_map_that_knows_nothing_has_the_prevalence() -> None:
    scans = made_scans()
    blank = [ScanVoxels(s.subject, s.truth, {"m": np.zeros(s.truth.size, np.float32)}) for s in scans]
    assert metrics.pooled_ap(blank, "m") == pytest.approx(metrics.prevalence(blank))


def test_pooling_asks_for_one_scale_over_scans() -> None:
    """Two scans, each ranked perfectly, one on a tenfold scale: its healthy voxels come before the other's lesion."""
    scans = [voxels("a", [1, 0], [2, 1]), voxels("b", [1, 0], [20, 10])]
    compared = metrics.compare(scans, "m", count=200)
    assert compared.per_scan["m"].value == pytest.approx(1.0)
    assert compared.ap["m"].value == pytest.approx((1 + 2 / 3) / 2)


def test_healthy_scans_count_in_the_pool_and_not_in_the_mean_over_scans() -> None:
    scans = [voxels("a", [1, 0], [2, 1]), voxels("b", [0, 0], [3, 3])]
    compared = metrics.compare(scans, "m", count=200)
    assert compared.prevalence == pytest.approx(1 / 4)
    assert compared.ap["m"].value == pytest.approx(1 / 3)
    assert compared.per_scan["m"].value == pytest.approx(1.0)
    assert np.isfinite(compared.ap["m"].low)  # draws of b alone have no lesion and are left out


@pytest.mark.parametrize("levels", [None, 3])
def test_draws_equal_literal_resampling(levels: int | None) -> None:
    scans = made_scans(levels=levels)
    draws = Draws.from_subjects((s.subject for s in scans), count=20, seed=1)
    fast = metrics.pooled_ap_draws(scans, "good", draws=draws, value=metrics.pooled_ap(scans, "good"))
    for row, value in enumerate(fast):
        drawn = taken(scans, draws, row)
        truth = np.concatenate([s.truth for s in drawn])
        assert value == pytest.approx(average_precision_score(truth, np.concatenate([s.maps["good"] for s in drawn])))


def test_few_thresholds_are_near_enough() -> None:
    scans = made_scans(voxels=20_000)
    draws, value = Draws.from_subjects((s.subject for s in scans), count=10), metrics.pooled_ap(scans, "good")
    exact = metrics.pooled_ap_draws(scans, "good", draws=draws, value=value, bins=10**9)
    few = metrics.pooled_ap_draws(scans, "good", draws=draws, value=value, bins=50)
    assert few == pytest.approx(exact, abs=1e-3)


def test_with_few_thresholds_the_interval_is_of_the_value() -> None:
    """The same scan of several people: every draw has the AP of all, whatever the number of thresholds."""
    (scan,) = made_scans(subjects=1, scans=1, voxels=4000)
    scans = [ScanVoxels(name, scan.truth, scan.maps) for name in "abc"]
    draws, value = Draws.from_subjects("abc", count=10), metrics.pooled_ap(scans, "good")
    few = metrics.pooled_ap_draws(scans, "good", draws=draws, value=value, bins=10)
    assert few == pytest.approx(np.full(10, value), abs=1e-9)
    assert metrics.pooled_ap_draws(scans, "good", draws=draws, value=1.0, bins=10).max() == 1


def test_one_subject_has_no_interval() -> None:
    """Also where only one of several has a lesion, for what is measured on lesions alone."""
    one = [*made_scans(subjects=1)]
    well = [ScanVoxels(f"w{i}", np.zeros(9, bool), {"good": np.zeros(9, np.float32)}) for i in range(3)]
    ill = [ScanVoxels("s0", scan.truth, {"good": scan.maps["good"]}) for scan in one]
    alone, among = metrics.compare(ill, "good", count=50), metrics.compare([*ill, *well], "good", count=50)
    for found in (alone.ap["good"], alone.per_scan["good"], among.per_scan["good"]):
        assert np.isfinite(found.value)
        assert np.isnan([found.low, found.high]).all()
    assert np.isnan(metrics.paired_difference([1.0], [0.5]).low)
    assert np.isnan(metrics.scan_auroc([1, 2], [False, True], subjects=["a", "a"]).low)
    rows = [{"dice": dice, **dict.fromkeys(MEASURES[1:], 0.0)} for dice in (0.5, np.nan, np.nan)]
    dice = mean_measures(rows, subjects=["a", "b", "c"])["dice"]
    assert (dice.value, str(dice)) == (0.5, "0.500"), "it is of one subject"


def test_draws_are_of_subjects_not_of_scans() -> None:
    scans = made_scans(subjects=3, scans=4)
    draws = Draws.from_subjects((s.subject for s in scans), count=50)
    weights = draws.weights([s.subject for s in scans])
    assert (draws.times.sum(axis=1) == 3).all()
    assert all((weights[:, i : i + 4] == weights[:, i : i + 1]).all() for i in (0, 4, 8))


def test_the_gain_is_paired() -> None:
    """Subjects differ far more than the maps do: unpaired intervals overlap, the paired one excludes 0."""
    rng = np.random.default_rng(0)
    scans = []
    for i in range(12):
        truth = rng.random(4000) < 0.02 + 0.03 * i
        noise = rng.normal(size=4000)
        maps = {"better": noise + 1.2 * truth, "worse": noise + truth}
        scans.append(ScanVoxels(f"s{i}", truth, {name: v.astype(np.float32) for name, v in maps.items()}))
    compared = metrics.compare(scans, "better", count=500)
    assert compared.ap["better"].low < compared.ap["worse"].high
    assert compared.gain["worse"].low > 0
    assert compared.gain["worse"].value == pytest.approx(compared.ap["better"].value - compared.ap["worse"].value)


def test_the_same_seed_gives_the_same_interval() -> None:
    scans = made_scans()
    first, again, other = (metrics.compare(scans, "good", count=200, seed=seed).ap["good"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_scikit_learns(scans: list[tuple[int, bool]]) -> None:
    scores, ill = [s for s, _ in scans], [d for _, d in scans]
    if len(set(ill)) < 2:
        return
    found = metrics.scan_auroc(scores, ill, subjects=[str(i) for i in range(len(scans))], count=20)
    assert found.value == pytest.approx(roc_auc_score(ill, scores))


def test_auroc_draws_equal_literal_resampling() -> None:
    rng = np.random.default_rng(0)
    ill = np.arange(12) % 2 == 0
    scores = rng.normal(size=12) + ill
    subjects = [f"s{i:02d}" for i in range(12)]
    draws = Draws.from_subjects(subjects, count=300, seed=3)
    literal = []
    for times in draws.times:
        rows = np.repeat(np.arange(12), times)
        if len(set(ill[rows])) == 2:
            literal.append(roc_auc_score(ill[rows], scores[rows]))
    expected = metrics.interval(0.0, np.array(literal))
    found = metrics.scan_auroc(scores, ill, subjects=subjects, count=300, seed=3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_ap_of_scans_and_its_draws_equal_literal_resampling() -> None:
    rng = np.random.default_rng(1)
    ill = np.arange(12) % 3 == 0
    scores = (rng.normal(size=12) + ill).astype(np.float32)
    subjects = [f"s{i // 2}" for i in range(12)]
    rows = {name: [i for i in range(12) if subjects[i] == name] for name in subjects}
    draws = Draws.from_subjects(subjects, count=300, seed=3)
    literal = []
    for times in draws.times:
        drawn = [i for name, count in zip(draws.subjects, times, strict=True) for i in rows[name] * count]
        if ill[drawn].any():
            literal.append(average_precision_score(ill[drawn], scores[drawn]))
    expected = metrics.interval(0.0, np.array(literal))
    found = metrics.scan_ap(scores, ill, subjects=subjects, count=300, seed=3)
    assert found.value == pytest.approx(average_precision_score(ill, scores))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_paired_ratio_by_hand_and_its_inverse() -> None:
    ours, theirs = np.array([1.0, 2.0, 8.0]), np.array([2.0, 2.0, 4.0])
    ratio, inverse = metrics.paired_ratio(ours, theirs), metrics.paired_ratio(theirs, ours)
    assert ratio.value == pytest.approx((0.5 * 1 * 2) ** (1 / 3))
    assert (inverse.low, inverse.high) == pytest.approx((1 / ratio.high, 1 / ratio.low))
    assert ratio.low >= 0.5
    assert ratio.high <= 2.0


def test_a_constant_ratio_has_no_spread() -> None:
    ratio = metrics.paired_ratio([1, 10, 100], [2, 20, 200])
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_paired_difference_covers_the_mean() -> None:
    """Of 200 samples of 30 numbers, the 95% interval holds the true mean in about 95%."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        values: NDArray[np.float64] = rng.normal(1.0, 2.0, size=30)
        found = metrics.paired_difference(values, np.zeros(30), count=400, seed=seed)
        hits += found.low <= 1.0 <= found.high
    assert 178 <= hits <= 199


def test_nothing_to_find_is_not_a_number() -> None:
    assert np.isnan(metrics.average_precision(np.zeros(3, bool), np.arange(3, dtype=np.float32)))
    assert np.isnan(metrics.interval(1.0, np.array([np.nan])).low)


def test_an_interval_reads_as_text() -> None:
    assert str(metrics.Interval(0.12345, 0.1, 0.2)) == "0.123 [0.100, 0.200]"
