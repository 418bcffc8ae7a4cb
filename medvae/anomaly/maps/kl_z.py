"""KL divergence of each latent cell in SD of healthy scans: a code that is further from the prior than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.maps._normative import Excess, Scales
from medvae.settings import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (3.0, 6.0, 9.0)


class Map(Excess):
    """z of the `kl` map, nats per voxel."""

    USES = ("kl",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """KL by voxel, `(1, X, Y, Z)`."""
        return arrays.used["kl"].map[None]
