"""Codes from the prior N(0, I): independent of individual scans; poor where the latent codes do not follow N(0, I)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.settings import Frozen
from medvae.synthesis.draws import LatentDraw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvae.checkpoint.model import Model


class Settings(Frozen):
    """Options of this sampler."""

    spread: float = Field(1.0, gt=0, description="factor on the standard deviation; below 1 is closer to the average")


@dataclass(frozen=True)
class Prior:
    """N(0, spread²·I). The prior knows no classes, so its samples have no label."""

    shape: tuple[int, ...]
    spread: float

    @property
    def shares(self) -> Mapping[str | None, float]:
        """One class without a name."""
        return {None: 1.0}

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> LatentDraw:
        """One code; `label` is None."""
        z = generator.standard_normal(self.shape, dtype=np.float32) * np.float32(self.spread)
        return LatentDraw(z, parameters={"spread": self.spread})


def fit(model: Model, settings: Settings) -> Prior:
    """Nothing is fitted: only the shape of a code is taken from the model."""
    return Prior(tuple(model.latents.mean.shape[1:]), settings.spread)
