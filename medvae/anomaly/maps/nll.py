"""Negative log-likelihood of each voxel, mean over posterior draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.base_map import BaseMap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Map(BaseMap):
    """−ln p(x|z) by voxel, averaged over z ~ q(z|x)."""

    UNIT = "nats"

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        return inference.draw_means.negative_log_prob
