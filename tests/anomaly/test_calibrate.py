"""Making a Reference: a scan never sits in what scores it, calibrating twice is calibrating once, unlike is refused."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest
from linear_model import healthy

from medvae import plugins
from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.calibrate import LIMIT, empty_reference, make_reference, require_known
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import residual_z
from medvae.anomaly.reference import Moments, reference_of, with_reference
from medvae.errors import SettingsError
from medvae.settings import DetectSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medvae.anomaly.reference import Normal, Reference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

NAMES = plugins.names("maps")


def others() -> Iterator[Prepared]:
    """Healthy scans that training has not seen."""
    return healthy(start=300)


@cache
def model() -> Model:
    return linear_model.known_model(NAMES)


@cache
def calibrated() -> Reference:
    return make_reference(model(), others, names=NAMES, calibrated=True)


def image_normal(scans: Sequence[Prepared]) -> Normal:
    images = Moments.empty(linear_model.SHAPE)
    for scan in scans:
        images.add(scan.image[0], scan.mask[0])
    return images.normal(spacing=model().preparation.grid.spacing)


def asked(**changes: Any) -> DetectSettings:
    return DetectSettings.model_validate({"draws": 4, "maps": ("residual_z", "residual"), **changes})


def test_what_a_first_reference_holds() -> None:
    made, scans = reference_of(model()), list(healthy())
    assert (made.n, made.calibrated, made.prior) == (8, False, None)
    assert made.scan_hashes == tuple(scan.source_hash for scan in scans)
    assert set(made.scores) == set(made.limits) == set(made.options) == set(NAMES)
    assert set(made.scales) == {"residual_z"}
    assert made.image is not None
    np.testing.assert_allclose(made.image.mean, np.mean([scan.image[0] for scan in scans], axis=0), atol=1e-5)
    for values in made.scores.values():
        assert values.dtype == np.float32
        assert np.array_equal(values, np.sort(values))
        assert len(values) == 8
    made.check(model_hash=model().hash, preparation_hash=model().preparation.hash)


@pytest.mark.parametrize("name", ["atlas", "residual_z"])
def test_scores_are_leave_one_out(name: str) -> None:
    """Against a reference that it sits in, a scan looks more normal than it is."""
    made = reference_of(model())
    inside = []
    for scan in healthy():
        found = anomaly_map(name, infer(model(), scan), made)
        inside.append(found.score(scan.mask[0], top=made.top))
    left_out = made.scores[name]
    assert (left_out > np.sort(inside) * 1.02).all()


def test_scores_scales_and_limits_by_hand() -> None:
    """Each scan against residual statistics of the rest, made anew from the rest."""
    scans = list(healthy())
    spacing = model().preparation.grid.spacing
    made, bare = reference_of(model()), empty_reference("", "")
    squares, scores, limits = [], [], []
    everyone = image_normal(scans)
    for out in scans:
        rest = Moments.empty(linear_model.SHAPE)
        others = [scan for scan in scans if scan is not out]
        for scan in others:
            rest.add(residual_z.residual(infer(model(), scan), everyone, residual_z.Settings()), scan.mask[0])
        one = type(bare)(**{**vars(bare), "image": image_normal(others), "residual": rest.normal(spacing=spacing)})
        found = anomaly_map("residual_z", infer(model(), out), one)
        inside = found.values[out.mask[0]]
        squares.append(np.mean(inside**2))
        scores.append(found.score(out.mask[0], top=0.01))
        limits.append(np.quantile(inside, LIMIT))
    scale = np.sqrt(np.mean(squares))
    assert made.scales["residual_z"] == pytest.approx(scale, rel=1e-4)
    np.testing.assert_allclose(made.scores["residual_z"], np.sort(scores) / scale, rtol=1e-4)
    assert made.limits["residual_z"] == pytest.approx(np.mean(limits) / scale, rel=1e-4)


@pytest.mark.parametrize("known", ["uncalibrated", "calibrated"])
def test_the_scale_makes_the_healthy_spread_one(known: str) -> None:
    made = calibrated() if known == "calibrated" else reference_of(model())
    squares = []
    for scan in healthy(12, start=500):
        values = anomaly_map("residual_z", infer(model(), scan), made).values[scan.mask[0]]
        squares.append(np.mean(values**2))
    assert np.sqrt(np.mean(squares)) == pytest.approx(1, abs=0.25)


def test_calibrating_keeps_the_atlas_and_shrinks_towards_the_training_scans() -> None:
    before, after = reference_of(model()), calibrated()
    assert (after.n, after.calibrated) == (8, True)
    assert after.image is before.image
    assert after.prior is before.residual
    assert after.residual is not None
    assert before.residual is not None
    assert not np.array_equal(after.residual.mean, before.residual.mean)


def test_calibrating_twice_gives_the_same_reference() -> None:
    again = make_reference(with_reference(model(), calibrated()), others, names=NAMES, calibrated=True)
    assert again.hash == calibrated().hash


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


def test_another_winsor_than_the_training_scans_had_is_refused() -> None:
    """Their residuals are what the new ones are shrunk towards."""
    detect = asked(options={"residual_z": {"winsor": 2}})
    with pytest.raises(SettingsError, match=r"winsor is 1 in this model, not 2") as caught:
        make_reference(model(), others, names=NAMES, calibrated=True, detect=detect)
    assert "train a model with --set detect.options.residual_z.winsor=2" in str(caught.value.hint)


def test_where_scans_are_not_aligned_only_scores_are_kept() -> None:
    unaligned = linear_model.known_model(NAMES, aligned=False)
    made = reference_of(unaligned)
    assert made.image is made.residual is made.prior is None
    assert set(made.scores) == set(NAMES) - {"atlas", "residual_z"}
    assert not made.scales
    with pytest.raises(SettingsError, match="not aligned") as caught:
        require_known(made, asked())
    assert "residual" in str(caught.value.hint)
    require_known(made, asked(maps=("residual", "nll")))


def test_progress_is_told_for_both_passes() -> None:
    calls: list[int] = []
    make_reference(model(), others, names=("intensity",), calibrated=True, on_scan=lambda: calls.append(1))
    assert len(calls) == 16


def test_options_and_top_are_kept() -> None:
    chosen = asked(options={"residual": {"sign": "dark"}}, top=0.05, draws=2)
    made = make_reference(model(), others, names=("residual", "nll"), calibrated=True, detect=chosen)
    assert made.options == {"residual": {"sign": "dark"}, "nll": {}}
    assert (made.top, made.draws) == (0.05, 2)
    require_known(made, chosen.model_copy(update={"maps": ("nll", "residual")}))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"top": 0.02}, r"made with detect.top=0.01, not 0.02", "--set detect.top=0.02"),
        ({"draws": 5}, r"made with detect.draws=4, not 5", "--set detect.draws=5"),
        (
            {"options": {"residual_z": {"scales_mm": [3]}}},
            r"made with detect.options.residual_z.scales_mm=\[0.0, 3.0, 6.0\], not \[3.0\]",
            "--set detect.options.residual_z.scales_mm=[3.0]",
        ),
        ({"options": {"residual": {"sign": "bright"}}}, r"residual.sign=both, not bright", "residual.sign=bright"),
        ({"maps": ("residul",)}, r"there is no 'residul'", "did you mean 'residual'"),
    ],
)
def test_what_was_not_measured_is_refused(changes: dict[str, Any], message: str, hint: str) -> None:
    require_known(calibrated(), asked())
    with pytest.raises(SettingsError, match=message) as caught:
        require_known(calibrated(), asked(**changes))
    assert hint in str(caught.value.hint)


def test_a_default_that_is_spelt_out_is_the_same() -> None:
    require_known(calibrated(), asked(options={"residual_z": {"scales_mm": [0, 3, 6]}, "residual": {"sign": "both"}}))


def test_a_map_that_the_reference_was_made_without_is_refused() -> None:
    made = make_reference(model(), others, names=("residual",), calibrated=True)
    with pytest.raises(SettingsError, match="knows no map 'nll'") as caught:
        require_known(made, asked(maps=("residual", "nll")))
    assert "medvae calibrate" in str(caught.value.hint)


def test_a_reference_of_nothing() -> None:
    made = empty_reference("m", "p")
    assert made.status == "uncalibrated, n=0"
    assert made.p_value("residual", 1.0) is None
    with pytest.raises(SettingsError, match=r"detect.draws|knows no map"):
        require_known(made, asked(top=0.01))
