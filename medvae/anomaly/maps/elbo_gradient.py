"""Where a change of the image would change the ELBO most: |∂ELBO/∂x|, smoothed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.anomaly.maps._shared import smooth_inside
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference

UNIT = "a.u."


class Settings(Frozen):
    """Options of the map."""

    scale_mm: float = Field(3.0, ge=0, description="σ of the Gaussian that evens out the network's checkerboard")


def anomaly_map(inference: Inference, reference: Reference, settings: Settings) -> NDArray[np.float32]:
    """G_σ |∂ELBO/∂x| (Zimmerer et al., MICCAI 2019), without any normalisation by the scan or the batch."""
    mask, spacing = inference.prepared.mask[0], inference.prepared.grid.spacing
    return smooth_inside(np.abs(inference.gradient("elbo")), mask, spacing=spacing, mm=settings.scale_mm)
