"""p(x|z) as objects: Gaussian, Laplace, Bernoulli; and the part of a network that turns its output into one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from medvae.settings import LikelihoodSettings

LOG_SCALE_RANGE = (-6.0, 3.0)  # the soft floor of σ-VAE (Rybkin et al., ICML 2021), and a ceiling


class Likelihood(Protocol):
    """p(x|z) of each voxel, independent given z.

    - `mean` is `(B, 1, X, Y, Z)`.
    - `log_prob(x)` is ln p(x|z) by voxel in nats, float32, `(B, 1, X, Y, Z)`.
    - `sample(generator)` draws an image.
    """

    @property
    def mean(self) -> Tensor: ...  # noqa: D102

    def log_prob(self, x: Tensor) -> Tensor: ...  # noqa: D102

    def sample(self, generator: torch.Generator) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, σ²): ln p = −½((x − mean)/σ)² − ln σ − ½ ln 2π. `log_scale` is ln σ, a scalar or one a voxel."""

    mean: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """By voxel, in nats."""
        z = (x - self.mean) * torch.exp(-self.log_scale)
        return -0.5 * z * z - self.log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Mean and noise."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + torch.exp(self.log_scale) * noise


@dataclass(frozen=True, eq=False)
class Laplace:
    """Laplace(mean, b): ln p = −|x − mean|/b − ln 2b. `log_scale` is ln b, a scalar or one a voxel."""

    mean: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """By voxel, in nats."""
        return -(x - self.mean).abs() * torch.exp(-self.log_scale) - self.log_scale - math.log(2)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Mean and noise, by the inverse of the distribution function."""
        u = torch.rand(self.mean.shape, generator=generator).to(self.mean) - 0.5
        return self.mean - torch.exp(self.log_scale) * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """Bernoulli of logits: ln p = x·logit − softplus(logit), for x in 0..1."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """The probability of 1."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """By voxel, in nats."""
        return x * self.logits - F.softplus(self.logits)

    def sample(self, generator: torch.Generator) -> Tensor:
        """0 or 1."""
        u = torch.rand(self.logits.shape, generator=generator).to(self.logits)
        return (u < self.mean).to(self.logits)


class Observation(nn.Module):
    """From a decoder's output to p(x|z), with the spread that the settings ask for.

    - `shared`: one σ (or b) for all voxels. In training it is the analytic optimum of the batch, σ² = mean squared
      error over the foreground (σ-VAE); for scoring it is frozen in `log_scale`, estimated on validation scans.
    - `learned`: `log_scale` is a parameter.
    - `voxel`: the decoder's second channel.

    Attributes:
        channels: channels that the decoder has to give.
        log_scale: ln σ or ln b, a scalar.
    """

    log_scale: Tensor

    def __init__(self, settings: LikelihoodSettings) -> None:
        super().__init__()
        self.family = settings.family
        self.spread = settings.spread
        self.channels = 2 if self.spread == "voxel" and self.family != "bernoulli" else 1
        if self.spread == "learned" and self.family != "bernoulli":
            self.log_scale = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_scale", torch.zeros(()))

    def forward(self, output: Tensor) -> Likelihood:
        """p(x|z) from `(B, channels, ...)`, in float32 whatever the autocast, with the frozen spread."""
        output = output.float()
        if self.family == "bernoulli":
            return Bernoulli(output)
        scale = output[:, 1:] if self.spread == "voxel" else self.log_scale
        kind = Gaussian if self.family == "gaussian" else Laplace
        return kind(output[:, :1], scale.clamp(*LOG_SCALE_RANGE))

    def fitted(self, output: Tensor, x: Tensor) -> Likelihood:
        """As `forward`, but a shared spread is the optimum of all these values, through which gradients flow.

        Args:
            output: of the decoder, `(B, channels, ...)`; foreground only.
            x: what is to be explained, `(B, 1, ...)`.
        """
        likelihood: Likelihood = self(output)
        if self.spread == "shared" and isinstance(likelihood, Gaussian | Laplace):
            error = error_moment(x, likelihood.mean, family=self.family)
            return replace(likelihood, log_scale=_log_scale(error, self.family))
        return likelihood

    def freeze(self, moment: float) -> None:
        """Set a shared spread to the optimum of this mean (squared or absolute) error; others keep theirs."""
        if self.family != "bernoulli" and self.spread == "shared":
            self.log_scale.fill_(float(_log_scale(torch.tensor(moment, dtype=torch.float64), self.family)))


def error_moment(x: Tensor, mean: Tensor, *, family: str) -> Tensor:
    """Mean absolute error for Laplace, mean squared error for the others."""
    return (x - mean).abs().mean() if family == "laplace" else ((x - mean) ** 2).mean()


def _log_scale(moment: Tensor, family: str) -> Tensor:
    """ln of the maximum-likelihood spread: ½ ln MSE (Gaussian), ln MAE (Laplace)."""
    log = torch.log(moment.clamp(min=1e-12)) * (0.5 if family == "gaussian" else 1.0)
    return log.clamp(*LOG_SCALE_RANGE)
