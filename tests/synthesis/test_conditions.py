"""Conditions of synthetic scans: drawn with the class or fixed, decoded with, written into every list."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_model import NOISE, toy_model

from medvae import synthesize
from medvae.errors import SettingsError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, outline
from medvae.synthesis.decoding import decode

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Synthesizer

KNOWN = ("age", "sex")


def conditional(**more: Any) -> Model:
    return toy_model(conditions=KNOWN, **more)


def fit(model: Model, **augment: Any) -> Synthesizer:
    return generate.fit(model, AugmentSettings.model_validate(augment), seed=0)


def test_a_sample_is_decoded_with_its_conditions() -> None:
    model = conditional()
    sample = fit(model, conditions={"age": 60, "sex": "F"}).sample(0)
    assert sample.z is not None
    wanted = decode(model, sample.z, {"age": 60.0, "sex": "F"})
    assert sample.image[sample.mask] == pytest.approx(np.clip(wanted, -10, 10)[sample.mask])


def test_a_value_fixed_to_none_is_missing() -> None:
    sample = fit(conditional(), conditions={"age": None}).sample(0)
    assert set(sample.conditions) == {"sex"}


def test_a_value_that_the_source_lacks_is_missing() -> None:
    """The last training scan has no age."""
    synthesizer = fit(conditional(n=3), sampler="jitter")
    samples = [synthesizer.sample(index) for index in range(12)]
    known = {sample.sources[0]: "age" in sample.conditions for sample in samples}
    assert known == {"scan-00": True, "scan-01": True, "scan-02": False}


def test_a_training_value_that_is_no_number_is_missing() -> None:
    model = conditional(n=2)
    people = [{"age": float("nan"), "sex": "F"}, {"age": 30.0, "sex": "F"}]
    model = replace(model, latents=replace(model.latents, conditions=people))
    found = [fit(model, sampler="jitter").sample(index).conditions for index in range(8)]
    assert {"sex": "F"} in found
    json.dumps(found, allow_nan=False)


def test_interpolation_has_the_conditions_of_the_nearer_scan() -> None:
    model = conditional()
    of = dict(zip(model.latents.ids, model.latents.conditions, strict=True))
    for sample in map(fit(model, sampler="interpolate").sample, range(12)):
        nearer = sample.sources[0 if sample.parameters["t"] < 0.5 else 1]
        assert sample.conditions == of[nearer]


def test_only_conditions_of_the_model_are_carried() -> None:
    """The training scans have age and sex; the model is given age alone."""
    assert set(fit(toy_model(conditions=("age",)), sampler="jitter").sample(0).conditions) == {"age"}
    assert fit(toy_model(), sampler="jitter").sample(0).conditions == {}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"agee": 70}, "the model has no condition 'agee'"),
        ({"age": "old"}, "'age' is 'old' (augment.conditions), the model was trained with numbers"),
        ({"sex": "X"}, "'sex' is 'X' (augment.conditions), the model was trained with F, M"),
    ],
)
def test_a_wrong_condition_is_refused_at_once(fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        fit(conditional(), conditions=fixed)


def test_the_outline_depends_on_conditions_too() -> None:
    """Balls whose size goes with the one condition alone, behind codes of many more dimensions."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 20)] * 3, indexing="ij"))
    age = rng.normal(size=(30, 1)).astype(np.float32)
    codes = rng.normal(size=(30, 64)).astype(np.float32)
    masks = np.stack([[np.square(grid).sum(axis=0) < (0.6 + 0.1 * a) ** 2] for a in age[:, 0]])
    fitted = outline.fit(codes, masks, age)
    z = np.zeros(64, np.float32)
    small, large = (fitted.mask(z, np.array([a], np.float32)).mean() for a in (-1.5, 1.5))
    assert large > 2 * small
    same = outline.fit(codes, masks, age[:, :0])
    assert same.weight == 0
    assert same.mask(z, age[0, :0]).any()


def test_the_sidecar_and_the_result_record_them() -> None:
    sample = next(synthesize(conditional(), 1, conditions={"age": 70}))
    assert json.loads(json.dumps(sample.record))["conditions"] == sample.conditions
    assert sample.record["settings"]["conditions"] == {"age": 70.0}
    assert sample.conditions["age"] == 70.0
    assert sample.result().scores["condition age"] == 70.0


def test_the_screen_decodes_copies_with_their_own_conditions() -> None:
    """Reconstructions of the training scans: with conditions of others they would be far from them."""
    model = conditional()
    synthesizer = fit(model)
    copies = synthesizer.copies()
    assert copies is not None
    for image, copy, mask in zip(model.training.images, copies, model.training.masks, strict=True):
        assert np.abs(image.astype(np.float32) - copy)[mask].mean() < 0.6


def test_outline_and_texture_are_those_of_the_conditions() -> None:
    model = conditional()
    synthesizer = fit(model, texture=True, conditions={"age": 90})
    sample = synthesizer.sample(0)
    assert synthesizer.outline is not None
    assert sample.z is not None
    assert np.array_equal(sample.mask, synthesizer.outline.mask(sample.z, model.conditions.vector(sample.conditions)))
    assert synthesizer.texture is not None
    assert synthesizer.texture.spread.mean() == pytest.approx(NOISE, rel=0.2), "what the decoder cannot know, no more"
