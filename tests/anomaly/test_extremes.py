"""Thresholds of healthy scans: what they promise holds on those scans; regions and their masses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import linear_model
import numpy as np
import pytest
from scipy import ndimage, stats

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.calibrate import Statistics, make_reference
from medvae.anomaly.configured import configured
from medvae.anomaly.extremes import (
    FORMING,
    KEPT,
    RATES,
    TAIL,
    Extremes,
    UpperEnd,
    region_masses,
    regions_above,
)
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of


def noise(count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return [ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 0.7).astype(np.float32) for _ in range(count)]


def subjects_of(factors: np.ndarray[Any, Any], *, scans: int = 1) -> Extremes:
    """Subjects whose voxels are |N(0, 1)| times a factor, 100,000 per scan; a region of each, of the factor's mass."""
    quantiles = factors[:, None] * stats.norm.isf(np.maximum(TAIL, 1e-5) / 2)
    masses = np.pad(factors[:, None], ((0, 0), (0, KEPT - 1)))
    numbers = np.arange(len(factors), dtype=np.int32)
    return Extremes(*(np.repeat(one, scans, axis=0) for one in (masses, quantiles, numbers)))


def above(extremes: Extremes, threshold: float) -> float:
    """The share of the given scans' voxels above a value."""
    return float(np.mean([np.interp(threshold, one, TAIL, left=1, right=0) for one in extremes.quantiles]))


def of(maps: list[np.ndarray[Any, Any]], *, scale: float = 1.0) -> Extremes:
    inside = np.ones((16, 16, 16), bool)
    subjects = np.arange(len(maps), dtype=np.int32)
    return Extremes.of_scans(
        [UpperEnd.of_map(one, inside) for one in maps], subjects=subjects, scale=scale, voxel_ml=0.5
    )


def masses(values: np.ndarray[Any, Any], level: float) -> list[float]:
    """Of the regions above a level, voxels of 0.5 mL, by a plain loop."""
    labels, count = ndimage.label(values > level, np.ones((3, 3, 3)))
    return [float((values[labels == k] - level).sum()) / 2 for k in range(1, count + 1)]


@pytest.mark.parametrize(("count", "rate"), [(3, 0.1), (9, 0.1), (19, 0.1), (40, 0.1), (20, 0.5), (20, 2.0)])
def test_healthy_scans_have_no_more_regions_than_promised(count: int, rate: float) -> None:
    maps = noise(count)
    made = of(maps)
    threshold = made.mass_threshold(rate)
    found = sum(mass > threshold * (1 + 1e-5) for one in maps for mass in masses(one, made.level))
    assert found <= rate * count
    if rate * (count + 1) >= 2:
        assert found > 0, "and the threshold is no higher than it has to be"


def test_few_scans_give_the_largest_region() -> None:
    maps = noise(5)
    made = of(maps)
    largest = max(mass for one in maps for mass in masses(one, made.level))
    assert made.mass_threshold(0.1) == pytest.approx(largest, rel=1e-4)
    assert Extremes.empty().mass_threshold(0.1) == float("inf")
    assert Extremes.empty().level == float("inf")


def test_new_scans_have_about_as_many_as_promised() -> None:
    maps = noise(400)
    made = of(maps[:200])
    threshold = made.mass_threshold(0.5)
    found = sum(mass > threshold for one in maps[200:] for mass in masses(one, made.level))
    assert 0.25 < found / 200 < 0.75


def test_new_subjects_have_as_many_voxels_above_as_promised() -> None:
    """Of ten subjects who differ, the quantile of their own voxels is exceeded by more of a new subject's."""
    rng = np.random.default_rng(0)
    new = np.exp(rng.normal(0, 0.25, 20_000))
    found = []
    for _ in range(400):
        made = subjects_of(np.exp(rng.normal(0, 0.25, 10)))
        assert 0.9 * FORMING < above(made, made.level) <= FORMING
        found.append([2 * stats.norm.sf(t / new).mean() for t in (made.level, made.voxel_threshold(FORMING))])
    pooled, left_out = np.mean(found, axis=0) / FORMING
    assert pooled > 1.25
    assert left_out == pytest.approx(1, abs=0.15)


def test_a_lower_rate_has_no_lower_threshold() -> None:
    made = subjects_of(np.exp(np.random.default_rng(1).normal(0, 0.4, 12)))
    rates = np.geomspace(1e-5, 0.4, 60)
    assert np.all(np.diff([made.voxel_threshold(rate) for rate in rates]) <= 0)
    assert np.all(np.diff([made.mass_threshold(rate) for rate in np.linspace(0.01, 3, 60)]) <= 0)


def test_too_few_scans_give_the_largest_value_and_say_what_they_keep() -> None:
    made = subjects_of(np.array([1.0, 1.0, 2.0]))
    largest = float(made.quantiles.max())
    odd = above(subjects_of(np.array([2.0])), float(made.quantiles[0].max()))  # of the third above the two others
    assert made.voxel_threshold(0.001) == pytest.approx(largest)
    assert made.left_out_share(0.001) == pytest.approx(odd / 3, rel=1e-3)
    assert made.left_out_share(0.05) <= 0.05
    assert made.mass_threshold(0.1) == 2
    assert made.left_out_regions(0.1) == pytest.approx(1 / 4)
    alone = subjects_of(np.array([1.0]), scans=4)
    assert alone.voxel_threshold(0.05) == pytest.approx(float(alone.quantiles.max())), "who has nobody beside him"
    assert alone.left_out_share(0.05) == 1
    assert alone.mass_threshold(0.5) == 1


def test_scans_of_a_subject_are_left_out_together() -> None:
    factors = np.exp(np.random.default_rng(2).normal(0, 0.3, 8))
    once, twice = subjects_of(factors), subjects_of(factors, scans=2)
    apart = replace(twice, subjects=np.arange(16, dtype=np.int32))
    for rate in RATES:
        assert twice.voxel_threshold(rate) == pytest.approx(once.voxel_threshold(rate))
    assert apart.voxel_threshold(0.005) < once.voxel_threshold(0.005)
    assert twice.mass_threshold(0.15) > apart.mass_threshold(0.15)


def test_a_scan_with_many_regions_makes_the_threshold_no_lower() -> None:
    """The scan with the three heaviest regions, left out, has all three above the others'."""
    masses = np.zeros((19, KEPT))
    masses[:, 0] = np.arange(1, 20)
    one = replace(subjects_of(np.ones(19)), masses=masses)
    odd = masses.copy()
    odd[18, :3] = (30, 29, 28)
    assert one.mass_threshold(0.1) == 18
    assert replace(one, masses=odd).mass_threshold(0.1) == 30
    assert replace(one, masses=odd).left_out_regions(0.1) == pytest.approx(3 / 20)


@pytest.mark.parametrize("rate", RATES)
def test_voxels_above_a_threshold_are_as_many_as_said(rate: float) -> None:
    maps = noise(30)
    threshold = of(maps).voxel_threshold(rate)
    assert np.mean([(one > threshold).mean() for one in maps]) == pytest.approx(rate, rel=0.1 + 2e-4 / rate)
    assert of(maps, scale=2.0).voxel_threshold(rate) == pytest.approx(threshold / 2, rel=1e-5)


def test_regions_touch_by_a_corner_and_their_mass_counts_from_the_level() -> None:
    values = np.zeros((9, 9, 9), np.float32)
    values[2, 2, 2], values[3, 3, 3] = 5, 4
    values[6, 6, 6] = 3
    regions = regions_above(values, 1.0)
    assert regions[2, 2, 2] == regions[3, 3, 3] != regions[6, 6, 6]
    assert sorted(region_masses(values, regions, level=1.0).tolist()) == [2, 7]


def test_voxels_outside_the_foreground_belong_to_no_region() -> None:
    values = np.ones((20, 20, 20), np.float32)
    values[2, 2, 2], values[17, 17, 17] = 5, 9
    foreground = np.ones(values.shape, bool)
    foreground[10:] = False
    end = UpperEnd.of_map(values, foreground)
    assert end.masses(2.0)[:2].tolist() == [3, 0]
    assert end.masses(2.0).shape == (KEPT,)


def test_p_counts_healthy_scans_that_reach_a_mass() -> None:
    made = of(noise(9))
    highest = float(made.maxima.max())
    assert made.p_value(highest + 1) == pytest.approx(0.1)
    assert made.p_value(highest) == pytest.approx(0.2)
    assert made.p_value(0.0) == 1.0


def test_a_reference_knows_which_scans_are_of_one_subject() -> None:
    scans = list(linear_model.healthy())
    scans[3] = replace(scans[3], subject=scans[0].subject)
    made = make_reference(linear_model.bare_model(), scans, calibrated=False, names=["atlas"])
    subjects = made.maps["atlas"].extremes.subjects
    assert subjects[3] == subjects[0]
    assert len({*subjects.tolist()}) == len(scans) - 1


def test_a_reference_holds_leave_one_out_extremes() -> None:
    """What `make_reference` keeps is what the maps of each scan against the others show."""
    model = linear_model.known_model(("atlas", "residual_z"))
    reference = reference_of(model)
    statistics = Statistics(configured(["atlas", "residual_z"], {}), model.preparation.grid.spacing, {})
    for names in statistics.passes():
        for scan in linear_model.healthy():
            statistics.add(infer(model, scan), names)
        statistics.fit(names)
    for name in ("atlas", "residual_z"):
        extremes = reference.maps[name].extremes
        assert extremes.quantiles.shape == (8, TAIL.size)
        assert above(extremes, extremes.level) == pytest.approx(FORMING, rel=0.1)
        for scan, largest in zip(linear_model.healthy(), extremes.maxima, strict=True):
            inference = infer(model, scan)
            maps = ScanMaps(inference, statistics.methods, arrays=statistics.without(inference))
            values = maps[name].values / np.float32(reference.maps[name].scale)
            inside = np.where(inference.foreground, values, -np.inf)
            found = region_masses(inside, regions_above(inside, extremes.level), level=extremes.level)
            expected = found.max(initial=0) * model.preparation.grid.voxel_volume / 1000
            assert largest == pytest.approx(expected, rel=1e-3, abs=1e-5)
