"""The weighted evidence of several maps, in one map; the first map of brain-mri-t1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._fused import Fused, soft_maximum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference

# Chosen on simulated anomalies (docs/figures.md, weights of `fused`): not on any lesion that the map is evaluated on.
WEIGHTS: Mapping[str, float] = {
    "asymmetry": 1.0,
    "matched_atlas": 0.25,
    "matched_residual": 0.25,
    "detector": 0.25,
    "denoised_z": 0.5,
}
# Each sees what the sum may overlook: lost structure, small lesions on both sides, large ones on both sides.
ALONE = ("contrast", "elbo_z", "matched_atlas", "matched_residual", "latent")


class Map(Fused):
    """ln of the mean of exp S and of exp (−ln P_k) of each witness k in `ALONE`, with S = Σ_k w_k (−ln P_k), nats.

    P_k is the share of healthy voxels with at least the value of witness k. S is a weighted sum of evidence (Good,
    J. R. Stat. Soc. B 1955), in which witnesses that agree add up; no weight is negative. The mean of exponentials is
    that of the harmonic mean p-value (Wilson, PNAS 2019): one that is sure is enough.
    """

    NEEDS_ALIGNMENT = True
    USES = (*WEIGHTS, *(name for name in ALONE if name not in WEIGHTS))

    def combine(self, surprises: Mapping[str, NDArray[np.float32]], inference: Inference) -> NDArray[np.float32]:
        """The soft maximum of the weighted sum and of the witnesses that count alone."""
        total = np.sum([np.float32(w) * surprises[name] for name, w in WEIGHTS.items() if name in surprises], axis=0)
        return soft_maximum([total, *(surprises[name] for name in ALONE if name in surprises)])
