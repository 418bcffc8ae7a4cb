"""Distance of each voxel from the aligned training scans, in SD of that voxel; needs no network: baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.base_map import BaseMap
from medvae.statistics import Normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference


class Map(BaseMap):
    """|v − μ| / σ with the voxelwise mean and spread of the training scans; the mean over channels."""

    UNIT = "z"
    NEEDS_ALIGNMENT = True
    KEEPS_TRAINING = True

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """The prepared image."""
        return {"image": inference.prepared.image}

    def fit(self, healthy: Healthy) -> Arrays:
        """Mean and spread of each voxel."""
        return healthy.moments["image"].normal(spacing=healthy.spacing).to_arrays()

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        z = Normal.from_arrays(arrays).z(inference.prepared.image)
        return np.where(inference.foreground, np.abs(z).mean(axis=0), np.float32(0))
