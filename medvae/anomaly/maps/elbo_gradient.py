"""Where a change of the image would change the ELBO most: |∂ELBO/∂x|, smoothed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.anomaly.maps._shared import smooth_foreground
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scale_mm: float = Field(3.0, ge=0, description="σ of the Gaussian that evens out the network's checkerboard")


class Map(BaseMap):
    """G_σ |∂ELBO/∂x| (Zimmerer et al., MICCAI 2019), without any normalisation by the scan or the batch."""

    UNIT = "a.u."

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan; the mean over channels."""
        slope = np.abs(inference.elbo_gradient).mean(axis=0)
        return smooth_foreground(slope, inference, mm=self.settings.scale_mm)
