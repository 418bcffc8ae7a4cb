"""Thresholds of healthy scans: what they promise holds on those scans; peaks are local maxima."""

from __future__ import annotations

from typing import Any

import linear_model
import numpy as np
import pytest
from scipy import ndimage

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.calibrate import Statistics
from medvae.anomaly.configured import configured
from medvae.anomaly.extremes import KEPT, NEIGHBOURS, RATES, TAIL, Extremes, highest_peaks, tail_quantiles
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of


def noise(count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return [ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 0.7).astype(np.float32) for _ in range(count)]


def of(maps: list[np.ndarray[Any, Any]], *, scale: float = 1.0) -> Extremes:
    inside = np.ones((16, 16, 16), bool)
    return Extremes.of_scans([(highest_peaks(one, inside), tail_quantiles(one[inside])) for one in maps], scale=scale)


def regions(values: np.ndarray[Any, Any], threshold: float) -> int:
    return int(ndimage.label(values > threshold, NEIGHBOURS)[1])


@pytest.mark.parametrize(("count", "rate"), [(3, 0.1), (9, 0.1), (19, 0.1), (40, 0.1), (20, 0.5), (20, 2.0)])
def test_healthy_scans_have_no_more_regions_than_promised(count: int, rate: float) -> None:
    maps = noise(count)
    threshold = of(maps).peak_threshold(rate)
    found = sum(regions(one, threshold) for one in maps)
    assert found <= rate * count
    if rate * (count + 1) >= 2:
        assert found > 0, "and the threshold is no higher than it has to be"


def test_few_scans_give_the_largest_peak() -> None:
    maps = noise(5)
    assert of(maps).peak_threshold(0.1) == max(one.max() for one in maps)
    assert Extremes.empty().peak_threshold(0.1) == float("inf")


def test_new_scans_have_about_as_many_as_promised() -> None:
    maps = noise(400)
    threshold = of(maps[:200]).peak_threshold(0.5)
    assert 0.25 < sum(regions(one, threshold) for one in maps[200:]) / 200 < 0.65


@pytest.mark.parametrize("rate", RATES)
def test_voxels_above_a_threshold_are_as_many_as_said(rate: float) -> None:
    maps = noise(30)
    threshold = of(maps).voxel_threshold(rate)
    assert np.mean([(one > threshold).mean() for one in maps]) == pytest.approx(rate, rel=0.1 + 2e-4 / rate)
    assert of(maps, scale=2.0).voxel_threshold(rate) == pytest.approx(threshold / 2, rel=1e-5)


def test_peaks_are_separate_maxima_of_the_foreground() -> None:
    values = np.zeros((9, 9, 9), np.float32)
    values[2, 2, 2:4] = 5  # one plateau
    values[6, 6, 6] = 4
    values[6, 6, 7] = 3  # on its slope
    values[0, 0, 0] = 9  # outside
    foreground = values >= 0
    foreground[0] = False
    assert highest_peaks(values, foreground)[:2].tolist() == [5, 4]
    assert highest_peaks(values, foreground).shape == (KEPT,)
    assert (highest_peaks(-np.ones_like(values), values > 4)[2:] == -np.inf).all()


def test_p_counts_healthy_scans_that_reach_a_peak() -> None:
    made = of(noise(9))
    highest = float(made.maxima.max())
    assert made.p_value(highest + 1) == pytest.approx(0.1)
    assert made.p_value(highest) == pytest.approx(0.2)
    assert made.p_value(-1.0) == 1.0


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
        extremes, threshold, found = (
            reference.maps[name].extremes,
            reference.maps[name].extremes.peak_threshold(0.25),
            0,
        )
        assert extremes.quantiles.shape == (8, TAIL.size)
        for scan, highest in zip(linear_model.healthy(), extremes.maxima, strict=True):
            inference = infer(model, scan)
            maps = ScanMaps(inference, statistics.methods, arrays=statistics.without(inference))
            values = maps[name].values / np.float32(reference.maps[name].scale)
            assert values[inference.foreground].max() == pytest.approx(highest, rel=1e-4)
            found += regions(np.where(inference.foreground, values, -np.inf), threshold * (1 + 1e-5))
        assert found <= 0.25 * 8, "two regions in eight healthy scans"
