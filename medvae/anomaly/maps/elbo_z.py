"""−ELBO of each voxel in SD of healthy scans: less likely under the model than this place usually is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._normative import Excess, Scales
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference

_HALF = np.float32(0.5)


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)


class Map(Excess):
    """z of ln (e − min e + ½), e the `elbo` map in nats per voxel, min over the scan's foreground.

    −ELBO is quadratic in the residual; its logarithm has a spread that it makes sense to divide by.
    """

    USES = ("elbo",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The logarithm, `(1, X, Y, Z)`."""
        nats, inside = arrays.used["elbo"].map, inference.foreground
        above = np.where(inside, nats - nats[inside].min(), np.float32(0))
        return np.log(above + _HALF)[None]
