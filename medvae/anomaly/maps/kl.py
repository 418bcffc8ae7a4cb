"""How far the posterior of a place is from the prior, spread over its voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from medvae.anomaly.inference import to_array
from medvae.vae.base import spread_kl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.settings import Empty

UNIT = "nats"


def anomaly_map(inference: Inference, reference: Reference, settings: Empty) -> NDArray[np.float32]:
    """KL(q(z|x) ‖ p(z)) of each latent cell, spread evenly over its foreground voxels; sums to the KL."""
    with torch.no_grad():
        return to_array(spread_kl(inference.posterior.kl(), inference.mask))
