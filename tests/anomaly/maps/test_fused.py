"""The fused maps beside a plain version: how rare each witness's value is in healthy scans."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import linear_model
import numpy as np
import pytest

from medvae.anomaly.anomaly_map import ScanMaps, anomaly_map
from medvae.anomaly.base_map import Healthy
from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.configured import configured
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import _fused, fused, fused_unaligned
from medvae.anomaly.options import kept_training, training_statistics
from medvae.anomaly.reference import reference_of
from medvae.statistics import Moments

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model

WITNESSES = fused.Map.USES


@cache
def model() -> Model:
    return linear_model.known_model(("fused",))


def raw(index: int, lesion: float = 0.0) -> dict[str, np.ndarray]:
    """The witnesses of a scan before their scale, in the foreground."""
    prepared = linear_model.scan(index, lesion=lesion)
    arrays = {name: one.arrays for name, one in reference_of(model()).maps.items()}
    maps = ScanMaps(infer(model(), prepared), configured(["fused"], {}), arrays=arrays)
    return {name: maps[name].values[prepared.mask[0]] for name in WITNESSES}


def left_out() -> dict[str, np.ndarray]:
    """The witnesses of the healthy scans in the foreground, each compared with the others alone."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in WITNESSES}
    scans = linear_model.healthy()
    for out in scans:
        others = make_reference(
            linear_model.bare_model(), [one for one in scans if one is not out], names=WITNESSES, calibrated=False
        )
        arrays = {name: one.arrays for name, one in others.maps.items()}
        maps = ScanMaps(infer(model(), out), configured(WITNESSES, {}), arrays=arrays)
        for name in WITNESSES:
            found[name].append(maps[name].values[out.mask[0]])
    return {name: np.concatenate(values) for name, values in found.items()}


def test_beside_the_plain_version() -> None:
    """The weighted sum of −ln of the share of healthy voxels, compared with the other scans, that reach a value."""
    counted, own, prepared = left_out(), raw(0), linear_model.scan(0)
    inside = prepared.mask[0]
    shares = {name: np.array([(counted[name] >= value).mean() for value in own[name]]) for name in WITNESSES}
    usual = np.all([share > 0.02 for share in shares.values()], axis=0)
    usual &= _fused.within(inside, spacing=prepared.grid.spacing)[inside]
    assert usual.mean() > 0.3
    surprise = {name: -np.log(share[usual]) for name, share in shares.items()}
    added = np.exp(sum(weight * surprise[name] for name, weight in fused.WEIGHTS.items()))
    expected = np.log((added + sum(np.exp(surprise[name]) for name in fused.ALONE)) / (1 + len(fused.ALONE)))
    found = anomaly_map("fused", infer(model(), prepared)).values[inside][usual]
    assert np.median(np.abs(found - expected)) < 0.1  # values are counted in bins
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_no_witness_speaks_against_another() -> None:
    assert min(fused.WEIGHTS.values()) > 0


def test_what_each_witness_adds_has_mean_one_over_healthy_scans() -> None:
    ends = np.arange(_fused._STEPS) * _fused._STEP + _fused._LOWEST
    for name, values in left_out().items():
        if name == "latent":
            continue  # this model's code has no place: one value per scan, and as many ties as voxels
        surprise = reference_of(model()).maps["fused"].arrays[name]
        assert np.interp(values, ends, surprise).mean() == pytest.approx(1, abs=0.25), name


def test_one_sure_witness_is_enough_and_nothing_overflows() -> None:
    quiet, sure = np.zeros(1, np.float32), np.full(1, 400, np.float32)
    assert _fused.soft_maximum([quiet, quiet, sure]) == pytest.approx(400 - np.log(3))
    assert _fused.soft_maximum([quiet, quiet]) == 0
    unaligned = fused_unaligned.Map(None).combine({"a": quiet, "b": sure}, infer(model(), linear_model.scan(0)))
    assert unaligned == pytest.approx(400 - np.log(2))


@pytest.mark.parametrize("name", fused.ALONE)
def test_a_witness_that_counts_alone_is_not_outvoted(name: str) -> None:
    surprises = {one: np.full(1, 9.0 * (one == name), np.float32) for one in WITNESSES}
    found = fused.Map(None).combine(surprises, infer(model(), linear_model.scan(0)))
    assert found > 9 - np.log(1 + len(fused.ALONE)) - 1e-4


def test_a_value_is_no_rarer_than_among_the_training_scans() -> None:
    """A few scans for calibration may hold none of a kind of people that the training scans hold."""

    def moments(values: np.ndarray) -> Healthy:
        counts = _fused._counts(values.astype(np.float32))
        sums = Moments.empty(counts.shape)
        sums.add(counts, np.ones((), bool))
        return Healthy({"asymmetry": sums}, spacing=(2, 2, 2), training=None)

    rng = np.random.default_rng(0)
    few, many = (moments(rng.normal(0, spread, 50_000)) for spread in (1, 2))
    narrow, wide = (fused.Map(None).fit(one) for one in (few, many))
    both = fused.Map(None).fit(replace(few, training=wide))
    np.testing.assert_array_equal(both["asymmetry"], np.minimum(narrow["asymmetry"], wide["asymmetry"]))
    assert np.interp(4, np.arange(1100) * 0.05 - 5, both["asymmetry"]) < 5 < -np.log(3.2e-5)


@pytest.mark.parametrize("name", ["fused", "fused_unaligned"])
def test_one_healthy_scan_is_compared_with_the_training_scans(name: str) -> None:
    """Left out, it leaves nothing to count: its map was 0, so was every threshold, and all of a brain was marked."""
    trained, (one,) = linear_model.known_model((name,)), linear_model.healthy(1, start=300)
    found = make_reference(trained, [one], calibrated=True, names=[name]).maps[name]
    values = anomaly_map(name, infer(trained, one)).values[one.mask[0]]
    assert found.limit > 0.3 * np.quantile(values, 0.999) > 0.01


def test_values_of_other_options_are_not_compared_with_those_of_the_training_scans() -> None:
    trained, new = linear_model.known_model(("fused",)), linear_model.healthy(4, start=300)
    detect = trained.settings.detect
    others = detect.model_copy(update={"options": {"contrast": {"scales_mm": [0]}}})
    for asked, same in ((detect, True), (others, False), (detect.model_copy(update={"draws": 2}), False)):
        methods = configured(["fused"], asked.options)
        known = training_statistics(kept_training(trained), methods, detect=asked, before=detect)
        assert ("fused" in known) == same
    made = make_reference(trained, new, calibrated=True, names=["fused"], detect=others)
    alone = make_reference(linear_model.bare_model(), new, calibrated=False, names=["fused"], detect=others)
    assert made.training["fused"] is not made.maps["fused"].arrays
    assert set(made.training) == set(reference_of(trained).training), "they are kept for the next calibration"
    assert set(alone.maps["fused"].arrays) == set(made.maps["fused"].arrays)


def test_the_rim_of_the_foreground_is_left_out() -> None:
    foreground = np.zeros((9, 9, 9), bool)
    foreground[2:8, 2:8, :] = True
    fine, coarse = (_fused.within(foreground, spacing=(mm, mm, mm)) for mm in (2.0, 3.0))
    assert fine.sum() == 4 * 4 * 9, "where the grid ends is no border"
    assert (coarse == foreground).all()
    prepared = linear_model.scan(0, lesion=3.0)
    values = anomaly_map("fused", infer(model(), prepared)).values
    deep = _fused.within(prepared.mask[0], spacing=prepared.grid.spacing)
    assert prepared.mask[0][~deep].any()
    assert (values[~deep] == 0).all()
    assert (values[deep] > 0).all()


def test_the_tail_goes_on_along_its_slope() -> None:
    """Of exponential values −ln P rises with slope 1, also beyond all that were counted."""
    values = -np.log((np.arange(200_000) + 0.5) / 200_000)
    surprise = _fused._surprise(_fused._counts(values.astype(np.float32)).astype(float))
    ends = np.arange(surprise.size) * 0.05 - 5
    assert (surprise[ends < 0] == 0).all()
    np.testing.assert_allclose(surprise[ends < 40], np.maximum(ends[ends < 40], 0), rtol=0.05, atol=0.05)
    assert (np.diff(surprise) >= 0).all()


def test_a_witness_that_is_silent_in_healthy_scans_speaks_of_a_lesion() -> None:
    """A detector that never errs on healthy scans would count for nothing."""
    counts = np.zeros(_fused._STEPS)
    silent = int(-_fused._LOWEST / _fused._STEP)
    counts[silent], counts[silent + 30] = 1e6, 50
    surprise = _fused._surprise(counts)
    assert surprise[silent] == 0
    assert set(surprise[silent + 1 :]) == {-np.log(1e-4)}


def test_a_lesion_that_each_witness_sees_a_little_is_seen_better() -> None:
    healthy, ill = raw(0), raw(0, lesion=3.0)
    assert all(ill[name].max() > healthy[name].max() for name in WITNESSES)
