"""`medvae.synthesize`: lazy, repeatable, defaults of the model, errors at the call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_model import toy_model

from medvae import synthesize
from medvae.errors import ModelError, SettingsError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.synthesize import augment_settings, with_screen
from medvae.synthesis.synthetic import SyntheticSet

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model


def with_augment(**changes: Any) -> Model:
    model = toy_model(labels=("a", "b"))
    settings = model.settings.model_copy(update={"augment": AugmentSettings.model_validate(changes), "seed": 3})
    return replace(model, settings=settings)


def test_scans_are_generated_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = SyntheticSet.scan

    def counted(self: SyntheticSet, index: int) -> Any:
        seen.append(index)
        return real(self, index)

    monkeypatch.setattr(SyntheticSet, "scan", counted)
    scans = synthesize(toy_model(), 1_000_000)
    assert seen == []
    assert [next(scans).id, next(scans).id] == ["synthetic-00000", "synthetic-00001"]
    assert seen == [0, 1]


def test_a_scan_does_not_depend_on_the_count() -> None:
    model = toy_model()
    few, many = list(synthesize(model, 1)), list(synthesize(model, 3))
    assert np.array_equal(few[0].image.data, many[0].image.data)
    assert few[0].record == many[0].record
    assert list(synthesize(model, 0)) == []


def test_what_is_not_given_is_that_of_the_model() -> None:
    model = with_augment(sampler="jitter", options={"scale": 0.5}, texture=True)
    one = next(synthesize(model, 1))
    assert one.record["settings"] == model.settings.augment.model_dump(mode="json")
    assert one.record["seed"] == 3
    other = next(synthesize(model, 1, options={"scale": 2.0}, texture=False, seed=4, classes="balanced"))
    assert other.record["settings"]["options"] == {"scale": 2.0}
    assert (other.record["texture"], other.record["seed"]) == (False, 4)
    assert other.record["settings"]["classes"] == "balanced"


def test_options_of_one_sampler_are_not_given_to_another() -> None:
    model = with_augment(sampler="jitter", options={"scale": 0.5})
    assert next(synthesize(model, 1, sampler="density")).record["settings"]["options"] == {}
    assert next(synthesize(model, 1, sampler="jitter")).record["settings"]["options"] == {"scale": 0.5}
    texts = ("augment.sampler=density", "augment.options={spread: 0.5}")
    assert augment_settings(model.settings, None, texts).augment.options == {"spread": 0.5}
    assert augment_settings(model.settings, None, ("seed=1",)).augment.options == {"scale": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "densty"}, "there is no 'densty' among the samplers"),
        ({"options": {"sharpness": 1}}, "unknown setting 'sharpness'"),
        ({"classes": "equal"}, "classes is 'equal' in synthesize: it must be 'training' or 'balanced'"),
        ({"conditions": {"age": 70}}, "the model has no condition 'age'"),
        ({"count": -1}, "count is -1: a whole number of at least 0 is needed"),
        ({"count": "2"}, "count is '2': a whole number of at least 0 is needed"),
        ({"count": 2.5}, "count is 2.5: a whole number of at least 0 is needed"),
    ],
)
def test_errors_come_at_the_call(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        synthesize(toy_model(), options.pop("count", 1), **options)


def test_a_folder_that_holds_no_model(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        synthesize(tmp_path, 1)


@pytest.mark.parametrize("key", ["train.lr", "prepare.spacing", "model.name", "likelihood.family"])
def test_what_belongs_to_the_model_cannot_be_changed(key: str) -> None:
    value = {"train.lr": "1", "prepare.spacing": "[9, 9, 9]", "model.name": "flat", "likelihood.family": "laplace"}[key]
    with pytest.raises(SettingsError, match=rf"{key.partition('.')[0]}\.\* belongs to the model"):
        augment_settings(toy_model().settings, None, (f"{key}={value}",))


@pytest.mark.parametrize("text", ["detect.draws=3", "read.volume=1", "train.lr=1e-3"])
def test_an_override_without_effect_is_refused(text: str) -> None:
    """The last one has the value that the model was trained with."""
    with pytest.raises(SettingsError, match="has no effect here") as caught:
        augment_settings(toy_model().settings, None, (text,))
    assert text.partition("=")[0] in caught.value.message
    assert "augment, seed" in (caught.value.hint or "")


def test_a_file_of_a_whole_project_may_have_other_sections(tmp_path: Any) -> None:
    path = tmp_path / "project.yaml"
    path.write_text("detect: {draws: 3}\naugment: {sampler: jitter}\n", "utf-8")
    assert augment_settings(toy_model().settings, str(path), ()).augment.sampler == "jitter"


@pytest.mark.parametrize("sampler", ["density", "classical"])
def test_the_screen_reports_its_progress_from_the_start(sampler: str) -> None:
    """Each of the four scans once for its copy and once for itself, also where samples are not decoded."""
    seen = []
    synthesizer = generate.fit(toy_model(n=4), AugmentSettings(sampler=sampler), seed=0)
    with_screen(synthesizer, on_progress=seen.append)
    assert [(one.stage, one.done, one.total) for one in seen] == [("copy screen", i, 8) for i in range(9)]
    more = []
    synthesize(toy_model(n=4), 1, sampler=sampler, on_progress=more.append)
    assert more == seen
