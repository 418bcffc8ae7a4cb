"""All that is known of one prepared scan: draws seeded by its id, moments over them, gradients that are true."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import linear_model
import numpy as np
import pytest
import torch
from linear_model import SIGMA, UNITS, WEIGHT

from medvae.anomaly.inference import infer
from medvae.vae.base import elbo, log_likelihood

MODEL = linear_model.bare_model()


def test_reconstruction_and_residual() -> None:
    prepared = linear_model.scan(0)
    found = infer(MODEL, prepared)
    expected = MODEL.vae.decode(found.posterior.mean).mean[0, 0].numpy()
    assert np.array_equal(found.reconstruction, expected)
    mask = prepared.mask[0]
    assert np.array_equal(found.residual[mask], (prepared.image[0] - expected)[mask])
    assert (found.residual[~mask] == 0).all()
    assert found.residual.dtype == np.float32
    assert found.kl.shape == (UNITS,)
    assert found.kl.sum() == pytest.approx(float(found.posterior.kl().sum()), rel=1e-6)


def test_moments_are_means_over_the_seeded_draws() -> None:
    found = infer(MODEL, linear_model.scan(0), draws=5)
    generator = torch.Generator().manual_seed(found.seed)
    images, nll, bounds = [], [], []
    for _ in range(5):
        noise = torch.randn(found.posterior.mean.shape, generator=generator)
        drawn = MODEL.vae.decode(found.posterior.sample(noise))
        images.append(drawn.mean[0, 0].double().numpy())
        nll.append(-(drawn.log_prob(found.image) * found.mask)[0, 0].double().numpy())
        bounds.append(float(elbo(found.image, found.mask, posterior=found.posterior, likelihood=drawn)))
    mask = found.prepared.mask[0]
    np.testing.assert_allclose(found.moments.negative_log_prob, np.mean(nll, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.moments.variance, np.var(images, axis=0) * mask, rtol=1e-2, atol=1e-5)
    assert found.moments.elbo == pytest.approx(np.mean(bounds), rel=1e-6)
    assert found.moments.negative_elbo.sum(dtype=np.float64) == pytest.approx(-found.moments.elbo, rel=1e-4)


def test_the_variance_over_many_draws_is_that_of_the_posterior() -> None:
    found = infer(MODEL, linear_model.scan(0, hole=False), draws=300)
    expected = WEIGHT**2 / (1 + WEIGHT**2 / SIGMA**2) * UNITS  # patterns of length w, posterior variance of a unit
    assert found.moments.variance.sum() == pytest.approx(expected, rel=0.2)


def test_draws_depend_on_the_id_and_the_runs_seed_alone() -> None:
    prepared = linear_model.scan(0)
    first = infer(MODEL, prepared)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    again = infer(MODEL, prepared)
    assert np.array_equal(first.moments.negative_elbo, again.moments.negative_elbo)
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"
    assert infer(MODEL, replace(prepared, id="other")).seed != first.seed
    other = replace(MODEL, settings=MODEL.settings.model_copy(update={"seed": 1}))
    assert infer(other, prepared).seed != first.seed


def test_how_many_draws() -> None:
    prepared = linear_model.scan(0)
    assert infer(MODEL, prepared).draws == MODEL.settings.detect.draws == 4
    assert infer(MODEL, prepared, draws=2).draws == 2


@pytest.mark.parametrize("of", ["elbo", "kl", "log_prob"])
def test_gradients_are_those_of_finite_differences(of: Literal["elbo", "kl", "log_prob"]) -> None:
    found = infer(MODEL, linear_model.scan(0))
    slope = found.gradient(of)
    assert slope.dtype == np.float32
    assert (slope[~found.prepared.mask[0]] == 0).all()

    def value(x: torch.Tensor) -> float:
        posterior = MODEL.vae.encode(x)
        kl = posterior.kl().double().sum()
        log_p = log_likelihood(x, found.mask, MODEL.vae.decode(posterior.mean)).double().sum()
        return float({"elbo": log_p - kl, "kl": kl, "log_prob": log_p}[of])

    for index in ((5, 5, 4), (9, 2, 7)):
        step = torch.zeros_like(found.image)
        step[(0, 0, *index)] = 0.05
        difference = (value(found.image + step) - value(found.image - step)) / 0.1
        assert slope[index] == pytest.approx(difference, rel=0.05, abs=0.02)


def test_the_gradient_of_the_elbo_is_the_difference_of_its_parts_and_leaves_no_trace() -> None:
    found = infer(MODEL, linear_model.scan(0))
    with torch.no_grad():  # as a caller may have it
        parts = found.gradient("log_prob") - found.gradient("kl")
        np.testing.assert_allclose(found.gradient("elbo"), parts, rtol=1e-4, atol=1e-4)
    assert not found.image.requires_grad
