"""The default map: what several maps have to say, weighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._fused import Fused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference

# Chosen by benchmarks/fusion.py on simulated anomalies in the calibration subjects of OASIS: not on any lesion that the
# map is evaluated on.
WEIGHTS: Mapping[str, float] = {"asymmetry": 1.0, "atlas": 0.5, "contrast": 0.25, "detector": 0.25}


class Map(Fused):
    """Σ_k w_k (−ln P_k), nats: P_k is the share of healthy voxels with at least the value of witness k.

    A weighted sum of evidence (Good, J. R. Stat. Soc. B 1955; Fisher's sum has equal weights). No weight is negative:
    no witness speaks against what another one has seen.
    """

    NEEDS_ALIGNMENT = True
    USES = tuple(WEIGHTS)

    def combine(self, surprises: Mapping[str, NDArray[np.float32]], inference: Inference) -> NDArray[np.float32]:
        """The weighted sum over witnesses."""
        return np.sum([np.float32(WEIGHTS[name]) * one for name, one in surprises.items()], axis=0)
