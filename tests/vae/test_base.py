"""Posterior, ELBO and its map: against torch.distributions, in float64 and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvae.vae.base import LOG_VARIANCE_RANGE, VAE, Posterior, elbo, negative_elbo_map, spread_kl
from medvae.vae.likelihoods.bernoulli import Bernoulli
from medvae.vae.likelihoods.gaussian import Gaussian


def posterior(seed: int, *shape: int) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    return Posterior(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) - 1)


def test_the_kl_is_exact_and_not_negative_where_posterior_and_prior_are_near() -> None:
    """½(σ² + μ² − 1 − ln σ²) in float64; in float32 its terms cancel near 0."""
    for scale in (1e-3, 1.0, 6.0):
        unit = posterior(1, 2, 3, 4)
        q = Posterior(scale * unit.mean, scale * unit.log_variance)
        mean, log_variance = q.mean.double(), q.log_variance.double()
        expected = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance)
        torch.testing.assert_close(q.kl().double(), expected, rtol=1e-4, atol=1e-7)
        assert (q.kl() >= 0).all()


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
    q = Posterior.from_parameters(raw)
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


def test_a_network_has_nothing_to_say_of_labels_unless_it_learns_them() -> None:
    assert VAE().label_loss(torch.zeros(1, 2), torch.zeros(1, 1, 2, 2, 2, dtype=torch.int16)) is None
    assert VAE().stride is None
