"""What a denoiser takes for coarse noise, in units of its healthy spread at each voxel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from medvae.anomaly.maps._matched import in_greys_of
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
    """|z − m| / max(1, t), z = (d − μ) / √(s² + ε²), d = n − h(x − n), ε = 0.1, n what a denoiser removes from x.

    The denoiser of the detector has learned to remove coarse Gaussian noise from healthy scans (Kascenas et al., MIDL
    2022). It sees the scan through no bottleneck: healthy detail stays, and a region that deviates from the surrounding
    tissue is changed. h is the median of n among the voxels of a grey value, and m and t are median and robust SD of z
    over the scan: both take off what is due to the contrast and noise of another scanner. With ε, meant for intensities
    in robust SDs, a network that changes next to nothing marks nothing.
    """

    NEEDS_DETECTOR = True

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """d."""
        inside, noise = inference.foreground, inference.noise
        pairs = zip(noise, inference.prepared.image - noise, strict=True)
        return np.stack([one - in_greys_of(one, without, inside) for one, without in pairs])

    def sizes(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """|z − m| / max(1, t) by voxel, the mean over channels, `(X, Y, Z)`."""
        usual = Normal.from_arrays(arrays)
        z = Normal(usual.mean, np.hypot(usual.sd, _STABLE)).z(self.values(inference, arrays))
        own = z[:, inference.foreground]
        middle = np.median(own, axis=1, keepdims=True)
        spread = np.maximum(1, stats.median_abs_deviation(own, axis=1, scale="normal"))
        sizes: NDArray[np.float32] = (np.abs(z - middle[..., None, None]) / spread[:, None, None, None]).mean(axis=0)
        return sizes
