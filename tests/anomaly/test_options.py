"""A Reference is used with the options that it was computed with; anything else is refused, with what to do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import pytest

from medvae.anomaly.options import check_options, detect_settings, require_known
from medvae.anomaly.reference import reference_of
from medvae.errors import SettingsError

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.settings import DetectSettings


@cache
def model() -> Model:
    return linear_model.known_model(options={"residual_z": {"winsor": 1.5, "scales_mm": [6]}}, top=0.02)


def asked(**changes: Any) -> DetectSettings:
    return detect_settings(model()).model_copy(update={"maps": ("residual_z", "residual"), **changes})


def require(wanted: DetectSettings) -> None:
    require_known(reference_of(model()), wanted, aligned=True)


def test_what_the_reference_has_is_the_default() -> None:
    found = detect_settings(model())
    assert (found.top, found.draws) == (0.02, 4)
    assert found.options["residual_z"] == {"winsor": 1.5, "scales_mm": [6.0]}
    assert found.maps == model().settings.detect.maps
    require(found)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"top": 0.01}, r"computed with detect.top=0.02, not 0.01", "set detect.top=0.01"),
        ({"draws": 5}, r"computed with detect.draws=4, not 5", "set detect.draws=5"),
        (
            {"options": {"residual_z": {"scales_mm": [3, 6], "winsor": 1.5}}},
            r"residual_z.scales_mm=\[6.0\], not \[3.0,6.0\]",
            "set detect.options.residual_z.scales_mm=[3.0,6.0]",
        ),
        ({"options": {"residual": {"sign": "bright"}}, "maps": ("residual",)}, "sign=both, not bright", "sign=bright"),
        ({"maps": ("residul",)}, r"there is no 'residul'", "did you mean 'residual'"),
        ({"maps": ()}, "no map is asked for", "set detect.maps"),
    ],
)
def test_what_it_was_not_computed_with_is_refused(changes: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        require(asked(**changes))
    assert hint in str(caught.value.hint)


def test_a_default_that_is_spelt_out_is_the_same() -> None:
    require(asked(options={"residual_z": {"scales_mm": [6], "winsor": 1.5}, "residual": {"sign": "both"}}))


def test_a_map_that_was_not_calibrated_is_refused() -> None:
    made = reference_of(model())
    without = replace(made, maps={"residual": made.maps["residual"]})
    with pytest.raises(SettingsError, match="map 'nll' was not calibrated") as caught:
        require_known(without, asked(maps=("residual", "nll")), aligned=True)
    assert "calibrate the model again" in str(caught.value.hint)
    with pytest.raises(SettingsError, match="scans are not aligned") as caught:
        require_known(without, asked(), aligned=False)
    assert "residual" in str(caught.value.hint)


def test_options_of_calibration_are_checked_before_anything_is_read() -> None:
    check_options(model(), asked(), names=("residual_z",))
    for options, message in (
        ({"residual_z": {"winsor": 3, "scales_mm": [6]}}, "winsor is 1.5 in this model, not 3"),
        ({}, "winsor is 1.5 in this model, not 1"),
        ({"residul": {}}, "there is no 'residul'"),
        ({"nll": {"x": 1}}, "unknown setting 'x'"),
    ):
        with pytest.raises(SettingsError, match=message):
            check_options(model(), asked(options=options), names=("residual_z",))
    scales = {"matched_residual": {"scales_mm": [0.0, 3.0]}}
    with pytest.raises(SettingsError, match=r"scales_mm is \[0.0,3.0,6.0\] in this model, not \[0.0,3.0\]") as caught:
        check_options(model(), asked(options=scales), names=("matched_residual",))
    assert "set detect.options.matched_residual.scales_mm=[0.0,3.0]" in str(caught.value.hint)


def test_options_of_a_map_whose_package_is_gone_do_not_matter() -> None:
    known = model().settings.detect.model_copy(update={"options": {"theirs": {"a": 1}}})
    trained = replace(model(), settings=model().settings.model_copy(update={"detect": known}))
    check_options(trained, known, names=("residual",))
