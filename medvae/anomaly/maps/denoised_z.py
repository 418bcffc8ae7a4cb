"""What a denoiser takes for coarse noise, in units of its healthy spread at each voxel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.maps._normative import Normative, Scales
from medvae.settings import Frozen
from medvae.statistics import Normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


_STABLE = np.float32(0.1)  # robust SDs of a scan; a trained denoiser's healthy spread is 0.13 to 0.28


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)


class Map(Normative):
    """|d − μ| / √(s² + ε²) of d = x − x̂, ε = 0.1; x̂ is the scan without what the detector's denoiser takes for noise.

    The denoiser has learned to remove coarse Gaussian noise from healthy scans (Kascenas et al., MIDL 2022). It sees
    the scan through no bottleneck: healthy detail stays, and a region that deviates from the surrounding tissue is
    changed. With ε, meant for intensities in robust SDs, a network that changes next to nothing marks nothing.
    """

    NEEDS_DETECTOR = True

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """x − x̂."""
        return inference.noise

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """|z| by voxel with the spread √(s² + ε²), the mean over channels, `(X, Y, Z)`."""
        normal = Normal.from_arrays(arrays)
        steady = Normal(normal.mean, np.hypot(normal.sd, _STABLE))
        sizes: NDArray[np.float32] = np.abs(steady.z(self.values(inference, arrays))).mean(axis=0)
        return sizes
