"""−ELBO of each voxel in SD of healthy scans: what the model finds less likely than it usually finds this place."""

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
    """Mean over `scales_mm` of G_σ z inside the foreground; z = (−ELBO − μ) / s of healthy scans at this voxel.

    The sign is kept: a voxel that is more likely than usual is no anomaly. −ELBO (nats per voxel) is the `elbo` map.
    """

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """−ELBO by voxel, `(1, X, Y, Z)`."""
        return inference.draw_means.negative_elbo[None]

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """z, raised by what `map` takes off again."""
        z = Normal.from_arrays(arrays).z(self.values(inference, arrays))
        raised: NDArray[np.float32] = z.mean(axis=0) + np.float32(EXPECTED)
        return raised
