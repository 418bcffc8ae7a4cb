"""Laplace distribution of each voxel: absolute errors, which outliers move less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributions as D

from medvae.vae.observation import ScaledObservation

if TYPE_CHECKING:
    from medvae.settings import Empty, Spread


def build(settings: Empty, *, spread: Spread) -> LaplaceObservation:
    """The family, without options."""
    return LaplaceObservation(spread)


@dataclass(frozen=True, eq=False)
class Laplace:
    """Laplace(mean, b): ln p = −|x − mean|/b − ln 2b. `log_scale` is ln b, a scalar or one per voxel."""

    mean: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each voxel, in nats."""
        log_p: Tensor = D.Laplace(self.mean, self.log_scale.exp(), validate_args=False).log_prob(x)
        return log_p

    def sample(self, generator: torch.Generator) -> Tensor:
        """Mean and noise, by the inverse of the distribution function."""
        u = torch.rand(self.mean.shape, generator=generator).to(self.mean) - 0.5
        return self.mean - torch.exp(self.log_scale) * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))


class LaplaceObservation(ScaledObservation):
    """b is the mean absolute error."""

    def at(self, mean: Tensor, log_scale: Tensor) -> Laplace:
        """Laplace(mean, b)."""
        return Laplace(mean, log_scale)

    def error(self, x: Tensor, mean: Tensor) -> Tensor:
        """Mean absolute error."""
        return (x - mean).abs().mean()

    def log_optimum(self, error: Tensor) -> Tensor:
        """Ln MAE."""
        return torch.log(error)
