"""All that is known of one prepared scan: computed when asked for, draws seeded by its content, a true gradient."""

from __future__ import annotations

from dataclasses import replace

import linear_model
import numpy as np
import pytest
import torch

from medvae.anomaly.inference import infer
from medvae.vae.base import elbo, log_likelihood
from medvae.vae.conditions import Condition, Conditions

MODEL = linear_model.bare_model()


def test_nothing_is_computed_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("encode", "decode"):
        original = getattr(linear_model.Linear, name)
        monkeypatch.setattr(
            linear_model.Linear, name, lambda *a, name=name, original=original: [calls.append(name), original(*a)][1]
        )
    found = infer(MODEL, linear_model.scan(0))
    assert calls == []
    for _ in range(2):
        assert found.residual.shape == (1, *linear_model.SHAPE)
    assert calls == ["encode", "decode"]


def test_reconstruction_and_residual() -> None:
    prepared = linear_model.scan(0)
    found = infer(MODEL, prepared)
    expected = MODEL.vae.decode(found.posterior.mean).mean[0].numpy()
    assert np.array_equal(found.reconstruction, expected)
    assert np.array_equal(found.foreground, prepared.mask[0])
    inside = found.foreground
    assert np.array_equal(found.residual[:, inside], (prepared.image - expected)[:, inside])
    assert (found.residual[:, ~inside] == 0).all()
    assert found.residual.dtype == np.float32
    assert found.kl.shape == inside.shape
    assert found.kl.sum() == pytest.approx(float(found.posterior.kl().sum()), rel=1e-6)


def test_means_over_the_seeded_draws() -> None:
    found = infer(MODEL, linear_model.scan(0), draws=5)
    generator = torch.Generator().manual_seed(found.seed)
    nll, bounds = [], []
    for _ in range(5):
        noise = torch.randn(found.posterior.mean.shape, generator=generator)
        drawn = MODEL.vae.decode(found.posterior.sample(noise))
        nll.append(-(drawn.log_prob(found.image) * found.mask)[0, 0].double().numpy())
        bounds.append(float(elbo(found.image, found.mask, posterior=found.posterior, likelihood=drawn)))
    means = found.draw_means
    np.testing.assert_allclose(means.negative_log_prob, np.mean(nll, axis=0), rtol=1e-4, atol=1e-4)
    assert means.elbo == pytest.approx(np.mean(bounds), rel=1e-6)
    assert means.negative_elbo.sum(dtype=np.float64) == pytest.approx(-means.elbo, rel=1e-4)


def test_draws_depend_on_the_content_and_the_runs_seed_alone() -> None:
    prepared = linear_model.scan(0)
    first = infer(MODEL, prepared)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    again = infer(MODEL, replace(prepared, id="another name"))
    assert np.array_equal(first.draw_means.negative_elbo, again.draw_means.negative_elbo)
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"
    assert infer(MODEL, replace(prepared, source_hash="other")).seed != first.seed
    other = replace(MODEL, settings=MODEL.settings.model_copy(update={"seed": 1}))
    assert infer(other, prepared).seed != first.seed


def test_how_many_draws() -> None:
    prepared = linear_model.scan(0)
    assert infer(MODEL, prepared).draws == MODEL.settings.detect.draws == 4
    assert infer(MODEL, prepared, draws=2).draws == 2


def test_the_gradient_is_that_of_finite_differences_and_leaves_no_trace() -> None:
    found = infer(MODEL, linear_model.scan(0))
    with torch.no_grad():  # as a caller may have it
        slope = found.elbo_gradient
    assert slope.dtype == np.float32
    assert slope.shape == (1, *linear_model.SHAPE)
    assert (slope[:, ~found.foreground] == 0).all()
    assert not found.image.requires_grad

    def value(x: torch.Tensor) -> float:
        posterior = MODEL.vae.encode(x)
        log_p = log_likelihood(x, found.mask, MODEL.vae.decode(posterior.mean)).double().sum()
        return float(log_p - posterior.kl().double().sum())

    for index in ((5, 5, 4), (9, 2, 7)):
        step = torch.zeros_like(found.image)
        step[(0, 0, *index)] = 0.05
        difference = (value(found.image + step) - value(found.image - step)) / 0.1
        assert slope[(0, *index)] == pytest.approx(difference, rel=0.05, abs=0.02)


class AddsAge(linear_model.Linear):
    """A network whose decoder adds a number that it is given."""

    def render(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        assert c is not None
        return super().render(z) + c[:, :1, None, None, None]


def test_conditions_reach_encoder_and_decoder() -> None:
    conditions = Conditions((Condition("age", mean=40, sd=10),))
    model = replace(MODEL, networks={"vae": AddsAge().eval()}, conditions=conditions)
    prepared = linear_model.scan(0)
    at = {
        age: infer(model, replace(prepared, conditions={"age": age})) for age in (40.0, 60.0)
    }  # standardised: 0 and 2
    np.testing.assert_allclose(at[60.0].reconstruction, at[40.0].reconstruction + 2, rtol=1e-5, atol=1e-5)
    reach = np.full_like(prepared.image, 100)
    np.testing.assert_allclose(
        at[60.0].residual_within(-reach, reach), at[60.0].residual, rtol=1e-5, atol=1e-5, err_msg="nothing is clipped"
    )
    means = [at[age].draw_means.negative_log_prob for age in (40.0, 60.0)]
    assert means[1].sum() > means[0].sum()
    assert not np.array_equal(at[40.0].elbo_gradient, at[60.0].elbo_gradient)
