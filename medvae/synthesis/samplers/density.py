"""Codes from a Gaussian per class, fitted to the posteriors of the training scans (Ledoit-Wolf shrinkage)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from medvae.settings import Frozen
from medvae.synthesis.samplers._density import Density, fit_density

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model


class Settings(Frozen):
    """Options of this sampler."""

    shrinkage: float | None = Field(
        None,
        ge=0,
        le=1,
        description="shrinkage of the covariance towards a multiple of the identity, 0 to 1; none: by Ledoit-Wolf",
    )
    spread: float = Field(1.0, gt=0, description="factor on the standard deviation; below 1 is closer to the average")


def fit(model: Model, settings: Settings) -> Density:
    """Fit the Gaussian of each class.

    Raises:
        ModelError: too few training scans to estimate a variance within the classes.
    """
    return fit_density(model.latents, sampler="density", shrinkage=settings.shrinkage, spread=settings.spread)
