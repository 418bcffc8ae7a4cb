"""Local contrast that the scan has lost or gained relative to its reconstruction, in SD of healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.anomaly.maps._normative import Normative, Scales
from medvae.anomaly.maps._shared import smooth_foreground
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference

_STABLE = np.float32(0.1)  # prepared intensities; contrast below it is noise


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (3.0, 6.0, 9.0)
    window_mm: float = Field(2.0, gt=0, description="σ of the Gaussian window in which contrast is measured, mm")


class Map(Normative):
    """|z| of l = ln (σ_x + ε) / (σ_x̂ + ε) minus its median over the scan; σ is the local SD, ε = 0.1.

    The contrast term of SSIM (Wang et al., 2003; Huijben et al., 2024) is 2 σ_x σ_x̂ / (σ_x² + σ_x̂²) = 1 / cosh l but
    for ε: l keeps the sign, so that usual blur of the reconstruction is expected, and less contrast than usual counts
    as much as more. The median takes off what a scanner changes throughout. Windows end at the foreground.
    """

    FIXED_OPTIONS = ("window_mm",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The log ratio of the two local contrasts, minus its median."""
        pairs = zip(inference.prepared.image, inference.reconstruction, strict=True)
        return np.stack([self._log_ratio(scan, other, inference) for scan, other in pairs])

    def _log_ratio(
        self, scan: NDArray[np.float32], other: NDArray[np.float32], inference: Inference
    ) -> NDArray[np.float32]:
        inside = inference.foreground
        own, theirs = (self._contrast(image, inference) + _STABLE for image in (scan, other))
        ratio: NDArray[np.float32] = np.log(own / theirs)
        return ratio - np.median(ratio[inside])

    def _contrast(self, image: NDArray[np.float32], inference: Inference) -> NDArray[np.float32]:
        """The local standard deviation, `(X, Y, Z)`."""
        mm = self.settings.window_mm
        mean, square = (smooth_foreground(values, inference, mm=mm) for values in (image, image**2))
        contrast: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, np.float32(0)))
        return contrast
