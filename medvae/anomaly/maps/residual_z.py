"""The residual in units of its healthy spread at that place, gathered at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from medvae.anomaly.maps._shared import smooth_inside
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Normal, Reference

UNIT = "z"
NEEDS_ALIGNMENT = True


class Settings(Frozen):
    """Options of the map."""

    scales_mm: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.0, 3.0, 6.0), min_length=1, description="σ of the Gaussians that gather evidence; large lesions want more"
    )
    winsor: float = Field(
        1.0, gt=0, description="the model sees values within so many spreads of the training scans' at their place"
    )


def residual(inference: Inference, image: Normal, settings: Settings) -> NDArray[np.float32]:
    """x − x̂ with x̂ made of the winsorised scan: x held within μ ± w s of the training scans, voxel by voxel.

    A lesion beyond that cannot be copied into the reconstruction. Mean and spread of this residual over healthy scans
    are `Reference.residual`, so that what the holding costs a healthy scan is part of what is expected.
    """
    reach = np.float32(settings.winsor) * image.sd
    return inference.residual_within(image.mean - reach, image.mean + reach)


def anomaly_map(inference: Inference, reference: Reference, settings: Settings) -> NDArray[np.float32]:
    """Mean over scales of G_σ |(r − μ) / s| inside the foreground, less its healthy expectation.

    r is `residual`, μ and s its mean and spread over healthy scans. A unit normal has E|z| = √(2/π). What is left is
    divided by its spread over healthy scans (`Reference.scales`), so that the unit is z.
    """
    assert reference.image is not None
    assert reference.residual is not None
    z = np.abs(reference.residual.z(residual(inference, reference.image, settings)))
    mask, spacing = inference.prepared.mask[0], inference.prepared.grid.spacing
    gathered = np.mean([smooth_inside(z, mask, spacing=spacing, mm=mm) for mm in settings.scales_mm], axis=0)
    return np.where(mask, gathered - np.float32(np.sqrt(2 / np.pi)), np.float32(0))
