"""Laws of every sampler that is installed: repeatable, independent of each other, true to class and conditions.

A law takes the name of a sampler. The samplers of medvae and one of another package are held to all of them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import outside_sampler
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_deform import toy_deform
from toy_lesion import toy_lesion
from toy_model import LATENT, SHAPE, toy_model

from medvae import plugins
from medvae.errors import ModelError, SettingsError
from medvae.settings import AugmentSettings, configure
from medvae.synthesis import generate, provenance
from medvae.synthesis.draws import ImageDraw, LatentDraw
from medvae.synthesis.synthesize import make_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import Draw
    from medvae.synthesis.generate import Sample, Synthesizer

NAMES = plugins.names("samplers")
CLASSES = ("healthy", "ill")
LAWS: list[Callable[[str], None]] = []


def law(test: Callable[[str], None]) -> Callable[[str], None]:
    """A test of one sampler: runs for each of medvae, and for one of another package."""
    LAWS.append(test)
    return pytest.mark.parametrize("name", NAMES)(test)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    outside_sampler.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield outside_sampler.NAME
    sys.modules.pop("crossover_of_others", None)


def toy(name: str, **more: Any) -> Model:
    """A model that a sampler works with: most take every network."""
    makers: dict[str, Callable[..., Model]] = {"anatomy": toy_deform, "lesion": toy_lesion}
    return makers.get(name, toy_model)(**more)


def fitted(name: str, *, seed: int = 5, conditions: dict[str, float | str] | None = None) -> Synthesizer:
    """A sampler on a model with two classes, label maps and, where some are fixed, conditions."""
    model = toy(name, labels=CLASSES, label_maps=True, conditions=() if conditions is None else ("age", "sex"))
    settings = AugmentSettings.model_validate({"sampler": name, "conditions": conditions or {}})
    return generate.fit(model, settings, seed=seed)


def draws(synthesizer: Synthesizer, count: int, *, seed: int = 0) -> list[Draw]:
    """Draws of the classes in turn."""
    generator, labels = np.random.default_rng(seed), list(synthesizer.fitted.shares)
    return [synthesizer.fitted.draw(labels[i % len(labels)], generator, {}, i * 0.618 % 1) for i in range(count)]


def content(draw: Draw) -> np.ndarray:
    return draw.z if isinstance(draw, LatentDraw) else draw.image


def same(one: Sample, other: Sample) -> bool:
    arrays = [(one.image, other.image), (one.mask, other.mask)]
    if one.label_map is not None and other.label_map is not None:
        arrays.append((one.label_map, other.label_map))
    plain = [(s.label, s.conditions, s.sources, s.parameters, s.intensity, s.intensity_from) for s in (one, other)]
    return all(np.array_equal(a, b) for a, b in arrays) and plain[0] == plain[1]


@law
def test_a_sample_depends_on_nothing_but_its_number(name: str) -> None:
    forwards = [fitted(name, conditions={}).sample(index) for index in range(4)]
    synthesizer = fitted(name, conditions={})
    backwards = [synthesizer.sample(index) for index in (3, 1, 0, 2)]
    assert all(same(one, forwards[one.index]) for one in backwards)


@law
def test_another_seed_or_number_gives_another_sample(name: str) -> None:
    synthesizer = fitted(name)
    images = [synthesizer.sample(0).image, synthesizer.sample(1).image, fitted(name, seed=6).sample(0).image]
    assert not any(np.array_equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@law
def test_shapes_and_values(name: str) -> None:
    synthesizer = fitted(name)
    for index in range(3):
        sample = synthesizer.sample(index)
        assert sample.image.shape == sample.mask.shape == (1, *SHAPE)
        assert sample.image.dtype == np.float32
        assert sample.mask.dtype == bool
        assert np.isfinite(sample.image).all()
        assert sample.mask.any()
        assert (sample.image[~sample.mask] == 0).all(), "outside the foreground there is background"


@law
def test_lists_name_all_values_of_label_maps(name: str) -> None:
    synthesizer = fitted(name)
    known = make_layout(synthesizer).label_values
    for index in range(4):
        label_map = synthesizer.sample(index).label_map
        assert (label_map is None) == (not known)
        assert label_map is None or set(np.unique(label_map)) <= set(known)


@law
def test_a_draw_is_a_code_or_an_image_as_the_sampler_declares(name: str) -> None:
    synthesizer = fitted(name)
    for draw in draws(synthesizer, 3):
        if synthesizer.space == "image":
            assert isinstance(draw, ImageDraw)
            assert draw.image.shape == draw.mask.shape == (1, *SHAPE)
        else:
            assert isinstance(draw, LatentDraw)
            assert (draw.z.shape, draw.z.dtype) == (LATENT, np.float32)


@law
def test_a_draw_does_not_change_the_sampler(name: str) -> None:
    synthesizer = fitted(name)
    first, second = draws(synthesizer, 5, seed=7), draws(synthesizer, 5, seed=7)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(content(a), content(b))
        assert (a.parameters, a.sources) == (b.parameters, b.sources)


@law
def test_shares_are_those_of_the_training_scans(name: str) -> None:
    shares = dict(fitted(name).fitted.shares)
    assert shares == {None: 1.0} or shares == dict.fromkeys(CLASSES, 0.5)


@law
def test_sources_are_training_scans_of_the_class(name: str) -> None:
    synthesizer = fitted(name)
    latents = synthesizer.model.latents
    label_of = dict(zip(latents.ids, latents.labels, strict=True))
    samples = [synthesizer.sample(index) for index in range(12)]
    assert {sample.label for sample in samples} == set(synthesizer.fitted.shares)
    assert all(label_of[source] == sample.label for sample in samples for source in sample.sources)


@law
def test_classes_stay_apart_in_the_code(name: str) -> None:
    """The toy model's classes differ by 3 in the first dimension, where a class has a standard deviation of about 1."""
    synthesizer = fitted(name)
    if synthesizer.space == "image" or None in synthesizer.fitted.shares:
        return
    codes: dict[str | None, list[float]] = {one: [] for one in CLASSES}
    for index in range(60):
        sample = synthesizer.sample(index)
        assert sample.z is not None
        codes[sample.label].append(float(sample.z[0, 0]))
    assert np.mean(codes["ill"]) - np.mean(codes["healthy"]) == pytest.approx(3, abs=1)


@law
def test_conditions_are_those_of_a_training_scan_of_the_class(name: str) -> None:
    synthesizer = fitted(name, conditions={})
    latents = synthesizer.model.latents
    known = dict(zip(latents.ids, zip(latents.labels, latents.conditions, strict=True), strict=True))
    for sample in (synthesizer.sample(index) for index in range(12)):
        of = sample.sources or [one for one, (label, _) in known.items() if sample.label in (None, label)]
        assert sample.conditions in [dict(known[one][1]) for one in of]


@law
def test_fixed_conditions_are_used_or_refused(name: str) -> None:
    """Codes are decoded with them; a real scan that is altered cannot become older."""
    if fitted(name).space == "image":
        with pytest.raises(SettingsError, match="conditions cannot be changed"):
            fitted(name, conditions={"age": 70.0})
        return
    young, old = (fitted(name, conditions={"age": age}).sample(1) for age in (20.0, 70.0))
    free = fitted(name, conditions={}).sample(1)
    assert (young.conditions["age"], old.conditions["age"]) == (20.0, 70.0)
    assert young.conditions["sex"] == old.conditions["sex"] == free.conditions["sex"], "the others are not touched"
    assert young.z is not None
    assert np.array_equal(young.z, old.z), "the code does not depend on them"
    assert np.abs(young.image - old.image)[young.mask & old.mask].mean() > 0.1, "the decoder is given them"


@law
def test_without_conditions_there_are_none(name: str) -> None:
    assert fitted(name).sample(0).conditions == {}


@law
def test_the_sidecar_is_plain_and_repeats_the_sample(name: str) -> None:
    synthesizer = fitted(name, conditions={})
    sample = synthesizer.sample(2)
    record = json.loads(json.dumps(provenance.describe(sample, synthesizer), allow_nan=False))
    settings = AugmentSettings.model_validate(record["settings"])
    again = generate.fit(synthesizer.model, settings, seed=record["seed"]).sample(record["index"])
    assert same(again, sample)
    assert record["sampler"] == name
    assert record["sources"] == list(sample.sources)
    assert record["conditions"] == sample.conditions
    assert record["units"] == "a.u."


@law
def test_label_maps_are_written_or_their_absence_is_explained(name: str) -> None:
    synthesizer = fitted(name)
    sample = synthesizer.sample(0)
    assert (sample.label_map is None) == bool(provenance.no_label_maps(synthesizer))
    if sample.label_map is not None:
        assert sample.label_map.dtype == np.int16
        assert set(np.unique(sample.label_map)) <= {0, 1}, "a label map keeps its values"


@law
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="sharpness"):
        generate.fit(toy(name), AugmentSettings(sampler=name, options={"sharpness": 1}), seed=0)


@law
def test_a_model_that_holds_next_to_nothing(name: str) -> None:
    """One scan and no images: a sample, or an error that says what is needed."""
    model, settings = toy(name, n=1, keep=0), AugmentSettings(sampler=name)
    module, options = configure("samplers", name, {})
    try:
        module.fit(model, options)
    except ModelError:
        with pytest.raises(ModelError, match="needs at least"):
            generate.fit(model, settings, seed=0)
    else:
        assert generate.fit(model, settings, seed=0).sample(0).image.shape == (1, *SHAPE)


@pytest.mark.parametrize("test", LAWS, ids=lambda test: test.__name__)
def test_a_sampler_of_another_package_is_held_to_every_law(test: Callable[[str], None], outside: str) -> None:
    assert outside in plugins.names("samplers")
    assert outside not in NAMES
    test(outside)


FAULTS = {
    "test_a_draw_does_not_change_the_sampler": ("a, b =", "self.latents.mean[:] += 1; a, b ="),
    "test_a_sample_depends_on_nothing_but_its_number": ("generator.random(", "np.random.default_rng().random("),
    "test_sources_are_training_scans_of_the_class": ("if one == label]", "]"),
    "test_conditions_are_those_of_a_training_scan_of_the_class": ("conditions[a])", "conditions[a], age=99.0)"),
    "test_shapes_and_values": ("z.astype(np.float32)", "(z * np.nan).astype(np.float32)"),
    "test_shares_are_those_of_the_training_scans": ("/ len(labels)", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_sampler_breaks_the_law(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = FAULTS[name]
    assert good in outside_sampler.SOURCE
    outside_sampler.install(tmp_path, outside_sampler.SOURCE.replace(good, bad))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(AssertionError):
            next(test for test in LAWS if test.__name__ == name)(outside_sampler.NAME)
    finally:
        sys.modules.pop("crossover_of_others", None)


@given(shares=st.lists(st.floats(0.02, 1), min_size=1, max_size=5), count=st.integers(1, 300))
def test_every_prefix_has_nearly_the_wanted_shares(shares: list[float], count: int) -> None:
    weights: dict[str | None, float] = {f"class {i}": share for i, share in enumerate(shares)}
    picked = [generate.pick(weights, index) for index in range(count)]
    for label, share in weights.items():
        wanted = count * share / sum(shares)
        points = np.sort([point for found, point in picked if found == label])
        few = 2 + np.log(count + 1)
        assert abs(len(points) - wanted) <= few, "better than random picks, whose error is √n"
        assert np.all((points >= 0) & (points < 1))
        assert np.abs(points * len(points) - np.arange(len(points))).max(initial=0) <= few, "nor do points cluster"


@pytest.mark.parametrize("sampler", ["classical", "jitter", "interpolate"])
@pytest.mark.parametrize("seed", range(3))
def test_no_training_scan_is_used_often_while_others_are_not(sampler: str, seed: int) -> None:
    """Chance would take one of eight scans five times or more in every second set of sixteen."""
    model = toy_model(n=8, labels=("a", "b"))
    synthesizer = generate.fit(model, AugmentSettings(sampler=sampler), seed=seed)
    used = Counter(synthesizer.sample(index).sources[0] for index in range(16))
    assert len(used) == 8
    assert max(used.values()) <= 3


def test_another_seed_begins_with_another_scan() -> None:
    model = toy_model(n=8)
    first = {generate.fit(model, AugmentSettings(sampler="classical"), seed=i).sample(0).sources for i in range(8)}
    assert len(first) > 2


def test_balanced_classes() -> None:
    model = toy_model(labels=("healthy", "healthy", "healthy", "ill"))
    for classes, least, most in (("training", 8, 12), ("balanced", 18, 22)):
        settings = AugmentSettings.model_validate({"sampler": "jitter", "classes": classes})
        synthesizer = generate.fit(model, settings, seed=0)
        assert least <= sum(synthesizer.sample(index).label == "ill" for index in range(40)) <= most
