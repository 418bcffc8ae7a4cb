"""Samplers that start from single training scans: jitter, interpolate, classical."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_model import toy_model

from medvae.errors import ModelError
from medvae.settings import AugmentSettings, RandomizeSettings, TrainSettings
from medvae.synthesis import generate
from medvae.synthesis.samplers import classical, interpolate, jitter

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample

STILL = RandomizeSettings(spatial=0, gamma=0, bias=0, blur=0, noise=0)


def with_subjects(model: Model, subjects: list[str]) -> Model:
    return replace(model, latents=replace(model.latents, subjects=subjects))


def test_jitter_without_scale_is_the_posterior_mean_of_its_source() -> None:
    model = toy_model()
    draw = jitter.fit(model, jitter.Settings(scale=0)).draw(None, np.random.default_rng(0), {}, 0)
    row = list(model.latents.ids).index(draw.sources[0])
    assert np.array_equal(draw.z, model.latents.mean[row])


def test_jitter_has_the_posterior_spread() -> None:
    model = toy_model(n=1)
    fitted = jitter.fit(model, jitter.Settings(scale=2))
    rng = np.random.default_rng(0)
    codes = np.stack([fitted.draw(None, rng, {}, 0).z for _ in range(4000)])
    assert codes.std(axis=0) == pytest.approx(2 * np.exp(model.latents.log_variance[0] / 2), rel=0.1)


def test_interpolation_lies_on_the_line_of_its_sources() -> None:
    model = toy_model()
    fitted = interpolate.fit(model, interpolate.Settings(keep_variance=False))
    draw = fitted.draw(None, np.random.default_rng(0), {}, 0)
    a, b = (model.latents.mean[list(model.latents.ids).index(one)] for one in draw.sources)
    t = draw.parameters["t"]
    assert draw.z == pytest.approx((1 - t) * a + t * b, abs=1e-5)


@pytest.mark.parametrize(("keep", "reach", "share"), [(True, 0.25, 1.0), (True, 0.0, 1.0), (False, 0.0, 2 / 3)])
def test_interpolation_keeps_the_variance_of_codes(*, keep: bool, reach: float, share: float) -> None:
    """The mean of (1−t)² + t² over t in 0..1 is 2/3: that much of the variance is left without the correction."""
    model = toy_model(n=200, keep=0)
    fitted = interpolate.fit(model, interpolate.Settings(keep_variance=keep, reach=reach))
    rng = np.random.default_rng(0)
    codes = np.stack([fitted.draw(None, rng, {}, i / 4000).z for i in range(4000)])
    assert codes.var(axis=0).mean() / model.latents.mean.var(axis=0).mean() == pytest.approx(share, abs=0.07)


def test_interpolation_never_pairs_scans_of_one_subject() -> None:
    model = toy_model(n=4, keep=0)
    model = with_subjects(model, ["a", "a", "a", "b"])
    fitted = interpolate.fit(model, interpolate.Settings())
    rng = np.random.default_rng(0)
    for i in range(30):
        assert "scan-03" in fitted.draw(None, rng, {}, i / 30).sources


def test_interpolation_needs_two_subjects_in_each_class() -> None:
    model = with_subjects(toy_model(n=4, labels=("x", "y"), keep=0), ["a", "b", "a", "c"])
    with pytest.raises(ModelError, match="2 subjects of class 'x', the model holds 1"):
        interpolate.fit(model, interpolate.Settings())


def classical_sample(model: Model, changes: RandomizeSettings, index: int = 0) -> Sample:
    options = {"randomize": changes.model_dump()}
    return generate.fit(model, AugmentSettings(sampler="classical", options=options), seed=0).sample(index)


def test_classical_without_changes_is_the_training_scan() -> None:
    model = toy_model(label_maps=True)
    sample = classical_sample(model, STILL)
    row = list(model.training.ids).index(sample.sources[0])
    assert sample.image == pytest.approx(model.training.images[row].astype(np.float32), abs=1e-5)
    assert np.array_equal(sample.mask, model.training.masks[row])
    assert model.training.label_maps is not None
    assert sample.label_map is not None
    assert np.array_equal(sample.label_map, model.training.label_maps[row])


def test_classical_moves_image_and_label_map_together() -> None:
    """Label maps of the toy model are where the image is above 0: after a warp without other changes they still are."""
    warp = STILL.model_copy(update={"spatial": 1.0, "elastic": 0.0})
    model = toy_model(label_maps=True, prepare={"spacing": (2, 2, 2)})
    for index in range(5):
        sample = classical_sample(model, warp, index)
        assert sample.label_map is not None
        certain = sample.mask & (np.abs(sample.image) > 0.7)
        assert ((sample.image > 0) == (sample.label_map > 0))[certain].mean() > 0.9
        assert sample.parameters["inverse"] is not None, "what was drawn is recorded"


@pytest.mark.parametrize(("probability", "warped"), [(0.8, 1.0), (0.0, 0.0)])
def test_classical_takes_the_changes_of_the_training_run_and_always_warps(probability: float, warped: float) -> None:
    model = toy_model()
    training = RandomizeSettings(spatial=probability, rotate=7.0, gamma=0.4)
    settings = model.settings.model_copy(update={"train": TrainSettings(randomize=training)})
    changes = classical.fit(replace(model, settings=settings), classical.Settings()).randomize
    assert changes == training.model_copy(update={"spatial": warped})


def test_classical_takes_given_changes_as_they_are() -> None:
    given = RandomizeSettings(spatial=0.3)
    assert classical.fit(toy_model(), classical.Settings(randomize=given)).randomize == given
