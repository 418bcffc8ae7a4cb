"""The training objective by hand: −ELBO a foreground voxel, free bits, β-NLL, schedules."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import nn

from medvae.settings import LikelihoodSettings
from medvae.training.losses import Objective, Terms, active_units, beta_at, rate_at
from medvae.vae.base import VAE, Posterior
from medvae.vae.likelihoods.gaussian import Gaussian
from medvae.vae.likelihoods.laplace import Laplace
from medvae.vae.observation import ScaledObservation, build_observation

GRID = (2, 3, 2)


class Fixed(VAE):
    """A network whose answers are given."""

    observation: ScaledObservation

    def __init__(self, posterior: Posterior, output: torch.Tensor, **likelihood: str) -> None:
        super().__init__()
        self.posterior, self.output = posterior, nn.Parameter(output)
        self.observation = cast("ScaledObservation", build_observation(LikelihoodSettings.model_validate(likelihood)))
        self.seen: list[Any] = []

    def encode(self, x: torch.Tensor, c: torch.Tensor | None = None) -> Posterior:
        self.seen += [x, c]
        return self.posterior

    def render(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(c)
        return self.output

    def latent_shape(self, grid: Any) -> tuple[int, ...]:
        return tuple(self.posterior.mean.shape[1:])


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def example(seed: int = 0, *, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, image, mask of two scans."""
    mask = noise(seed + 2, 2, 1, *GRID) > -0.5
    return noise(seed, 2, channels, *GRID), noise(seed + 1, 2, 1, *GRID), mask


def posterior(*, requires_grad: bool = False) -> Posterior:
    """Two scans, three channels, two cells."""
    return Posterior(noise(5, 2, 3, 2, 1, 1).requires_grad_(requires_grad), 0.3 * noise(6, 2, 3, 2, 1, 1))


def terms(net: Fixed, image: torch.Tensor, mask: torch.Tensor, **more: Any) -> Terms:
    given = {"beta": 1.0, "fit_spread": True, "free_bits": 0.0, **more}
    objective = Objective(net, free_bits=given.pop("free_bits"))
    made: Terms = objective(inputs=image, image=image, mask=mask, noise=torch.zeros_like(net.posterior.mean), **given)
    return made


@pytest.mark.parametrize("fit_spread", [True, False])
def test_the_loss_by_hand(*, fit_spread: bool) -> None:
    output, image, mask = example()
    net = Fixed(posterior(), output)
    net.observation.log_scale.fill_(-0.3)
    found = terms(net, image, mask, fit_spread=fit_spread, beta=0.7)
    error = (image - output)[mask]
    log_scale = 0.5 * math.log(float(error.pow(2).mean())) if fit_spread else -0.3
    log_p = -0.5 * (error / math.exp(log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)
    kl = net.posterior.kl()
    voxels = int(mask.sum())
    assert found.loss.item() == pytest.approx(float(0.7 * kl.sum() - log_p.sum()) / voxels, rel=1e-5)
    assert found.reconstruction.item() == pytest.approx(-float(log_p.sum()) / 2, rel=1e-5)
    assert found.kl.item() == pytest.approx(float(kl.sum()) / 2, rel=1e-5)
    assert found.error.item() == pytest.approx(float(error.pow(2).mean()), rel=1e-5)
    assert torch.equal(found.mean, net.posterior.mean)
    assert not any(value.requires_grad for value in found[1:]), "only the loss carries gradients"


def test_air_has_no_part_in_it() -> None:
    output, image, mask = example()
    first = terms(Fixed(posterior(), output), image, mask)
    moved = torch.where(mask, image, 1e6)
    net = Fixed(posterior(), torch.where(mask, output, -1e6))
    second = terms(net, moved, mask)
    assert [v.item() for v in first[:4]] == [v.item() for v in second[:4]]
    second.loss.backward()
    assert net.output.grad is not None
    assert (net.output.grad[~mask] == 0).all()


def test_a_laplace_has_an_absolute_error() -> None:
    output, image, mask = example()
    found = terms(Fixed(posterior(), output, family="laplace"), image, mask)
    error = (image - output)[mask].abs().mean()
    assert found.error.item() == pytest.approx(float(error), rel=1e-5)
    assert found.reconstruction.item() == pytest.approx(int(mask.sum()) * (1 + math.log(2 * error)) / 2, rel=1e-5)


def test_the_encoder_may_see_another_image_than_is_to_be_explained() -> None:
    output, image, mask = example()
    net, inputs, c = Fixed(posterior(), output), image + 1, torch.ones(2, 1)
    found = Objective(net, free_bits=0.0)(
        inputs=inputs, image=image, mask=mask, noise=torch.zeros(2, 3, 2, 1, 1), beta=1.0, fit_spread=True, c=c
    )
    assert [one is other for one, other in zip(net.seen, (inputs, c, c), strict=True)] == [True] * 3
    assert found.error.item() == pytest.approx(float((image - output)[mask].pow(2).mean()), rel=1e-5)


def test_a_network_that_learns_label_maps_adds_its_loss() -> None:
    class Labels(Fixed):
        def label_loss(
            self, z: torch.Tensor, label_map: torch.Tensor, c: torch.Tensor | None = None
        ) -> torch.Tensor | None:
            self.seen += [z, label_map]
            return 3.0 * (label_map > 0).sum()

    output, image, mask = example()
    labels = torch.zeros(2, 1, *GRID, dtype=torch.int16)
    labels[0, 0, 0] = 1
    net = Labels(posterior(), output)
    with_labels, without = terms(net, image, mask, label_map=labels), terms(net, image, mask)
    assert (with_labels.loss - without.loss).item() == pytest.approx(3 * 6 / int(mask.sum()), rel=1e-4)
    assert with_labels.reconstruction == without.reconstruction
    ours = terms(Fixed(posterior(), output), image, mask, label_map=labels)
    assert ours.loss == without.loss, "others do not know of label maps"


@pytest.mark.parametrize("flat", [True, False])
def test_free_bits(*, flat: bool) -> None:
    """A channel whose batch mean lies below the limit costs the limit and gets no gradient; others as before."""
    output, image, mask = example()
    mean = torch.tensor([[3.0, 0.1, 1.0], [2.0, -0.1, 0.0]])
    mean = (mean if flat else mean.view(2, 3, 1, 1, 1)).requires_grad_()
    q = Posterior(mean, torch.zeros_like(mean))  # KL of a unit: ½ μ²
    found = terms(Fixed(q, output), image, mask, free_bits=1.0)
    plain = terms(Fixed(q, output), image, mask)
    assert found.kl.item() == plain.kl.item() == pytest.approx((9 + 0.01 + 1 + 4 + 0.01) / 4, rel=1e-5)
    expected = (9 + 4) / 4 + 1 + 1
    difference = (found.loss - plain.loss).item() * int(mask.sum()) / 2
    assert difference == pytest.approx(expected - plain.kl.item(), rel=1e-4)
    found.loss.backward()
    assert mean.grad is not None
    grad = mean.grad.view(2, 3)
    assert (grad[:, 0] != 0).all()
    assert (grad[:, 1:] == 0).all()


@pytest.mark.parametrize(("family", "kind"), [("gaussian", Gaussian), ("laplace", Laplace)])
def test_a_spread_by_voxel_is_weighted_by_itself_in_training_only(family: str, kind: Any) -> None:
    output, image, mask = example(channels=2)
    net = Fixed(posterior(), output, family=family, spread="voxel")
    log_p = kind(output[:, :1][mask], output[:, 1:][mask]).log_prob(image[mask])
    scale = output[:, 1:][mask].exp()
    voxels, kl = int(mask.sum()), float(net.posterior.kl().sum())
    trained, scored = terms(net, image, mask), terms(net, image, mask, fit_spread=False)
    weighted = float((log_p * scale / scale.mean()).sum())
    assert trained.loss.item() == pytest.approx((kl - weighted) / voxels, rel=1e-4)
    assert scored.loss.item() == pytest.approx((kl - float(log_p.sum())) / voxels, rel=1e-4)
    assert trained.reconstruction.item() == pytest.approx(-float(log_p.sum()) / 2, rel=1e-4), "what is told are nats"


def test_beta_nll_makes_the_gradient_of_the_mean_fall_with_sigma_only_once() -> None:
    """−ln p has 1/σ² in it, so hard voxels would hardly be learned; times σ it is 1/σ."""
    output = torch.zeros(1, 2, 2, 1, 1)
    output[0, 1, :, 0, 0] = torch.tensor([0.0, math.log(4.0)])
    image, mask = torch.ones(1, 1, 2, 1, 1), torch.ones(1, 1, 2, 1, 1, dtype=torch.bool)
    net = Fixed(Posterior(torch.zeros(1, 1), torch.zeros(1, 1)), output, spread="voxel")
    terms(net, image, mask).loss.backward()
    assert net.output.grad is not None
    near, far = net.output.grad[0, 0, :, 0, 0].tolist()
    assert near / far == pytest.approx(4)


def test_active_units_are_those_whose_mean_moves() -> None:
    means = torch.zeros(5, 3, 1)
    means[:, 0, 0] = torch.arange(5.0)
    means[:, 1, 0] = 0.05 * torch.arange(5.0)  # variance 0.00625
    means[:, 2, 0] = 7.0
    assert active_units(means) == 1
    assert active_units(means, threshold=0.001) == 2
    assert active_units(means[:1]) == 0


@pytest.mark.parametrize(("progress", "beta"), [(0, 0.02), (0.01, 0.04), (0.25, 1.0), (0.5, 2.0), (0.99, 2.0)])
def test_beta_rises_from_a_hundredth(progress: float, beta: float) -> None:
    assert beta_at(progress, beta=2.0, warmup=0.5) == pytest.approx(beta)
    assert beta_at(progress, beta=2.0, warmup=0.0) == 2.0


@pytest.mark.parametrize(
    ("progress", "rate"),
    [(0, 0.1), (0.04, 0.5), (0.09, 1.0), (0.1, 1.0), (0.55, 0.505), (0.99, 0.01 + 0.99 * 0.000305), (1.0, 0.01)],
)
def test_the_rate_rises_and_falls_to_a_hundredth(progress: float, rate: float) -> None:
    assert rate_at(progress, step=0.01, warmup=0.1) == pytest.approx(rate, rel=1e-3)


def test_schedules_of_very_short_runs() -> None:
    assert rate_at(0, step=1, warmup=0.05) == 1.0
    assert rate_at(0, step=0.5, warmup=0.0) == 1.0
    assert beta_at(0, beta=1.0, warmup=0.25) == pytest.approx(0.01)
