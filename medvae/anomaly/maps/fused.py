"""The default map: what several maps have to say, weighted and gathered over scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._fused import Fused
from medvae.anomaly.maps._shared import smooth_inside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference

SCALES_MM = (0.0, 4.0, 8.0)
# Fitted by benchmarks/fusion.py to simulated anomalies in the calibration subjects of OASIS: not to any lesion that the
# map is evaluated on. One weight per scale.
WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "asymmetry": (0.35, 0.21, 0.11),
    "contrast": (0.13, 0.08, 0.05),
    "detector": (0.22, 0.09, 0.0),
}


class Map(Fused):
    """Σ_k Σ_s w_ks G_s(−ln P_k), nats: P_k is the share of healthy voxels with at least the value of witness k.

    A weighted sum of evidence (Good, JRSS B 1955, of p-values; Fisher's sum has equal weights). No weight is negative:
    no witness speaks against what another one has seen.
    """

    NEEDS_ALIGNMENT = True
    USES = tuple(WEIGHTS)

    def combine(self, surprises: Mapping[str, NDArray[np.float32]], inference: Inference) -> NDArray[np.float32]:
        """The weighted sum over witnesses and scales."""
        inside, spacing = inference.foreground, inference.prepared.grid.spacing
        total = np.zeros(inside.shape, np.float32)
        for name, values in surprises.items():
            for mm, weight in zip(SCALES_MM, WEIGHTS[name], strict=True):
                if weight:
                    total += np.float32(weight) * smooth_inside(values, inside, spacing=spacing, mm=mm)
        return total
