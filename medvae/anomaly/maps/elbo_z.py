"""−ELBO of each voxel in SD of healthy scans: less likely under the model than this place usually is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._normative import EXPECTED, Normative, Scales
from medvae.anomaly.statistics import Normal
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)


class Map(Normative):
    """z of −ELBO."""

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        return inference.draw_means.negative_elbo[None]

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        z = Normal.from_arrays(arrays).z(self.values(inference, arrays))
        return z.mean(axis=0) + np.float32(EXPECTED)
