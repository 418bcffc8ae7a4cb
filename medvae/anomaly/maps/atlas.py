"""How far a voxel is from the aligned training scans at its place; no model: the second baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.settings import Empty

UNIT = "z"
NEEDS_ALIGNMENT = True


def anomaly_map(inference: Inference, reference: Reference, settings: Empty) -> NDArray[np.float32]:
    """|v − μ| / σ with the voxelwise mean and spread of the training scans (`Reference.image`)."""
    assert reference.image is not None
    z = reference.image.z(inference.prepared.image[0])
    return np.where(inference.prepared.mask[0], np.abs(z), np.float32(0))
