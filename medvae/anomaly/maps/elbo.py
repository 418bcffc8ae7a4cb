"""Each voxel's share of −ELBO: its likelihood and its part of the KL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.base_map import BaseMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Map(BaseMap):
    """−ln p(x|z) + KL spread over the voxels, averaged over draws; sums to −ELBO of the same draws."""

    UNIT = "nats"

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        return inference.draw_means.negative_elbo
