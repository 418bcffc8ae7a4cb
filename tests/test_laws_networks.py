"""Laws that every network keeps, whatever its likelihood: ELBO in nats, independence, determinism, memory layout."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn

from medvae import plugins
from medvae.checkpoint.model import build_vae, weights_hash
from medvae.errors import SettingsError
from medvae.settings import Settings
from medvae.training.losses import Objective
from medvae.vae.base import elbo, negative_elbo_map

if TYPE_CHECKING:
    from medvae.vae.base import VAE

GRID = (32, 16, 32)
KINDS = [("gaussian", "shared"), ("gaussian", "voxel"), ("laplace", "learned"), ("bernoulli", "shared")]
MODELS = plugins.names("networks")
STEPS = {"flat": 16, "spatial": 8}  # what the default networks need a grid to be a multiple of

every_model = pytest.mark.parametrize("name", MODELS)
every_kind = pytest.mark.parametrize("kind", KINDS, ids="-".join)


@cache
def network(name: str, kind: tuple[str, str] = KINDS[0], seed: int = 0) -> nn.Module:
    family, spread = kind
    likelihood = {"family": family, "spread": spread}
    tree = {"prepare": {"shape": GRID}, "model": {"name": name}, "likelihood": likelihood, "seed": seed}
    return cast("nn.Module", build_vae(Settings.model_validate(tree)))


def vae(name: str, kind: tuple[str, str] = KINDS[0]) -> VAE:
    return cast("VAE", network(name, kind))


def images(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, *GRID, generator=generator)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in GRID], indexing="ij")
    mask = sum(axis**2 for axis in axes) < 0.7
    mask = mask.expand(count, 1, *GRID).clone()
    return torch.where(mask, x, 0.0), mask


@every_model
@every_kind
def test_shapes_and_types(name: str, kind: tuple[str, str]) -> None:
    net, (x, mask) = vae(name, kind), images()
    with torch.no_grad():
        q = net.encode(x)
        output = net.render(q.mean)
        likelihood = net.decode(q.mean)
    assert q.mean.shape == q.log_variance.shape == (2, *net.latent_shape(GRID))
    assert output.shape == (2, net.observation.channels, *GRID)
    assert likelihood.mean.shape == likelihood.log_prob(x).shape == x.shape
    assert likelihood.sample(torch.Generator().manual_seed(0)).shape == x.shape
    if net.stride is not None:
        assert q.mean.shape[2:] == tuple(n // net.stride for n in GRID)
    bound = elbo(x, mask, posterior=q, likelihood=likelihood)
    found = negative_elbo_map(x, mask, posterior=q, likelihood=likelihood)
    torch.testing.assert_close(found.flatten(1).sum(1), -bound, rtol=1e-4, atol=1e-3)


@every_model
@every_kind
def test_the_loss_is_the_negative_elbo_and_reaches_every_weight(name: str, kind: tuple[str, str]) -> None:
    net, (x, mask) = network(name, kind), images()
    protocol = vae(name, kind)
    noise = torch.randn(2, *protocol.latent_shape(GRID), generator=torch.Generator().manual_seed(2))
    net.zero_grad(set_to_none=True)
    with torch.random.fork_rng():  # a convolution that starts at zero hides what lies before it
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    terms = Objective(protocol, free_bits=0.0)(inputs=x, image=x, mask=mask, noise=noise, beta=1.0, fit_spread=False)
    q = protocol.encode(x)
    bound = elbo(x, mask, posterior=q, likelihood=protocol.decode(q.sample(noise)))
    assert terms.loss.item() == pytest.approx(-bound.sum().item() / mask.sum().item(), rel=1e-5)
    assert (terms.reconstruction + terms.kl).item() == pytest.approx(-bound.mean().item(), rel=1e-5)
    terms.loss.backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@every_model
def test_a_scan_does_not_depend_on_its_batch(name: str) -> None:
    net, (x, _) = vae(name), images(3)
    with torch.no_grad():
        together, alone = net.encode(x), net.encode(x[1:2])
        torch.testing.assert_close(together.mean[1:2], alone.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.log_variance[1:2], alone.log_variance, rtol=1e-4, atol=1e-5)
        decoded = net.decode(together.mean).mean[1:2]
        torch.testing.assert_close(decoded, net.decode(alone.mean).mean, rtol=1e-4, atol=1e-5)


@every_model
def test_the_seed_alone_gives_the_weights(name: str) -> None:
    torch.manual_seed(99)
    first = weights_hash(network.__wrapped__(name))
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    assert weights_hash(network.__wrapped__(name)) == first
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"
    assert weights_hash(network.__wrapped__(name, seed=1)) != first


@every_model
def test_nats_are_float32_under_autocast(name: str) -> None:
    net, (x, mask) = vae(name), images()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        q = net.encode(x)
        likelihood = net.decode(q.mean)
        values = [q.kl(), likelihood.log_prob(x), likelihood.mean]
        values += [elbo(x, mask, posterior=q, likelihood=likelihood)]
        values += [negative_elbo_map(x, mask, posterior=q, likelihood=likelihood)]
    assert {value.dtype for value in values} == {torch.float32}


@every_model
def test_a_grid_that_does_not_fit_is_refused_with_the_step_it_needs(name: str) -> None:
    tree = {"prepare": {"shape": (30, 32, 32)}, "model": {"name": name}}
    with pytest.raises(SettingsError, match=rf"30x32x32 is not divisible by .*{STEPS[name]}"):
        build_vae(Settings.model_validate(tree))


@every_model
def test_an_unknown_option_is_refused(name: str) -> None:
    tree = {"prepare": {"shape": GRID}, "model": {"name": name, "options": {"latnet": 4}}}
    with pytest.raises(SettingsError, match="latnet"):
        build_vae(Settings.model_validate(tree))


@every_model
def test_nothing_wide_at_full_resolution_and_channels_last_everywhere(name: str) -> None:
    """What makes a step fast: one layer in the default layout costs ten times its time, without a word."""
    protocol, (x, _) = vae(name), images()
    net = cast("nn.Module", protocol)
    seen: list[str] = []

    def look(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        (given,) = inputs
        seen.append(type(module).__name__)
        for tensor in (given, output):
            if tensor.shape[1] > 16:  # of the latent there are a few values only, in whatever order
                assert tensor.is_contiguous(memory_format=torch.channels_last_3d), module
            assert tensor.shape[1] <= 2 or tensor.shape[2] < GRID[0], module

    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.GroupNorm)
    hooks = [module.register_forward_hook(look) for module in net.modules() if isinstance(module, kinds)]
    try:
        protocol.render(protocol.encode(x).mean)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(hooks) > 10
    for key, parameter in net.named_parameters():
        if parameter.ndim == 5:
            assert parameter.is_contiguous(memory_format=torch.channels_last_3d), key


def test_the_spatial_model_takes_any_grid_and_the_flat_one_only_its_own() -> None:
    other = torch.zeros(1, 1, 16, 16, 48)
    assert vae("spatial").encode(other).mean.shape[2:] == (2, 2, 6)
    with pytest.raises(SettingsError, match="built for the grid"):
        vae("flat").encode(other)


def test_folding_space_and_back_changes_nothing() -> None:
    from medvae.vae.networks._blocks import fold, unfold

    x = torch.arange(2 * 3 * 8 * 4 * 12.0).view(2, 3, 8, 4, 12)
    folded = fold(x, 4)
    assert folded.shape == (2, 192, 2, 1, 3)
    assert torch.equal(unfold(folded, 4), x)
    assert torch.equal(folded[0, :64, 0, 0, 0], x[0, 0, :4, :4, :4].flatten()), "a cell holds its own voxels"
