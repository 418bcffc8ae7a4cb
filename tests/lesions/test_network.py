"""The VAE of lesion crops: its likelihood and KL in nats, a σ per channel, masks without a change."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from medvae.lesions.crops import SIDE
from medvae.lesions.network import CropLikelihood, build
from medvae.vae.base import elbo

SHAPE = (2, 2, SIDE, SIDE, SIDE)


def crops() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_the_elbo_is_in_nats_over_what_counts() -> None:
    net = build((4,), 3, seed=0).eval()
    net.observation.freeze_at(torch.tensor([0.25, 0.04]))
    x, weight = crops(), torch.ones(SHAPE)
    weight[:, 0, :4] = 0
    posterior = net.encode(x)
    likelihood = net.decode(posterior.mean)
    found = elbo(x, weight, posterior=posterior, likelihood=likelihood)
    scales = torch.tensor([0.5, 0.2]).view(1, 2, 1, 1, 1)
    log_p = (Normal(net.render(posterior.mean), scales).log_prob(x) * weight).sum((1, 2, 3, 4))
    assert torch.allclose(found, log_p - posterior.kl().sum(1), rtol=1e-5)


def test_the_optimal_spread_of_a_batch_is_that_of_its_errors() -> None:
    net = build((4,), 3, seed=0)
    noise = crops() * torch.tensor([0.5, 0.1]).view(1, 2, 1, 1, 1)
    likelihood = net.observation.optimal(torch.zeros(SHAPE), noise, torch.ones(SHAPE))
    assert likelihood.log_scale.exp() == pytest.approx([0.5, 0.1], rel=0.05)


def test_a_mask_without_a_change_has_a_code() -> None:
    net = build((4,), 3, seed=0).eval()
    x = crops()
    x[:, 0] = torch.nan
    assert torch.isfinite(net.encode(x).mean).all()


def test_draws_have_the_spread_of_their_channel() -> None:
    likelihood = CropLikelihood(torch.zeros(SHAPE), torch.tensor([0.5, 0.1]).log())
    drawn = likelihood.sample(torch.Generator().manual_seed(1))
    assert drawn.std((0, 2, 3, 4)) == pytest.approx([0.5, 0.1], rel=0.05)


def test_the_weights_follow_from_the_seed() -> None:
    one, other = build((4, 8), 3, seed=1).state_dict(), build((4, 8), 3, seed=1).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
