"""Intensities: file values to the model's scale, and exactly back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ScanError
from medvae.settings import PrepareSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray


CLIP = 10.0  # robust z beyond this says no more than "very bright"
_P95_OF_NORMAL = 1.6448536  # half the 5–95% range of a unit normal


@dataclass(frozen=True)
class Intensity:
    """An affine map of values: prepared = clip((value − offset) / scale, low, high).

    Attributes:
        offset: in the scan's units.
        scale: in the scan's units, positive.
        low: smallest prepared value.
        high: largest prepared value.
        background: prepared value of voxels outside the foreground.
    """

    offset: float = 0.0
    scale: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    background: float = 0.0

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scan units -> prepared."""
        scaled = (values - np.float32(self.offset)) / np.float32(self.scale)
        return np.clip(scaled, self.low, self.high, out=scaled)

    def invert(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared -> scan units; exact for what was not clipped."""
        return prepared * np.float32(self.scale) + np.float32(self.offset)


def fit(
    values: NDArray[np.float32], foreground: NDArray[np.bool_], *, settings: PrepareSettings, highest: float = 1.0
) -> Intensity:
    """The intensity map of one scan with these values on the grid, and this highest value in the file.

    - `robust_z`: offset is the foreground's median; scale is its 5–95% range over that of a unit normal. The maximum is
      never used, so a bright lesion does not darken the tissue around it.
    - `window`: the two ends of the window become −1 and 1 (for CT in HU), air is the background.
    - `none`: values stay. Of a shape the highest becomes 1, as files hold 0 and 255 as often as 0 and 1.

    Raises:
        ScanError: `blank`, where the foreground has one value, or a shape none above 0.
    """
    if settings.intensity == "none":
        return Intensity() if settings.modality != "SHAPE" else _shape(highest)
    if settings.intensity == "window":
        low, high = settings.window
        return Intensity((low + high) / 2, (high - low) / 2, -1.0, 1.0, background=-1.0)
    p5, median, p95 = (float(v) for v in np.percentile(values[foreground], (5, 50, 95)))
    scale = (p95 - p5) / (2 * _P95_OF_NORMAL)
    if scale <= 0:
        raise ScanError(f"5 to 95% of the foreground have one value, {median:g}", code="blank")
    return Intensity(median, scale, -CLIP, CLIP)


def robust_spread(image: NDArray[np.float32], foreground: NDArray[np.bool_]) -> float:
    """The robust SD of the foreground, in the units of the image: 1 where preparation has divided by it.

    Args:
        image: of any shape.
        foreground: bool, the same shape.

    Raises:
        ScanError: `blank`, where the foreground has one value.
    """
    return fit(image, foreground, settings=PrepareSettings(intensity="robust_z")).scale


def _shape(highest: float) -> Intensity:
    if highest <= 0:
        raise ScanError(f"the highest value of the shape is {highest:g}", code="blank")
    return Intensity(0.0, highest, 0.0, 1.0)
