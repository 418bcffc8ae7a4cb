"""p(x|z): densities and samples against torch.distributions; the spread that settings ask for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as D

from medvae.errors import SettingsError
from medvae.settings import LikelihoodSettings
from medvae.vae.likelihoods.bernoulli import Bernoulli
from medvae.vae.likelihoods.gaussian import Gaussian
from medvae.vae.likelihoods.laplace import Laplace
from medvae.vae.observation import LOG_SCALE_RANGE, Observation, build_observation

SHAPE = (2, 1, 4, 3, 5)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def observation(family: str = "gaussian", spread: str = "shared") -> Observation:
    return build_observation(LikelihoodSettings.model_validate({"family": family, "spread": spread}))


@pytest.mark.parametrize("by_voxel", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), [(Gaussian, D.Normal), (Laplace, D.Laplace)])
def test_densities_are_those_of_torch(ours: type, theirs: type, *, by_voxel: bool) -> None:
    mean, x = noise(0), noise(1)
    log_scale = 0.3 * noise(2) - 1 if by_voxel else torch.tensor(-0.7)
    torch.testing.assert_close(ours(mean, log_scale).log_prob(x), theirs(mean, log_scale.exp()).log_prob(x))


def test_bernoulli_is_that_of_torch() -> None:
    logits, x = 3 * noise(0), (noise(1) > 0).float()
    torch.testing.assert_close(Bernoulli(logits).log_prob(x), D.Bernoulli(logits=logits).log_prob(x))
    torch.testing.assert_close(Bernoulli(logits).mean, torch.sigmoid(logits))
    assert Bernoulli(torch.tensor([200.0, -200.0])).log_prob(torch.tensor([0.0, 1.0])).tolist() == [-200.0, -200.0]


@pytest.mark.parametrize(
    ("likelihood", "mean", "std"),
    [
        (Gaussian(torch.full((200_000,), 2.0), torch.tensor(math.log(0.5))), 2.0, 0.5),
        (Laplace(torch.full((200_000,), -1.0), torch.tensor(math.log(0.5))), -1.0, 0.5 * math.sqrt(2)),
        (Bernoulli(torch.full((200_000,), math.log(0.2 / 0.8))), 0.2, 0.4),
    ],
)
def test_samples_have_the_moments_and_follow_the_generator(likelihood: Gaussian, mean: float, std: float) -> None:
    first, second = (likelihood.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert first.mean().item() == pytest.approx(mean, abs=0.01)
    assert first.std().item() == pytest.approx(std, abs=0.01)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_a_shared_spread_is_the_analytic_optimum(family: str) -> None:
    output, x = noise(0), 0.4 * noise(1) + noise(0)
    fitted = observation(family).fitted(output, x)
    assert isinstance(fitted, Gaussian | Laplace)
    best = fitted.log_prob(x).sum()
    for change in (-0.05, 0.05):
        other = type(fitted)(fitted.mean, fitted.log_scale + change)
        assert other.log_prob(x).sum() < best
    error = x - output
    spread = error.pow(2).mean().sqrt() if family == "gaussian" else error.abs().mean()
    assert fitted.log_scale.item() == pytest.approx(math.log(spread), abs=1e-5)


def test_the_optimum_carries_the_gradient() -> None:
    """σ-VAE: −ln p at the optimum is N/2 ln MSE + const, so the gradient of a voxel is N (x̂ − x) / Σ(x̂ − x)²."""
    output, x = noise(0).requires_grad_(), noise(1)
    (-observation().fitted(output, x).log_prob(x).sum()).backward()
    error = (output - x).detach()
    assert output.grad is not None
    torch.testing.assert_close(output.grad, error * error.numel() / error.pow(2).sum(), rtol=1e-4, atol=1e-6)


def test_a_spread_never_falls_below_its_floor() -> None:
    x = noise(0)
    fitted = observation().fitted(x.clone(), x)
    assert isinstance(fitted, Gaussian)
    assert fitted.log_scale.item() == LOG_SCALE_RANGE[0]
    assert torch.isfinite(fitted.log_prob(x)).all()


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_freezing_gives_what_fitting_found(family: str) -> None:
    output, x = noise(0), noise(1)
    kind = observation(family)
    fitted = kind.fitted(output, x)
    kind.freeze(float(kind.error(x, output)))
    torch.testing.assert_close(kind(output).log_prob(x), fitted.log_prob(x))
    other = kind(noise(5)).log_scale
    assert other.item() == kind.log_scale.item(), "a frozen spread does not look at the images"


def test_only_a_shared_spread_is_frozen() -> None:
    for family, spread in (("gaussian", "learned"), ("laplace", "voxel"), ("bernoulli", "shared")):
        kind = observation(family, spread)
        kind.freeze(0.1)
        assert not any(value.item() for value in kind.state_dict().values())


def test_a_learned_spread_is_a_parameter_with_a_gradient() -> None:
    kind = observation(spread="learned")
    assert [name for name, _ in kind.named_parameters()] == ["log_scale"]
    assert not list(observation(spread="shared").parameters())
    x = 3 * noise(1)
    (-kind.fitted(torch.zeros(SHAPE), x).log_prob(x).mean()).backward()
    assert kind.log_scale.grad is not None
    assert kind.log_scale.grad.item() == pytest.approx(1 - x.pow(2).mean().item(), rel=1e-4)


def test_a_spread_by_voxel_is_the_second_channel() -> None:
    kind = observation(spread="voxel")
    assert kind.channels == 2
    output = noise(0, 2, 2, 4, 3, 5)
    likelihood = kind(output)
    torch.testing.assert_close(likelihood.mean, output[:, :1])
    torch.testing.assert_close(likelihood.log_scale, output[:, 1:])
    assert observation("bernoulli", "voxel").channels == 1, "a Bernoulli has no spread"


def test_mean_errors_by_hand() -> None:
    x, mean = torch.tensor([1.0, -3.0]), torch.tensor([0.0, 0.0])
    errors = {family: observation(family).error(x, mean).item() for family in ("gaussian", "laplace", "bernoulli")}
    assert errors == {"gaussian": 5, "laplace": 2, "bernoulli": 5}


def test_only_shapes_are_binary() -> None:
    assert [observation(family).binary for family in ("bernoulli", "gaussian", "laplace")] == [True, False, False]


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_a_spread_by_voxel_is_weighted_by_itself(family: str) -> None:
    """β-NLL: each voxel's ln p times its scale over the mean scale, through which no gradient flows."""
    kind, output, x = observation(family, "voxel"), noise(0, 2, 2, 4, 3, 5).requires_grad_(), noise(1)
    likelihood = kind(output)
    log_p = likelihood.log_prob(x)
    scale = output[:, 1:].detach().exp()
    torch.testing.assert_close(kind.weighted(log_p, likelihood), log_p * scale / scale.mean())
    shared = observation(family)
    assert shared.weighted(log_p, shared(output[:, :1])) is log_p


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    with pytest.raises(SettingsError, match="'gausian'") as caught:
        build_observation(LikelihoodSettings(family="gausian"))
    assert "did you mean 'gaussian'" in str(caught.value.hint)
    with pytest.raises(SettingsError, match="unknown setting 'nu' in"):
        build_observation(LikelihoodSettings(family="laplace", options={"nu": 3}))
