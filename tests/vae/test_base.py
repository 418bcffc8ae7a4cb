"""Posterior, ELBO, its map and the importance-weighted bound: against torch.distributions and by hand. Law 3."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_model import SHAPE, SIGMA, WEIGHT, Linear
from torch.distributions import Independent, Normal, kl_divergence

from medvae.vae.base import LOG_VARIANCE_RANGE, Posterior, elbo, importance_bound, negative_elbo_map, spread_kl
from medvae.vae.likelihoods.bernoulli import Bernoulli
from medvae.vae.likelihoods.gaussian import Gaussian


def posterior(seed: int, *shape: int) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    return Posterior(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) - 1)


def as_normal(q: Posterior) -> Normal:
    return Normal(q.mean, torch.exp(0.5 * q.log_variance))


def test_kl_and_density_are_those_of_torch() -> None:
    q = posterior(0, 2, 3, 4, 2, 2)
    expected = kl_divergence(as_normal(q), Normal(0.0, 1.0))
    torch.testing.assert_close(q.kl(), expected)
    z = q.sample(torch.randn(q.mean.shape))
    torch.testing.assert_close(q.log_prob(z), Independent(as_normal(q), 4).log_prob(z))


def test_kl_by_hand() -> None:
    q = Posterior(torch.tensor([[2.0]]), torch.tensor([[math.log(4.0)]]))
    assert q.kl().item() == pytest.approx(0.5 * (4 + 4 - 1 - math.log(4)))
    assert Posterior(torch.zeros(1, 1), torch.zeros(1, 1)).kl().item() == 0


def test_samples_have_the_mean_and_spread() -> None:
    q = Posterior(torch.tensor([[3.0]]), torch.tensor([[math.log(0.25)]]))
    drawn = q.sample(torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0)))
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.01)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.01)


def test_a_networks_output_becomes_float32_within_bounds() -> None:
    raw = torch.tensor([[1.0, -2.0, 50.0, -50.0]], dtype=torch.bfloat16)
    q = Posterior.of(raw)
    assert q.mean.dtype == q.log_variance.dtype == torch.float32
    assert q.mean.tolist() == [[1.0, -2.0]]
    assert q.log_variance.tolist() == [[LOG_VARIANCE_RANGE[1], LOG_VARIANCE_RANGE[0]]]


def test_elbo_by_hand() -> None:
    """Two voxels, one of them foreground; one latent unit."""
    x = torch.tensor([1.0, 9.0]).view(1, 1, 2, 1, 1)
    mask = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    likelihood = Gaussian(torch.zeros(1, 1, 2, 1, 1), torch.tensor(math.log(2.0)))
    q = Posterior(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    log_p = -0.5 * 0.25 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert elbo(x, mask, posterior=q, likelihood=likelihood).item() == pytest.approx(log_p - 0.5)


@given(
    seed=st.integers(0, 1000),
    block=st.sampled_from([(1, 1, 1), (2, 2, 2), (3, 2, 4), (4, 4, 4)]),
    share=st.sampled_from([0.002, 0.1, 0.5, 1.0]),
    family=st.sampled_from([Gaussian, Bernoulli]),
)
def test_the_elbo_map_sums_to_the_elbo(seed: int, block: tuple[int, ...], share: float, family: type) -> None:
    latent = (3, 2, 3)
    grid = tuple(n * m for n, m in zip(latent, block, strict=True))
    generator = torch.Generator().manual_seed(seed)
    q = posterior(seed, 2, 4, *latent)
    mask = torch.rand(2, 1, *grid, generator=generator) < share
    mask[:, :, 0, 0, 0] = True
    x = torch.rand(2, 1, *grid, generator=generator)
    output = torch.randn(2, 1, *grid, generator=generator)
    likelihood = Bernoulli(output) if family is Bernoulli else Gaussian(output, torch.tensor(-0.5))
    found = negative_elbo_map(x, mask, posterior=q, likelihood=likelihood)
    bound = elbo(x, mask, posterior=q, likelihood=likelihood)
    torch.testing.assert_close(found.double().flatten(1).sum(1), -bound.double(), rtol=1e-4, atol=1e-4)
    assert (found[~mask] == 0).all()


def test_a_cell_spreads_over_its_foreground_and_an_empty_one_over_the_nearest() -> None:
    kl = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1, 1)
    mask = torch.zeros(1, 1, 6, 2, 2, dtype=torch.bool)
    mask[0, 0, 0, 0, 0] = mask[0, 0, 1, 1, 1] = True  # first cell: two voxels
    mask[0, 0, 4] = True  # last cell: four voxels; the cell between has none and is as near to either
    spread = spread_kl(kl, mask)[0, 0]
    first, last = spread[0, 0, 0].item(), spread[4, 0, 0].item()
    assert spread[1, 1, 1].item() == first
    assert (spread[4] == last).all()
    assert {2 * first, 4 * last} in ({11.0, 100.0}, {1.0, 110.0})


def test_a_flat_latent_spreads_evenly_within_each_scan() -> None:
    kl = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    mask = torch.ones(2, 1, 2, 2, 2, dtype=torch.bool)
    mask[1, :, 1] = False
    spread = spread_kl(kl, mask)
    assert torch.allclose(spread[0], torch.tensor(3 / 8))
    assert torch.allclose(spread[1, 0, 0], torch.tensor(7 / 4))
    assert (spread[1, 0, 1] == 0).all()


# ------------------------------------------------------------------- the bound, where the evidence is known exactly


class Wrong(Linear):
    """The linear model with a posterior that is too wide and off the mark."""

    def encode(self, x: torch.Tensor) -> Posterior:
        exact = super().encode(x)
        return Posterior(exact.mean + 0.02, exact.log_variance + 0.8)


def evidence(vae: Linear, x: torch.Tensor) -> float:
    """ln p(x) of the linear-Gaussian model: along a pattern the variance is σ² + w², elsewhere σ²."""
    along = (x.flatten() @ vae.w.T / WEIGHT).double()
    rest = float((x.double() ** 2).sum() - (along**2).sum())
    wide = SIGMA**2 + WEIGHT**2
    n, k = x.numel(), len(along)
    square = float((along**2).sum()) / wide + rest / SIGMA**2
    return -0.5 * (square + k * math.log(wide) + (n - k) * math.log(SIGMA**2) + n * math.log(2 * math.pi))


def linear_image() -> torch.Tensor:
    rng = np.random.default_rng(5)
    vae = Linear()
    z = torch.from_numpy(rng.normal(size=(1, 3)).astype(np.float32))
    return vae.render(z) + SIGMA * torch.from_numpy(rng.normal(size=(1, 1, *SHAPE)).astype(np.float32))


def test_with_the_exact_posterior_every_draw_gives_the_evidence() -> None:
    vae, x = Linear(), linear_image()
    mask = torch.ones_like(x, dtype=torch.bool)
    bound, size = importance_bound(vae, x, mask, draws=5, generator=torch.Generator().manual_seed(0))
    assert bound == pytest.approx(evidence(vae, x), abs=0.02)
    assert size == pytest.approx(5, rel=1e-3)


def test_the_bound_rises_with_draws_towards_the_evidence_and_says_how_few_count() -> None:
    vae, x = Wrong(), linear_image()
    mask = torch.ones_like(x, dtype=torch.bool)
    means = []
    for draws in (1, 4, 64):
        runs = [
            importance_bound(vae, x, mask, draws=draws, generator=torch.Generator().manual_seed(seed))
            for seed in range(60)
        ]
        means.append(np.mean([bound for bound, _ in runs]))
        assert all(1 - 1e-6 <= size <= draws + 1e-6 for _, size in runs)
        if draws == 64:
            assert np.mean([size for _, size in runs]) < 0.8 * draws, "weights differ, so fewer count"
    truth = evidence(vae, x)
    assert means[0] < means[1] - 0.1 < means[2] < truth + 0.05
    assert means[2] == pytest.approx(truth, abs=0.1)
    exact = Linear().encode(x)
    gap = float(kl_divergence(as_normal(vae.encode(x)), as_normal(exact)).sum())
    assert means[0] == pytest.approx(truth - gap, abs=0.6), "one draw: the ELBO, short of the evidence by KL(q‖p(z|x))"
