"""Making a Reference: as a plain computation gives it; no scan is compared with itself; twice is once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest
from linear_model import healthy

from medvae import plugins
from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.calibrate import LIMIT, check_maps, make_reference, reference_from
from medvae.anomaly.configured import needs_alignment
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of, with_reference
from medvae.errors import SettingsError
from medvae.settings import DetectSettings, Settings
from medvae.statistics import Moments, Normal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.run.work import Progress

NAMES = plugins.names("maps")
SUMMED = ("asymmetry", "atlas", "contrast", "elbo_z", "latent", "matched_residual", "residual_z")


@cache
def model() -> Model:
    return linear_model.known_model(NAMES)


@cache
def calibrated() -> Reference:
    """From healthy scans that training has not seen."""
    return make_reference(model(), healthy(start=300), names=NAMES, calibrated=True)


def asked(**changes: Any) -> DetectSettings:
    return DetectSettings.model_validate({"draws": 4, "maps": ("residual_z", "residual"), **changes})


# ------------------------------------------------------- the same without running sums: everything anew for every scan


def normal(volumes: Sequence[NDArray[np.float32]], scans: Sequence[Prepared], prior: Normal | None = None) -> Normal:
    sums = Moments.empty((1, *linear_model.SHAPE))
    for volume, scan in zip(volumes, scans, strict=True):
        sums.add(volume, scan.mask)
    return sums.normal(spacing=model().preparation.grid.spacing, prior=prior)


def residual(scan: Prepared, image: Normal, *, winsor: float = 1.0) -> NDArray[np.float32]:
    """Of the scan whose values are clipped to what the training scans have."""
    reach = np.float32(winsor) * image.sd
    return infer(model(), scan).residual_within(image.mean - reach, image.mean + reach)


def mapped(scan: Prepared, image: Normal, residuals: Normal) -> NDArray[np.float32]:
    """`residual_z` before it is divided by its scale."""
    z, inside = np.abs(residuals.z(residual(scan, image)))[0], scan.mask[0]
    smooth = [smooth_inside(z, inside, spacing=scan.grid.spacing, mm=mm) for mm in (0, 3, 6)]
    return np.where(inside, np.mean(smooth, axis=0) - np.float32(np.sqrt(2 / np.pi)), np.float32(0))


def plain_maps(scans: Sequence[Prepared], *, known: Normal | None, prior: Normal | None) -> list[NDArray[np.float32]]:
    """`residual_z` of each scan against all others; `known` are image statistics of the training scans."""
    everyone = known or normal([scan.image for scan in scans], scans)
    found = []
    for out in scans:
        rest = [scan for scan in scans if scan is not out]
        image = known or normal([scan.image for scan in rest], rest)
        residuals = normal([residual(scan, everyone) for scan in rest], rest, prior)
        found.append(mapped(out, image, residuals)[out.mask[0]])
    return found


@pytest.mark.parametrize("kind", ["uncalibrated", "calibrated"])
def test_residual_z_is_that_of_a_plain_computation(kind: str) -> None:
    made, scans, known, prior = reference_of(model()), healthy(), None, None
    if kind == "calibrated":
        made, scans = calibrated(), healthy(start=300)
        known, prior = (Normal.from_arrays(made.training[name]) for name in ("atlas", "residual_z"))
    maps = plain_maps(scans, known=known, prior=prior)
    scale = np.sqrt(np.mean([np.mean(values**2) for values in maps]))
    one = made.maps["residual_z"]
    assert one.scale == pytest.approx(scale, rel=1e-5)
    scores = [np.sort(values)[-round(0.01 * values.size) :].mean() / scale for values in maps]
    np.testing.assert_allclose(one.scores, np.sort(scores), rtol=1e-5)
    assert one.limit == pytest.approx(np.mean([np.quantile(values, LIMIT) for values in maps]) / scale, rel=1e-5)
    image = known or normal([scan.image for scan in scans], scans)
    fitted = normal([residual(scan, image) for scan in scans], scans, prior)
    np.testing.assert_array_equal(one.arrays["mean"], fitted.mean)
    np.testing.assert_array_equal(one.arrays["sd"], fitted.sd)
    new = linear_model.scan(900, lesion=2)
    expected = mapped(new, image, fitted) / np.float32(one.scale)
    assert np.array_equal(anomaly_map("residual_z", infer(model(), new), made).values, expected)


def test_the_atlas_is_that_of_a_plain_computation() -> None:
    scans, one = healthy(), reference_of(model()).maps["atlas"]
    assert np.array_equal(one.arrays["mean"], normal([scan.image for scan in scans], scans).mean)
    scores = []
    for out in scans:
        rest = [scan for scan in scans if scan is not out]
        values = np.abs(normal([scan.image for scan in rest], rest).z(out.image))[out.mask]
        scores.append(np.sort(values)[-round(0.01 * values.size) :].mean())
    np.testing.assert_allclose(one.scores, np.sort(scores), rtol=1e-5)
    assert one.scale == 1.0


# ------------------------------------------------------------------------------------------------------ what it holds


def test_what_a_first_reference_holds() -> None:
    made, scans = reference_of(model()), healthy()
    assert (made.n, made.calibrated) == (8, False)
    assert made.scan_hashes == tuple(scan.source_hash for scan in scans)
    assert set(made.maps) == set(NAMES)
    kinds = {name: plugins.load("maps", name).Map for name in NAMES}
    assert set(made.training) == {name for name, kind in kinds.items() if kind.fit is not BaseMap.fit}
    assert {name for name, one in made.maps.items() if one.scale != 1} == {n for n in NAMES if kinds[n].STANDARDISED}
    for one in made.maps.values():
        assert one.scores.dtype == np.float32
        assert np.array_equal(one.scores, np.sort(one.scores))
        assert len(one.scores) == 8


@pytest.mark.parametrize("name", ["atlas", "residual_z"])
def test_scores_are_leave_one_out(name: str) -> None:
    """Against a reference that it sits in, a scan looks more normal than it is."""
    made = reference_of(model())
    inside = []
    for scan in healthy():
        found = anomaly_map(name, infer(model(), scan), made)
        inside.append(found.score(scan.mask[0], top=made.top))
    assert (made.maps[name].scores > np.sort(inside) * 1.02).all()


@pytest.mark.parametrize("more", [1, 4])
def test_all_scans_of_a_subject_are_left_out_together(more: int) -> None:
    """Beside other scans of the same person the maps of the first are those that it has alone: of a stranger."""
    scans = healthy(5, start=300)
    every = [*scans, *(replace(scans[0], id=f"again-{number}") for number in range(more))]
    alone, beside = (make_reference(model(), some, calibrated=True, names=SUMMED) for some in (scans, every))
    for name in SUMMED:
        expected, found = (made.maps[name].extremes.quantiles * made.maps[name].scale for made in (alone, beside))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(found[-1], expected[0], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("known", ["uncalibrated", "calibrated"])
def test_the_scale_makes_the_healthy_spread_one(known: str) -> None:
    made = calibrated() if known == "calibrated" else reference_of(model())
    squares = []
    for scan in healthy(12, start=500):
        values = anomaly_map("residual_z", infer(model(), scan), made).values[scan.mask[0]]
        squares.append(np.mean(values**2))
    assert np.sqrt(np.mean(squares)) == pytest.approx(1, abs=0.25)


def test_calibrating_keeps_the_atlas_and_starts_from_the_training_scans() -> None:
    before, after = reference_of(model()), calibrated()
    assert (after.n, after.calibrated) == (8, True)
    for name in ("atlas", "residual_z"):
        for key, values in before.maps[name].arrays.items():
            assert np.array_equal(after.training[name][key], values)
            assert np.array_equal(after.maps[name].arrays[key], values) == (name == "atlas")


def test_calibrating_twice_gives_the_same_reference() -> None:
    again = make_reference(with_reference(model(), calibrated()), healthy(start=300), names=NAMES, calibrated=True)
    assert again.hash == calibrated().hash


def test_inferences_that_are_there_already_give_the_same_reference() -> None:
    scans, chosen = healthy(start=300), model().settings.detect
    inferences = [infer(model(), scan, draws=chosen.draws) for scan in scans]
    again = reference_from(model(), inferences, names=NAMES, calibrated=True)
    assert again.hash == calibrated().hash
    fewer = reference_from(model(), inferences[1:], names=NAMES, calibrated=True)
    assert fewer.hash == make_reference(model(), scans[1:], names=NAMES, calibrated=True).hash


def test_the_healthy_get_even_p_values() -> None:
    """New healthy scans fall among the calibration scans; a lesion falls beyond them."""
    made = calibrated()

    def p(scan: Prepared) -> float:
        score = anomaly_map("residual_z", infer(model(), scan), made).score(scan.mask[0], top=made.top)
        value = made.p_value("residual_z", score)
        assert value is not None
        return value

    found = [p(scan) for scan in healthy(12, start=700)]
    assert 0.25 < np.mean(found) < 0.85
    assert p(linear_model.scan(900, lesion=4)) == pytest.approx(1 / 9)


def test_where_scans_are_not_aligned_maps_by_place_are_left_out() -> None:
    made = reference_of(linear_model.known_model(aligned=False))
    assert set(made.maps) == {name for name in NAMES if not needs_alignment(name)}
    kept = set(made.training)
    assert kept == {"contrast", "denoised_z", "deviance_z", "elbo_z", "fused_unaligned", "kl_z", "latent"}
    sums = [values for name in kept - {"fused_unaligned"} for values in made.training[name].values()]
    assert all(values.shape[-3:] == (1, 1, 1) for values in sums), "of all voxels or cells"


def test_a_map_brings_those_that_it_uses() -> None:
    assert set(make_reference(model(), healthy(3), names=("residual_z",), calibrated=True).maps) == {
        "residual_z",
        "atlas",
    }


def test_progress_counts_every_scan_of_every_pass() -> None:
    """Two passes for statistics where `residual_z` waits for `atlas`, one once that is known; then the comparison."""
    for calibrated_, passes in ((False, 3), (True, 2)):
        calls: list[Progress] = []
        make_reference(model(), healthy(3), names=("residual_z",), calibrated=calibrated_, on_progress=calls.append)
        assert [one.done for one in calls] == list(range(1, 3 * passes + 1))
        assert {one.total for one in calls} == {3 * passes}


def test_options_and_top_are_kept() -> None:
    chosen = asked(options={"residual": {"sign": "dark"}}, top=0.05, draws=2)
    made = make_reference(model(), healthy(3), names=("residual", "nll"), calibrated=True, detect=chosen)
    assert {name: one.options for name, one in made.maps.items()} == {"residual": {"sign": "dark"}, "nll": {}}
    assert (made.top, made.draws) == (0.05, 2)


def test_another_winsor_than_the_training_scans_had_is_refused() -> None:
    """Their residuals are what the new ones are shrunk towards."""
    detect = asked(options={"residual_z": {"winsor": 2}})
    with pytest.raises(SettingsError, match=r"residual_z.winsor is 1 in this model, not 2") as caught:
        make_reference(model(), healthy(3), calibrated=True, detect=detect)
    assert "set detect.options.residual_z.winsor=2" in str(caught.value.hint)


# --------------------------------------------------------------------------------------------------- before training


def settings(*maps: str, align: str = "none", **options: Any) -> Settings:
    return Settings.model_validate({"prepare": {"align": align}, "detect": {"maps": maps, "options": options}})


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        (settings("residual", "residual_z"), "'residual_z' compares voxel by voxel", r"detect.maps=[residual]"),
        (settings("atlas"), "'atlas' compares voxel by voxel", r"detect.maps=[residual,intensity]"),
        (settings("residual", "detector"), "'detector' needs a detector", r"detect.maps=[residual]"),
        (settings("fused", align="mni152"), "'fused' needs a detector", r"detector.steps=1500"),
        (settings("residul"), "there is no 'residul'", "did you mean 'residual'"),
        (settings("residual", residual={"sgn": "dark"}), "unknown setting 'sgn'", "did you mean 'sign'"),
        (settings("residual", nll={"sign": "dark"}), "unknown setting 'sign'", ""),
    ],
)
def test_maps_that_a_model_cannot_have_are_refused(wanted: Settings, message: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        check_maps(wanted)
    assert hint in str(caught.value.hint)


def test_maps_that_a_model_can_have_pass() -> None:
    check_maps(settings("residual", "nll"))
    check_maps(settings("residual_z", "atlas", align="mni152", residual_z={"winsor": 1.5}))
