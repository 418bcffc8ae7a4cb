"""The residual in units of its healthy spread at that place, gathered at a scale in mm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.maps._shared import smooth_inside
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.inference import Inference
    from medvae.reference import Reference

UNIT = "z"
NEEDS_ALIGNMENT = True


class Settings(Frozen):
    """Options of the map."""

    scale_mm: float = Field(6.0, ge=0, description="σ of the Gaussian that gathers evidence; small lesions need less")


def anomaly_map(inference: Inference, reference: Reference, settings: Settings) -> NDArray[np.float32]:
    """G_σ |(r − μ) / s| inside the foreground, less its healthy expectation.

    μ and s are mean and spread of the residual r = x − x̂ over healthy scans (`Reference.residual`). A unit normal has
    E|z| = √(2/π). What is left is divided by its spread over healthy scans (`Reference.scales`), so that the unit is z.
    """
    assert reference.residual is not None
    z = np.abs(reference.residual.z(inference.residual))
    gathered = smooth_inside(z, inference.prepared, mm=settings.scale_mm) - np.float32(np.sqrt(2 / np.pi))
    return np.where(inference.prepared.mask[0], gathered, np.float32(0))
