"""Laws that every family of likelihood keeps: a density that integrates to 1, samples that follow it, a best spread.

They loop over what is installed. A family of another package is put through all of them at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import outside_package
import pytest
import torch

from medvae import plugins
from medvae.settings import LikelihoodSettings
from medvae.vae.observation import Observation, build_observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SPREADS = ("shared", "learned", "voxel")
SHAPE = (2, 3, 4, 5)
LAWS: list[Callable[..., None]] = []


def law(test: Callable[..., None]) -> Any:
    """A test of every family with every spread."""
    LAWS.append(test)
    every_spread = pytest.mark.parametrize("spread", SPREADS)
    return pytest.mark.parametrize("family", plugins.names("likelihoods"))(every_spread(test))


def observation(family: str, spread: str) -> Observation:
    return build_observation(LikelihoodSettings.model_validate({"family": family, "spread": spread}))


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def output_of(kind: Observation, *, seed: int = 0) -> torch.Tensor:
    return 0.5 * noise(seed, 2, kind.channels, *SHAPE[1:])


def image(kind: Observation, *, seed: int = 1) -> torch.Tensor:
    x = noise(seed, 2, 1, *SHAPE[1:])
    return (x > 0).float() if kind.binary else x


@law
def test_shapes_types_and_finite_values(family: str, spread: str) -> None:
    kind = observation(family, spread)
    output, x = output_of(kind).bfloat16(), image(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for likelihood in (kind(output), kind.fitted(output, x)):
            log_p = likelihood.log_prob(x)
            assert log_p.shape == likelihood.mean.shape == x.shape
            assert log_p.dtype == torch.float32, "nats whatever the autocast"
            assert torch.isfinite(log_p).all()
            assert kind.weighted(log_p, likelihood).shape == x.shape
        assert kind.error(x, likelihood.mean).ndim == 0


@law
def test_the_density_integrates_to_one(family: str, spread: str) -> None:
    kind = observation(family, spread)
    likelihood = kind(output_of(kind)[:, :, :1, :1, :1])
    if kind.binary:
        total = sum(likelihood.log_prob(torch.full((2, 1, 1, 1, 1), value)).exp() for value in (0.0, 1.0))
        torch.testing.assert_close(total, torch.ones_like(total))
        return
    x = torch.linspace(-300, 300, 60001, dtype=torch.float64)
    for scan in range(2):
        density = likelihood.log_prob(x.view(1, 1, -1, 1, 1))[scan].flatten().exp()
        assert torch.trapezoid(density.double(), x).item() == pytest.approx(1, abs=2e-3)


@law
def test_samples_have_the_mean_and_follow_the_generator(family: str, spread: str) -> None:
    kind = observation(family, spread)
    likelihood = kind(output_of(kind)[:1, :, :1, :1, :1].expand(-1, -1, 40, 40, 40))
    first, second = (likelihood.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert first.mean().item() == pytest.approx(likelihood.mean.mean().item(), abs=0.03)
    assert not kind.binary or set(first.unique().tolist()) <= {0.0, 1.0}


@law
def test_a_frozen_spread_is_that_of_the_batch_it_was_frozen_on(family: str, spread: str) -> None:
    kind = observation(family, spread)
    output, x = output_of(kind), image(kind)
    fitted = kind.fitted(output, x)
    before = kind(output).log_prob(x).sum()
    kind.freeze(float(kind.error(x, fitted.mean)))
    torch.testing.assert_close(kind(output).log_prob(x), fitted.log_prob(x))
    assert fitted.log_prob(x).sum() >= before - 1e-3, "what is estimated from the batch explains it no worse"


@law
def test_gradients_reach_the_decoder_and_the_parameters(family: str, spread: str) -> None:
    kind = observation(family, spread)
    output = output_of(kind).requires_grad_()
    x = image(kind)
    likelihood = kind.fitted(output, x)
    (-kind.weighted(likelihood.log_prob(x), likelihood).sum()).backward()
    assert output.grad is not None
    assert (output.grad.flatten(2).abs().max(dim=2).values > 0).all(), "every channel learns"
    assert all(parameter.grad is not None and parameter.grad.abs() > 0 for parameter in kind.parameters())


@law
def test_it_comes_back_from_its_state(family: str, spread: str) -> None:
    kind, again = observation(family, spread), observation(family, spread)
    kind.freeze(0.3)
    again.load_state_dict(kind.state_dict())
    output, x = output_of(kind), image(kind)
    assert torch.equal(again(output).log_prob(x), kind(output).log_prob(x))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sources = {"likelihoods": {"student": outside_package.LIKELIHOOD}}
    yield from outside_package.install(tmp_path, sources, patch=monkeypatch)


@pytest.mark.usefixtures("outside")
def test_a_family_of_another_package_is_found_and_keeps_all_laws() -> None:
    assert "student" in plugins.names("likelihoods")
    for test in LAWS:
        for spread in SPREADS:
            test("student", spread)
    heavy = LikelihoodSettings(family="student", options={"nu": 30.0})
    x = torch.full((1, 1, 1, 1, 1), 4.0)
    tails = [
        build_observation(one)(torch.zeros_like(x)).log_prob(x) for one in (heavy, LikelihoodSettings(family="student"))
    ]
    assert tails[1] > tails[0], "its options arrive"
