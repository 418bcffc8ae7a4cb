"""Each voxel's share of −ELBO: its likelihood and its part of the KL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.settings import Empty

UNIT = "nats"


def anomaly_map(inference: Inference, reference: Reference, settings: Empty) -> NDArray[np.float32]:
    """−ln p(x|z) + KL spread over the voxels, averaged over draws; sums to −ELBO of the same draws."""
    return inference.moments.negative_elbo
