"""The evidence of maps that need no alignment, in one map: −ln of a harmonic mean p-value over healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.maps._fused import Fused, soft_maximum

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference


class Map(Fused):
    """−ln p, nats, with p = K / Σ_k (1 / P_k): P_k is the share of healthy voxels with at least the value of witness k.

    The harmonic mean p-value (Wilson, PNAS 2019) of K witnesses, which may depend on each other. One witness that is
    sure is enough. Its witnesses have statistics of all voxels or cells where scans are not aligned.
    """

    USES = ("latent", "contrast")

    def combine(self, surprises: Mapping[str, NDArray[np.float32]], inference: Inference) -> NDArray[np.float32]:
        """ln of the mean of 1 / P_k over the witnesses."""
        return soft_maximum(list(surprises.values()))
