"""KL divergence of each latent cell from the prior, spread over its voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.base_map import BaseMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Map(BaseMap):
    """KL(q(z|x) ‖ p(z)) of each latent cell, spread evenly over its foreground voxels; sums to the KL."""

    UNIT = "nats"

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        return inference.kl
