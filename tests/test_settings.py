"""Settings: strict about keys and types, presets and overrides, what a checkpoint fixes, short to print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, HttpUrl

from medvae import plugins, settings
from medvae.errors import SettingsError
from medvae.settings import Settings, adjust, load

TIMED = "hippocampus-mri-shape"  # a preset with a time budget


def refusal(config: str | None = None, *overrides: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(config, overrides)
    assert "\n" not in str(caught.value)
    return caught.value


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_and_overrides_are_merged_key_by_key(tmp_path: Path) -> None:
    config = written(tmp_path, "train: {lr: 0.01, batch: 4}\nprepare: {modality: CT}\n")
    found = load(config, ("train.batch=3", "train.randomize.mirror=0.5", "detect.maps=[kl, nll]", "seed=7"))
    assert (found.train.lr, found.train.batch, found.train.randomize.mirror) == (0.01, 3, 0.5)
    assert found.prepare.modality == "CT"
    assert found.detect.maps == ("kl", "nll")
    assert found.seed == 7
    assert found.train.steps == Settings().train.steps
    assert load() == Settings() == load(written(tmp_path, ""))


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=1e-4", "train", "lr", 1e-4),  # YAML takes 1e-4 for a text; the setting is a number
        ("train.minutes=null", "train", "minutes", None),
        ("train.precision=32", "train", "precision", "32"),
        ("detect.montage=false", "detect", "montage", False),
        ("prepare.spacing=[1, 2, 3]", "prepare", "spacing", (1.0, 2.0, 3.0)),
        ("read.assume_orientation=RAS", "read", "assume_orientation", "RAS"),
        (" model.name = a: b: c", "model", "name", "a: b: c"),  # no YAML: a text
        ("model.name=2020-13-45", "model", "name", "2020-13-45"),  # no date
    ],
)
def test_overrides_are_typed_by_the_setting(override: str, section: str, key: str, value: object) -> None:
    found = getattr(getattr(load(None, (override,)), section), key)
    assert (found.strip() if isinstance(found, str) else found) == value


def test_an_unknown_key_gets_the_nearest_name() -> None:
    problem = refusal(None, "train.lrr=1")
    assert str(problem) == "unknown setting 'train.lrr' in the settings"
    assert (problem.hint or "").startswith("did you mean 'train.lr'? choose one of: ")
    assert "'train'" in (refusal(None, "trian.lr=1").hint or "")
    deep = refusal(None, "train.randomize.miror=1")
    assert "train.randomize.miror" in str(deep)
    assert "'train.randomize.mirror'" in (deep.hint or "")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.steps=many", "train.steps is 'many' in the settings: a whole number is needed"),
        ("train.steps=1.5", "train.steps is 1.5 in the settings: a whole number is needed"),
        ("train.lr=soon", "train.lr is 'soon' in the settings: a number is needed"),
        ("train.lr=-1", "train.lr is -1 in the settings: it must be above 0"),
        ("train.validation=0.7", "train.validation is 0.7 in the settings: it must be at least 0 and below 0.5"),
        ("detect.top=0", "detect.top is 0 in the settings: it must be above 0 and at most 1"),
        ("detect.montage=maybe", "detect.montage is 'maybe' in the settings: true or false is needed"),
        ("train.keep_state=", "train.keep_state is empty in the settings: true or false is needed"),
        ("model.name=3", "model.name is 3 in the settings: text is needed"),
        ("prepare.modality=ct", "prepare.modality is 'ct' in the settings: it must be 'CT', 'MR', 'PT' or 'SHAPE'"),
        ("prepare.spacing=2", "prepare.spacing is 2 in the settings: a list is needed"),
        ("prepare.spacing=[1, 2]", "prepare.spacing is [1, 2] in the settings: 3 values are needed"),
        ("prepare.spacing=[1, x, 2]", "prepare.spacing.1 is 'x' in the settings: a number is needed"),
        ("prepare.spacing=[-1, 1, 1]", "prepare.spacing.0 is -1 in the settings: it must be above 0"),
        ("prepare.shape=[8, 0, 8]", "prepare.shape.1 is 0 in the settings: it must be at least 1"),
        ("prepare.window=[5, 5]", "prepare.window is [5, 5] in the settings: the second value must be above the first"),
        ("detector.patch=[8, 8, 0]", "detector.patch.2 is 0 in the settings: it must be at least 1"),
        ("detector.channels=[0, 4]", "detector.channels.0 is 0 in the settings: it must be at least 1"),
        ("lesions.channels=[0]", "lesions.channels.0 is 0 in the settings: it must be at least 1"),
        ("train.minutes=.inf", "train.minutes is inf in the settings: a finite number is needed"),
        ("detect.min_ml=.inf", "detect.min_ml is inf in the settings: a finite number is needed"),
        (
            "augment.conditions={age: .nan}",
            "augment.conditions.age.float is nan in the settings: a finite number is needed",
        ),
        ("train=7", "train is 7 in the settings: settings by name are needed"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(override: str, said: str) -> None:
    problem = refusal(None, override)
    assert str(problem) == said
    assert (problem.hint or "").startswith(("correct it: ", "write a list, e.g. ", "set its entries by name: "))


def test_a_wrong_value_names_the_file_and_the_purpose(tmp_path: Path) -> None:
    problem = refusal(written(tmp_path, "train: {steps: many}\n"))
    assert str(problem).endswith("mine.yaml: a whole number is needed")
    assert problem.hint == "correct it: optimiser steps; set without minutes, they replace a time budget"
    assert refusal(None, "model.conditions=age").hint == "write a list, e.g. model.conditions=[age]"


class Odd(settings.Frozen):
    """Settings of a plug-in: one without a default, a list with limits, an optional section, a check of its own."""

    scale: float
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field((2,), min_length=1, description="levels")
    inner: settings.RandomizeSettings | None = None
    url: HttpUrl | None = None


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "scale is missing in maps.odd"),
        ({"scale": 1, "levels": []}, "levels is [] in maps.odd: a list of 1 or more values is needed"),
        ({"scale": 1, "levels": [4, 1]}, "levels.1 is 1 in maps.odd: it must be at least 2"),
        ({"scale": 1, "inner": {"spatial": 2}}, "inner.spatial is 2 in maps.odd: it must be at least 0 and at most 1"),
        ({"scale": 1, "inner": {"spatail": 2}}, "unknown setting 'inner.spatail' in maps.odd"),
        ({"scale": 1, "url": "x"}, "url is 'x' in maps.odd: Input should be a valid URL, relative URL without a base"),
        ({"scale": 1, 2: 3}, "2 is 2 in maps.odd: Keys should be strings"),
    ],
)
def test_settings_of_plug_ins_are_told_the_same_way(tree: dict[Any, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.validate(Odd, tree, where="maps.odd")
    assert str(caught.value) == said
    assert (caught.value.hint or "").startswith(("correct it", "did you mean 'inner.spatial'?"))
    assert "None" not in (caught.value.hint or "")


def test_overrides_are_texts_one_text_or_a_mapping() -> None:
    wanted = load(None, ("train.steps=20", "model.conditions=[age]"))
    assert load(None, ["train.steps=20", "model.conditions=[age]"]) == wanted
    assert load(None, {"train.steps": 20, "model.conditions": ["age"]}) == wanted
    assert load(None, {"train": {"steps": 20}, "model.conditions": ("age",)}) == wanted
    assert load(None, "train.steps=20").train == wanted.train
    with pytest.raises(SettingsError, match=r"unknown setting 'train\.step'"):
        load(None, {"train.step": 20})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {lr: 1", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("- a\n- b\n", "key: value pairs, got list"),
        ("7", "key: value pairs, got int"),
        ("seed: 2020-13-45", "not valid YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
        ("1: 2", "1 is 1"),
        ("train: 7", "train is 7"),
        ("train:", "train is empty"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in str(refusal(written(tmp_path, text)))


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path, "seed: 1")

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_text", denied)
    assert "Permission denied" in str(refusal(config))


@pytest.mark.parametrize("text", ["train.lr", "=1", " =1"])
def test_an_override_without_key_or_value(text: str) -> None:
    problem = refusal(None, text)
    assert f"cannot read the setting {text!r}" in str(problem)
    assert "section.key=value" in (problem.hint or "")


def test_an_unknown_preset_lists_those_that_are_there() -> None:
    wrong = plugins.presets()[0][:-1]
    problem = refusal(wrong)
    assert str(problem) == f"there is no preset or file {wrong!r}"
    assert f"did you mean {plugins.presets()[0]!r}?" in (problem.hint or "")


def test_a_path_is_a_file_and_a_name_that_cannot_be_one_is_unknown(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "seed: 7"))
    assert load(path, "train.steps=3").seed == 7
    with pytest.raises(SettingsError, match=r"mine\.yaml with your changes: a whole number is needed"):
        load(path, "seed=x")
    for name in ("a" * 300, "a\0b"):
        assert "there is no preset or file" in str(refusal(name))


def test_what_made_a_checkpoint_cannot_be_changed() -> None:
    base = load(None, ("train.lr=0.5",))
    changed = adjust(base, None, ("detect.draws=3", "read.volume=1", "augment.texture=true", "seed=4", "train.lr=0.5"))
    assert (changed.detect.draws, changed.read.volume, changed.seed) == (3, 1, 4)
    assert changed.train.lr == 0.5
    for override in ("prepare.align=mni152", "model.name=flat", "likelihood.family=laplace", "train.lr=0.1"):
        with pytest.raises(SettingsError, match=rf"^{override.partition('.')[0]}\.\* belongs to the model"):
            adjust(base, None, (override,))


def test_settings_print_what_differs() -> None:
    assert repr(load(None, ("train.lr=0.5", "seed=3"))) == "Settings(train=TrainSettings(lr=0.5), seed=3)"
    assert repr(Settings()) == "Settings()"


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 3  # type: ignore[misc]


def test_settings_survive_a_round_trip() -> None:
    one = load("brain-mr" if "brain-mr" in plugins.presets() else plugins.presets()[0])
    assert settings.validate(Settings, one.model_dump(mode="json"), where="a checkpoint") == one


def test_steps_without_minutes_replace_a_time_budget(tmp_path: Path) -> None:
    """Of a preset, from the command line, from Python and from a file that builds on it."""
    assert load(TIMED).train.minutes == 10
    for overrides in (("train.steps=7",), {"train.steps": 7}, ("train.lr=0.1", "train.steps=7")):
        train = load(TIMED, overrides).train
        assert (train.steps, train.minutes) == (7, None)
    for both in (("train.steps=7", "train.minutes=3"), ("train.minutes=3", "train.steps=7")):
        assert load(TIMED, both).train.minutes == 3, "a time budget beside them overrides steps"
    assert load(TIMED, "train.lr=0.1").train.minutes == 10
    (tmp_path / "mine.yaml").write_text(f"base: {TIMED}\ntrain: {{steps: 7}}\n", "utf-8")
    assert load(str(tmp_path / "mine.yaml")).train.minutes is None
    assert load(str(tmp_path / "mine.yaml"), "train.minutes=3").train.minutes == 3


def test_the_preset_of_a_model_changes_nothing(tmp_path: Path) -> None:
    """How long it trains is not what the model was trained for: steps, which a record has in place of minutes."""
    longer = load("brain-mri-t1", "train.minutes=30")
    assert adjust(longer, "brain-mri-t1", ("seed=2",)).train.minutes == 30
    recorded = load(TIMED, ("train.steps=9", "train.plan=[[0, 6], [2, 9]]"))
    assert adjust(recorded, TIMED, ("detect.top=0.5",)) == load(None, ("detect.top=0.5",), base=recorded)
    (tmp_path / "mine.yaml").write_text("train: {lr: 7}\n", "utf-8")
    with pytest.raises(SettingsError, match=r"train\.\* belongs to the model"):
        adjust(recorded, str(tmp_path / "mine.yaml"), ())
    with pytest.raises(SettingsError, match=r"train\.\* belongs to the model"):
        adjust(recorded, TIMED, ("train.minutes=3",))


def test_a_length_set_over_a_recorded_plan_replaces_it(tmp_path: Path) -> None:
    """A plan that stayed would win without a word: the training would be as long as the recorded one."""
    record = tmp_path / "record.yaml"
    plans = "train: {steps: 9, plan: [[0, 6], [2, 9]]}\ndetector: {steps: 5, plan: [[0, 4], [1, 5]]}\n"
    record.write_text(f"base: {TIMED}\n{plans}", "utf-8")

    def length(*overrides: str) -> tuple[object, ...]:
        given = load(str(record), overrides)
        train, detector = given.train, given.detector
        return train.minutes, train.steps, train.plan, detector.steps, detector.plan

    own, other = ((0, 6), (2, 9)), ((0, 4), (1, 5))
    assert length() == length("train.lr=0.1") == (None, 9, own, 5, other)
    assert length("train.steps=7") == (None, 7, (), 5, other)
    assert length("train.minutes=3") == (3, 9, (), 5, ()), "the budget is for both networks"
    assert length("detector.steps=0") == (None, 9, own, 0, ())
    assert length("train.steps=8", "train.plan=[[0, 8]]") == (None, 8, ((0, 8),), 5, other)
    assert length("train.minutes=null") == length(), "no budget, as recorded"
