"""Random streams of a sample, spelt out: they may never change, or old seeds would give other scans."""

from __future__ import annotations

import numpy as np
import pytest
from toy_model import toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.decoding import decode
from medvae.synthesis.draws import LatentDraw

SEED, INDEX = 5, 3


def stream(number: int, index: int = INDEX) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(index, number)))


@pytest.mark.parametrize("conditions", [(), ("age", "sex")])
def test_a_sample_in_plain_steps(conditions: tuple[str, ...]) -> None:
    model = toy_model(labels=("a", "b"), conditions=conditions)
    synthesizer = generate.fit(model, AugmentSettings(texture=True), seed=SEED)
    sample = synthesizer.sample(INDEX)
    draw = synthesizer.fitted.draw(sample.label, stream(0), {}, 0.0)
    assert isinstance(draw, LatentDraw)
    assert sample.z is not None
    assert np.array_equal(sample.z, draw.z)
    if conditions:
        rows = [row for row, label in enumerate(model.latents.labels) if label == sample.label]
        assert sample.conditions == model.latents.conditions[int(stream(4).choice(rows))]
    decoded = decode(model, draw.z, sample.conditions)
    assert synthesizer.texture is not None
    noise = synthesizer.texture.draw(decoded, sample.mask, stream(1))
    assert np.array_equal(sample.image, np.where(sample.mask, np.clip(decoded + noise, -10, 10), np.float32(0)))
    kept = [one for one, label in zip(model.latents.ids, model.latents.labels, strict=True) if label == sample.label]
    assert sample.intensity_from == str(stream(2).choice(kept))
    assert sample.intensity == model.training.intensities[list(model.training.ids).index(sample.intensity_from)]


def test_copies_are_draws_of_the_posteriors_in_plain_steps() -> None:
    model = toy_model(n=3)
    copies = generate.fit(model, AugmentSettings(), seed=SEED).copies()
    assert copies is not None
    for row, copy in enumerate(copies):
        latents, mask = model.latents, model.training.masks[row]
        noise = stream(3, row).standard_normal(latents.mean[row].shape, dtype=np.float32)
        z = latents.mean[row] + np.exp(0.5 * latents.log_variance[row]) * noise
        assert np.array_equal(copy, np.where(mask, np.clip(decode(model, z, {}), -10, 10), np.float32(0)))
