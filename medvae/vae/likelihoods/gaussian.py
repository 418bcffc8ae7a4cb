"""Normal distribution of each voxel: squared errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal

from medvae.vae.observation import ScaledObservation

if TYPE_CHECKING:
    from medvae.settings import Empty, Spread


def build(settings: Empty, *, spread: Spread) -> GaussianObservation:
    """The family, without options."""
    return GaussianObservation(spread)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, σ²): ln p = −½((x − mean)/σ)² − ln σ − ½ ln 2π. `log_scale` is ln σ, a scalar or one per voxel."""

    mean: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each voxel, in nats."""
        log_p: Tensor = Normal(self.mean, self.log_scale.exp(), validate_args=False).log_prob(x)
        return log_p

    def sample(self, generator: torch.Generator) -> Tensor:
        """Mean and noise."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + torch.exp(self.log_scale) * noise


class GaussianObservation(ScaledObservation):
    """σ² is the mean squared error."""

    def at(self, mean: Tensor, log_scale: Tensor) -> Gaussian:
        """N(mean, σ²)."""
        return Gaussian(mean, log_scale)

    def log_optimum(self, error: Tensor) -> Tensor:
        """½ ln MSE."""
        return 0.5 * torch.log(error)
