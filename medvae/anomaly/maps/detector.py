"""Log-odds that a voxel does not belong in the scan, by a network that was trained on simulated anomalies."""

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

LEAST = -3.0  # log-odds of 1 : 20; what is less likely is 0 in the map


class Settings(Frozen):
    """Options of the map."""

    smooth_mm: float = Field(4.0, ge=0, description="σ of the Gaussian that smooths the log-odds, mm")


class Map(BaseMap):
    """max(0, l + 3), nats: l is the smoothed log-odds that the voxel was changed.

    They are those of the anomalies that the detector was trained on, which are far more frequent than disease: a scale,
    not the probability of a lesion.
    """

    UNIT = "nats"
    NEEDS_DETECTOR = True

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        odds = smooth_foreground(inference.log_odds, inference, mm=self.settings.smooth_mm)
        above: NDArray[np.float32] = np.where(
            inference.foreground, np.maximum(odds - np.float32(LEAST), 0), np.float32(0)
        )
        return above
