"""Laws that every network keeps, whatever its likelihood: ELBO in nats, conditions, independence, determinism.

They loop over what is installed. A network of another package is put through all of them at the end.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import outside_package
import pytest
import torch
from torch import nn

from medvae import plugins
from medvae.checkpoint.model import build_vae, weights_hash
from medvae.errors import SettingsError
from medvae.settings import Settings
from medvae.training.losses import Objective
from medvae.vae.base import VAE, elbo, negative_elbo_map
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GRID = (32, 16, 32)
KINDS = [(family, spread) for family in plugins.names("likelihoods") for spread in ("shared", "voxel")]
CONDITIONS = Conditions.fit(["age", "sex"], [{"age": 20.0, "sex": "F"}, {"age": 60.0, "sex": "M"}])
LAWS: list[tuple[Callable[..., None], bool]] = []  # and whether they are about a likelihood, too


def law(test: Callable[..., None]) -> Any:
    """A test of every network."""
    LAWS.append((test, False))
    return pytest.mark.parametrize("name", plugins.names("networks"))(test)


def law_for_every_likelihood(test: Callable[..., None]) -> Any:
    """A test of every network with every likelihood."""
    LAWS.append((test, True))
    every_kind = pytest.mark.parametrize("kind", KINDS, ids="-".join)
    return pytest.mark.parametrize("name", plugins.names("networks"))(every_kind(test))


@cache
def network(name: str, kind: tuple[str, str] = KINDS[0], *, seed: int = 0, conditions: bool = False) -> VAE:
    family, spread = kind
    likelihood = {"family": family, "spread": spread}
    tree = {"prepare": {"shape": GRID}, "model": {"name": name}, "likelihood": likelihood, "seed": seed}
    return build_vae(Settings.model_validate(tree), CONDITIONS if conditions else None)


def perturbed(net: VAE) -> VAE:
    """The network with all weights moved: one that starts at zero hides what lies before it."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return net


def images(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, *GRID, generator=generator)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in GRID], indexing="ij")
    mask = sum(axis**2 for axis in axes) < 0.7
    mask = mask.expand(count, 1, *GRID).clone()
    return torch.where(mask, x, 0.0), mask


def vectors() -> torch.Tensor:
    """Conditions of two scans."""
    return torch.stack([torch.from_numpy(CONDITIONS.vector(one)) for one in ({"age": 30.0, "sex": "F"}, {})])


def has_gradients(net: VAE) -> None:
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@law_for_every_likelihood
def test_shapes_and_types(name: str, kind: tuple[str, str]) -> None:
    net, (x, mask) = network(name, kind), images()
    with torch.no_grad():
        q = net.encode(x)
        output = net.render(q.mean)
        likelihood = net.decode(q.mean)
    assert q.mean.shape == q.log_variance.shape == (2, *net.latent_shape(GRID))
    assert output.shape == (2, net.observation.channels, *GRID)
    assert likelihood.mean.shape == likelihood.log_prob(x).shape == x.shape
    assert likelihood.sample(torch.Generator().manual_seed(0)).shape == x.shape
    if net.stride is None:
        assert q.mean.ndim == 2
    else:
        assert q.mean.shape[2:] == tuple(n // net.stride for n in GRID)
    bound = elbo(x, mask, posterior=q, likelihood=likelihood)
    found = negative_elbo_map(x, mask, posterior=q, likelihood=likelihood)
    torch.testing.assert_close(found.flatten(1).sum(1), -bound, rtol=1e-4, atol=1e-3)


@law_for_every_likelihood
def test_the_loss_is_the_negative_elbo_and_reaches_every_weight(name: str, kind: tuple[str, str]) -> None:
    net, (x, mask) = perturbed(network.__wrapped__(name, kind)), images()
    noise = torch.randn(2, *net.latent_shape(GRID), generator=torch.Generator().manual_seed(2))
    terms = Objective(net, free_bits=0.0)(inputs=x, image=x, mask=mask, noise=noise, beta=1.0, fit_spread=False)
    q = net.encode(x)
    bound = elbo(x, mask, posterior=q, likelihood=net.decode(q.sample(noise)))
    assert terms.loss.item() == pytest.approx(-bound.sum().item() / mask.sum().item(), rel=1e-5)
    assert (terms.reconstruction + terms.kl).item() == pytest.approx(-bound.mean().item(), rel=1e-5)
    terms.loss.backward()
    has_gradients(net)


@law
def test_conditions_reach_posterior_and_decoder_and_all_their_weights_learn(name: str) -> None:
    net, (x, mask), c = perturbed(network.__wrapped__(name, conditions=True)), images(), vectors()
    noise = torch.zeros(2, *net.latent_shape(GRID))
    terms = Objective(net, free_bits=0.0)(inputs=x, image=x, mask=mask, noise=noise, beta=1.0, fit_spread=True, c=c)
    terms.loss.backward()
    has_gradients(net)
    with torch.no_grad():
        z = torch.zeros(2, *net.latent_shape(GRID))
        assert not torch.allclose(net.render(z, c), net.render(z, c.flip(0)))
        assert not torch.allclose(net.encode(x, c).mean, net.encode(x, c.flip(0)).mean)


@law
def test_without_conditions_a_network_is_the_one_it_always_was(name: str) -> None:
    """The weights that both have begin with the same values, unless a network widens a layer for its conditions."""
    plain, conditioned = network(name).state_dict(), network(name, conditions=True).state_dict()
    assert plain.keys() <= conditioned.keys()
    same = [torch.equal(plain[key], conditioned[key]) for key in plain if plain[key].shape == conditioned[key].shape]
    assert all(same) or "medvae" not in type(network(name)).__module__
    assert sum(p.numel() for p in conditioned.values()) > sum(p.numel() for p in plain.values())


@law
def test_a_scan_does_not_depend_on_its_batch(name: str) -> None:
    net, (x, _) = network(name), images(3)
    with torch.no_grad():
        together, alone = net.encode(x), net.encode(x[1:2])
        torch.testing.assert_close(together.mean[1:2], alone.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.log_variance[1:2], alone.log_variance, rtol=1e-4, atol=1e-5)
        decoded = net.decode(together.mean).mean[1:2]
        torch.testing.assert_close(decoded, net.decode(alone.mean).mean, rtol=1e-4, atol=1e-5)


@law
def test_the_seed_alone_gives_the_weights(name: str) -> None:
    def digest(seed: int = 0) -> str:
        return weights_hash({"vae": network.__wrapped__(name, seed=seed)})

    torch.manual_seed(99)
    first = digest()
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    assert digest() == first
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"
    assert digest(seed=1) != first


@law
def test_nats_are_float32_under_autocast(name: str) -> None:
    net, (x, mask) = network(name), images()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        q = net.encode(x)
        likelihood = net.decode(q.mean)
        values = [q.kl(), likelihood.log_prob(x), likelihood.mean]
        values += [elbo(x, mask, posterior=q, likelihood=likelihood)]
        values += [negative_elbo_map(x, mask, posterior=q, likelihood=likelihood)]
    assert {value.dtype for value in values} == {torch.float32}


@law
def test_any_grid_works_or_is_refused_by_its_size(name: str) -> None:
    grid = (13, 11, 17)
    net = None
    with suppress(SettingsError):
        net = build_vae(Settings.model_validate({"prepare": {"shape": grid}, "model": {"name": name}}))
    if net is not None:
        assert net.decode(net.encode(torch.zeros(1, 1, *grid)).mean).mean.shape == (1, 1, *grid)
        return
    with pytest.raises(SettingsError, match="13x11x17") as caught:
        build_vae(Settings.model_validate({"prepare": {"shape": grid}, "model": {"name": name}}))
    assert "prepare.shape" in str(caught.value.hint)


@law
def test_an_unknown_option_is_refused(name: str) -> None:
    tree = {"prepare": {"shape": GRID}, "model": {"name": name, "options": {"latnet": 4}}}
    with pytest.raises(SettingsError, match="latnet"):
        build_vae(Settings.model_validate(tree))


# ------------------------------------------------------------------------------------------------- our own networks


@pytest.mark.parametrize("conditions", [False, True])
@pytest.mark.parametrize("name", ["flat", "spatial"])
def test_nothing_wide_at_full_resolution_and_channels_last_everywhere(name: str, *, conditions: bool) -> None:
    """What makes a step fast: one layer in the default layout costs ten times its time, without a word."""
    net, (x, _), c = network(name, conditions=conditions), images(), vectors() if conditions else None
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
        net.render(net.encode(x, c).mean, c)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(hooks) > 10
    for key, parameter in net.named_parameters():
        if parameter.ndim == 5:
            assert parameter.is_contiguous(memory_format=torch.channels_last_3d), key


@pytest.mark.parametrize("name", ["flat", "spatial"])
def test_conditions_that_are_missing_or_too_many_are_an_error(name: str) -> None:
    x, _ = images()
    with pytest.raises(ValueError, match="needs conditions"):
        network(name, conditions=True).encode(x)
    with pytest.raises(ValueError, match="takes no conditions"):
        network(name).render(torch.zeros(2, *network(name).latent_shape(GRID)), vectors())


def test_the_spatial_network_takes_any_grid_and_the_flat_one_only_its_own() -> None:
    other = torch.zeros(1, 1, 16, 16, 48)
    assert network("spatial").encode(other).mean.shape[2:] == (2, 2, 6)
    with pytest.raises(SettingsError, match="built for the grid"):
        network("flat").encode(other)


def test_folding_space_and_back_changes_nothing() -> None:
    from medvae.vae.blocks import fold, unfold

    x = torch.arange(2 * 3 * 8 * 4 * 12.0).view(2, 3, 8, 4, 12)
    folded = fold(x, 4)
    assert folded.shape == (2, 192, 2, 1, 3)
    assert torch.equal(unfold(folded, 4), x)
    assert torch.equal(folded[0, :64, 0, 0, 0], x[0, 0, :4, :4, :4].flatten()), "a cell holds its own voxels"


# ------------------------------------------------------------------------------------- a network of another package


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    sources = {"networks": {"minimal": outside_package.NETWORK}, "likelihoods": {"student": outside_package.LIKELIHOOD}}
    yield from outside_package.install(tmp_path, sources, patch=monkeypatch)
    network.cache_clear()


@pytest.mark.usefixtures("outside")
def test_a_network_of_another_package_is_found_and_keeps_all_laws() -> None:
    assert "minimal" in plugins.names("networks")
    for test, with_likelihoods in LAWS:
        for kind in [(("student", "shared"),), (("gaussian", "voxel"),)] if with_likelihoods else [()]:
            test("minimal", *kind)
