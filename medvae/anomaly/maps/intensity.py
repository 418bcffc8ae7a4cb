"""How unusually bright or dark a voxel is for its own scan; no model: the trivial baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.settings import Empty

UNIT = "z"


def anomaly_map(inference: Inference, reference: Reference, settings: Empty) -> NDArray[np.float32]:
    """|v − median| / spread over the scan's own foreground; spread is 1.4826 times the median absolute deviation.

    A binary shape has no spread of its own: there it is |v − median|.
    """
    image, mask = inference.prepared.image[0], inference.prepared.mask[0]
    median = np.median(image[mask])
    spread = 1.4826 * np.median(np.abs(image[mask] - median))
    return np.where(mask, np.abs(image - median) / (spread if spread > 0 else 1.0), 0).astype(np.float32)
