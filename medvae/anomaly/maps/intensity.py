"""How unusually bright or dark a voxel is within its own scan; needs no network: trivial baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.base_map import BaseMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Map(BaseMap):
    """|v − median| / spread over the scan's own foreground; spread is 1.4826 times the median absolute deviation.

    A binary shape has no spread of its own: there it is |v − median|. The mean over channels.
    """

    UNIT = "z"

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        inside = inference.foreground
        channels = [_deviation(channel, inside) for channel in inference.prepared.image]
        return np.where(inside, np.mean(channels, axis=0), 0).astype(np.float32)


def _deviation(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.floating]:
    median = np.median(image[inside])
    spread = 1.4826 * np.median(np.abs(image[inside] - median))
    deviation: NDArray[np.floating] = np.abs(image - median) / (spread if spread > 0 else 1.0)
    return deviation
