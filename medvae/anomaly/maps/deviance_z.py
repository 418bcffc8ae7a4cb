"""The residual in units of the spread that the model itself gives each voxel, in SD of healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.anomaly.maps._normative import Normative, Scales
from medvae.settings import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)


class Map(Normative):
    """|z| of the deviance residual sign(x − x̂) √(2 (ln p(x̂) − ln p(x))) at the posterior mean.

    Of a normal distribution it is (x − x̂)/σ, with the σ of each voxel if `likelihood.spread` is `voxel` (Mao et al.,
    MICCAI 2020); of other likelihoods it is what comes nearest to a normal residual (McCullagh and Nelder, 1989). Of a
    shape x̂ is the likelier of 0 and 1.
    """

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The deviance residual."""
        return inference.deviance_residual
