"""Codes drawn from the posterior of one training scan: correct label, but the same person by construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.settings import Frozen
from medvae.synthesis.draws import LatentDraw
from medvae.synthesis.samplers import _shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvae.checkpoint.kept import Latents
    from medvae.checkpoint.model import Model


class Settings(Frozen):
    """Options of this sampler."""

    scale: float = Field(
        1.0, ge=0, description="factor on the posterior standard deviation; 0 gives plain reconstructions"
    )


@dataclass(frozen=True, eq=False)
class Jitter:
    """z = μᵢ + scale·σᵢ·ε, with each scan i of the class nearly equally often and ε ~ N(0, I)."""

    latents: Latents = field(repr=False)
    scale: float

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes of the training scans."""
        return _shared.shares(self.latents.labels)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> LatentDraw:
        """One code near a training scan of the class."""
        source = _shared.at_point(_shared.rows(self.latents.labels)[label], point)
        mean, log_variance = self.latents.mean[source], self.latents.log_variance[source]
        noise = generator.standard_normal(mean.shape, dtype=np.float32)
        z = mean + np.float32(self.scale) * np.exp(log_variance / 2) * noise
        own = _shared.conditions(self.latents, source)
        return LatentDraw(z.astype(np.float32), (self.latents.ids[source],), {"scale": self.scale}, own)


def fit(model: Model, settings: Settings) -> Jitter:
    """Keep the posteriors of the training scans.

    Raises:
        ModelError: the model holds none.
    """
    _shared.require(len(model.latents.ids), least=1, sampler="jitter")
    return Jitter(model.latents, settings.scale)
