"""Laws of every sampler that is found: repeatable, independent of each other, true to their class, honest records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import LATENT, SHAPE, toy_model

from medvae import plugins
from medvae.errors import ModelError, SettingsError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, provenance
from medvae.synthesis.draws import ImageDraw, LatentDraw

if TYPE_CHECKING:
    from medvae.synthesis.generate import Sample, Synthesis

NAMES = plugins.names("samplers")


def fitted(name: str, *, seed: int = 5, classes: str = "training") -> Synthesis:
    model = toy_model(labels=("healthy", "ill"), label_maps=True)
    settings = AugmentSettings.model_validate({"sampler": name, "classes": classes})
    return generate.fit(model, settings, seed=seed)


def same(one: Sample, other: Sample) -> bool:
    arrays = [(one.image, other.image), (one.mask, other.mask)]
    if one.label_map is not None and other.label_map is not None:
        arrays.append((one.label_map, other.label_map))
    plain = [(s.label, s.sources, s.parameters, s.intensity, s.intensity_of) for s in (one, other)]
    return all(np.array_equal(a, b) for a, b in arrays) and plain[0] == plain[1]


def test_all_samplers_are_found() -> None:
    assert NAMES == ("classical", "density", "interpolate", "jitter", "prior")


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_depends_on_nothing_but_its_number(name: str) -> None:
    forwards = [fitted(name).sample(index) for index in range(4)]
    made = fitted(name)
    backwards = [made.sample(index) for index in (3, 1, 0, 2)]
    assert all(same(one, forwards[one.index]) for one in backwards)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_or_number_gives_another_sample(name: str) -> None:
    made = fitted(name)
    images = [made.sample(0).image, made.sample(1).image, fitted(name, seed=6).sample(0).image]
    assert not any(np.array_equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_values(name: str) -> None:
    for index in range(3):
        sample = fitted(name).sample(index)
        assert sample.image.shape == sample.mask.shape == (1, *SHAPE)
        assert sample.image.dtype == np.float32
        assert sample.mask.dtype == bool
        assert np.isfinite(sample.image).all()
        assert sample.mask.any()
        assert (sample.image[~sample.mask] == 0).all(), "outside the foreground there is background"


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_of_one_kind(name: str) -> None:
    made = fitted(name)
    draw = made.fitted.draw(next(iter(made.fitted.shares)), np.random.default_rng(0))
    if made.space == "image":
        assert isinstance(draw, ImageDraw)
    else:
        assert isinstance(draw, LatentDraw)
        assert draw.z.shape == LATENT
        assert draw.z.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_changes_nothing_in_the_sampler(name: str) -> None:
    made = fitted(name)
    label = next(iter(made.fitted.shares))
    first, second = (made.fitted.draw(label, np.random.default_rng(7)) for _ in range(2))
    a, b = ((d.z if isinstance(d, LatentDraw) else d.image) for d in (first, second))
    assert np.array_equal(a, b)
    assert first.parameters == second.parameters


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_of_the_class(name: str) -> None:
    made = fitted(name)
    latents = made.model.latents
    label_of = dict(zip(latents.ids, latents.labels, strict=True))
    samples = [made.sample(index) for index in range(12)]
    assert all(label_of[source] == sample.label for sample in samples for source in sample.sources)
    if name == "prior":
        assert {sample.label for sample in samples} == {None}, "the prior knows no classes and claims none"
    else:
        assert {sample.label for sample in samples} == {"healthy", "ill"}


@pytest.mark.parametrize("name", [one for one in NAMES if one not in ("prior", "classical")])
def test_classes_stay_apart_in_the_code(name: str) -> None:
    """The toy model's classes differ by 3 in the first dimension, where a class has a spread of about 1."""
    made = fitted(name)
    codes: dict[str | None, list[float]] = {"healthy": [], "ill": []}
    for index in range(60):
        sample = made.sample(index)
        assert sample.z is not None
        codes[sample.label].append(float(sample.z[0, 0]))
    assert np.mean(codes["ill"]) - np.mean(codes["healthy"]) == pytest.approx(3, abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_sidecar_is_plain_and_says_how_to_make_it_again(name: str) -> None:
    made = fitted(name)
    sample = made.sample(2)
    record = json.loads(json.dumps(provenance.describe(sample, made), allow_nan=False))
    again = generate.fit(made.model, AugmentSettings.model_validate(record["settings"]), seed=record["seed"])
    assert np.array_equal(again.sample(record["index"]).image, sample.image)
    assert record["sampler"] == name
    assert record["sources"] == list(sample.sources)
    assert record["units"] == "a.u."


@pytest.mark.parametrize("name", NAMES)
def test_label_maps_are_written_or_their_absence_is_explained(name: str) -> None:
    made = fitted(name)
    sample = made.sample(0)
    assert (sample.label_map is None) == bool(provenance.no_label_maps(made))
    if sample.label_map is not None:
        assert set(np.unique(sample.label_map)) <= {0, 1}, "a label map keeps its values"


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="sharpness"):
        generate.fit(toy_model(), AugmentSettings(sampler=name, options={"sharpness": 1}), seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_remembers_nothing(name: str) -> None:
    model = toy_model(n=2, keep=0) if name == "classical" else toy_model(n=1, keep=0)
    if name in ("prior", "jitter"):
        assert generate.fit(model, AugmentSettings(sampler=name), seed=0).sample(0).image.shape == (1, *SHAPE)
        return
    with pytest.raises(ModelError, match="needs at least"):
        generate.fit(model, AugmentSettings(sampler=name), seed=0)


@given(shares=st.lists(st.floats(0.02, 1), min_size=1, max_size=5), count=st.integers(1, 300))
def test_every_prefix_has_nearly_the_wanted_shares(shares: list[float], count: int) -> None:
    weights: dict[str | None, float] = {f"class {i}": share for i, share in enumerate(shares)}
    picked = [generate.pick(weights, index) for index in range(count)]
    for label, share in weights.items():
        wanted = count * share / sum(shares)
        assert abs(picked.count(label) - wanted) <= 2 + np.log(count + 1), "better than random picks, whose error is √n"


def test_balanced_classes() -> None:
    model = toy_model(labels=("healthy", "healthy", "healthy", "ill"))
    for classes, least, most in (("training", 8, 12), ("balanced", 18, 22)):
        settings = AugmentSettings.model_validate({"sampler": "jitter", "classes": classes})
        made = generate.fit(model, settings, seed=0)
        assert least <= sum(made.sample(index).label == "ill" for index in range(40)) <= most
