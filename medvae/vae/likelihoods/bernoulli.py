"""Bernoulli distribution of each voxel, for binary shapes: values are 0 or 1, the mean is a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributions as D

from medvae.vae.observation import Observation

if TYPE_CHECKING:
    from medvae.settings import Empty, Spread


def build(settings: Empty, *, spread: Spread) -> BernoulliObservation:
    """The family, without options; it has no spread."""
    return BernoulliObservation()


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """Bernoulli of logits: ln p = x·logit − ln(1 + e^logit), for x in 0..1."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """The probability of 1."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each voxel, in nats."""
        log_p: Tensor = D.Bernoulli(logits=self.logits, validate_args=False).log_prob(x)
        return log_p

    def sample(self, generator: torch.Generator) -> Tensor:
        """0 or 1."""
        u = torch.rand(self.logits.shape, generator=generator).to(self.logits)
        return (u < self.mean).to(self.logits)


class BernoulliObservation(Observation):
    """The decoder's output is the logit."""

    binary = True

    def forward(self, output: Tensor) -> Bernoulli:
        """Bernoulli of the logits, in float32."""
        return Bernoulli(output.float())
