"""Thresholds of healthy scans: what they promise holds on those scans; regions and their masses."""

from __future__ import annotations

from typing import Any

import linear_model
import numpy as np
import pytest
from scipy import ndimage

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.calibrate import Statistics
from medvae.anomaly.configured import configured
from medvae.anomaly.extremes import (
    FORMING,
    KEPT,
    NEIGHBOURS,
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


def of(maps: list[np.ndarray[Any, Any]], *, scale: float = 1.0) -> Extremes:
    inside = np.ones((16, 16, 16), bool)
    return Extremes.of_scans([UpperEnd.of_map(one, inside) for one in maps], scale=scale, voxel_ml=0.5)


def masses(values: np.ndarray[Any, Any], level: float) -> list[float]:
    """Of the regions above a level, voxels of 0.5 mL, by a plain loop."""
    labels, count = ndimage.label(values > level, NEIGHBOURS)
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
        assert extremes.level == extremes.voxel_threshold(FORMING)
        for scan, largest in zip(linear_model.healthy(), extremes.maxima, strict=True):
            inference = infer(model, scan)
            maps = ScanMaps(inference, statistics.methods, arrays=statistics.without(inference))
            values = maps[name].values / np.float32(reference.maps[name].scale)
            inside = np.where(inference.foreground, values, -np.inf)
            found = region_masses(inside, regions_above(inside, extremes.level), level=extremes.level)
            expected = found.max(initial=0) * model.preparation.grid.voxel_volume / 1000
            assert largest == pytest.approx(expected, rel=1e-3, abs=1e-5)
