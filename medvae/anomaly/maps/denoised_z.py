"""What a denoiser takes for coarse noise, in units of its healthy spread at each voxel."""

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
    """|z| of x − x̂, with x̂ the scan without what the denoiser of the detector takes for coarse noise.

    The denoiser has learned to take coarse Gaussian noise out of healthy scans (Kascenas et al., MIDL 2022). It sees
    the scan through no bottleneck: healthy detail stays, and a region that deviates from the tissue around is changed.
    """

    NEEDS_DETECTOR = True

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """x − x̂."""
        return inference.noise
