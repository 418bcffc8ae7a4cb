"""Negative log-likelihood of each voxel, mean over posterior draws."""

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
    """−ln p(x|z) by voxel, averaged over z ~ q(z|x)."""
    return inference.moments.negative_log_prob
