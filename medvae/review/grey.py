"""A scan as whole numbers to be looked at, not measured: 8 bits, or Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.io.nifti.write import gzipped
from medvae.review.filling import base64_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Geometry, Units

_RANGE = (0.1, 99.9)  # percentiles of the evaluated region between which its values lie, single voxels apart
_HEADROOM = 1.25  # the scale ends at this many times the value that 99.9% of the evaluated region lies below
_WINDOW = (0.5, 99.5)  # percentiles of the evaluated region that the grey values run between, as in the montage


@dataclass(frozen=True, eq=False)
class Grey:
    """A scan in few bits.

    Attributes:
        data: `(X, Y, Z)`, uint8, or int16 for Hounsfield units.
        scale: slope and intercept: number · scale[0] + scale[1] is the value in the scan's unit.
    """

    data: NDArray[np.integer] = field(repr=False)
    scale: tuple[float, float]

    @classmethod
    def of(cls, data: NDArray[np.float32], covered: NDArray[np.bool_], *, units: Units) -> Grey:
        """A scan, rounded: CT to 1 HU, so that narrow windows show steps of tissue, all else to 256 grey values.

        Values beyond the scale are at its ends: single bright voxels outside of what was evaluated, or padding with a
        very low value, would leave few grey values for the rest.

        Args:
            data: `(X, Y, Z)` in its unit.
            covered: bool `(X, Y, Z)`, what was evaluated.
            units: of the data.
        """
        if units == "HU":
            ends = np.iinfo(np.int16)
            return cls(np.rint(np.clip(data, ends.min, ends.max)).astype(np.int16), (1.0, 0.0))
        seen = data[covered] if covered.any() else data
        bottom, top = (float(one) for one in np.percentile(seen, _RANGE))
        low = max(float(data.min()), min(0.0, bottom - (top - bottom)))  # 0, the usual background, is always in it
        high = float(data.max())
        usual = low + _HEADROOM * (top - low)
        step = (min(high, usual) - low) / 255 or 1.0
        return cls(np.rint(np.clip((data - low) / step, 0, 255)).astype(np.uint8), (step, low))

    def like(self, data: NDArray[np.float32]) -> Grey:
        """Another image `(X, Y, Z)` of the same unit in the steps of this one; what lies beyond its ends is at them."""
        ends, (step, low) = np.iinfo(self.data.dtype), self.scale
        return Grey(np.rint(np.clip((data - low) / step, ends.min, ends.max)).astype(self.data.dtype), self.scale)

    def less(self, other: Grey) -> Grey:
        """The steps from another image of the same scale to this one, modulo 2⁸ or 2¹⁶: 0 where they are alike."""
        return Grey(self.data - other.data, self.scale)

    @property
    def values(self) -> NDArray[np.float32]:
        """In the scan's unit, float32 `(X, Y, Z)`."""
        values: NDArray[np.float32] = self.data.astype(np.float32) * np.float32(self.scale[0])
        return values + np.float32(self.scale[1])

    def window(self, covered: NDArray[np.bool_]) -> tuple[float, float]:
        """The values between which grey runs from black to white, in the scan's unit."""
        seen = self.data[covered] if covered.any() else self.data.ravel()
        low, high = _percentiles(seen) if self.data.dtype == np.uint8 else np.percentile(seen, _WINDOW)
        low, high = float(low), float(max(high, low + 1))
        return low * self.scale[0] + self.scale[1], high * self.scale[0] + self.scale[1]

    def letters(self, geometry: Geometry, *, description: str) -> str:
        """As a NIfTI file in letters, as pages hold it."""
        return base64_text(gzipped(self.data, geometry, description=description, scale=self.scale))


def _percentiles(seen: NDArray[np.integer]) -> NDArray[np.float64]:
    """The percentiles of `_WINDOW`, from how often each of the 256 grey values occurs: no need to sort them."""
    up_to = np.cumsum(np.bincount(seen, minlength=256))
    at = np.array(_WINDOW) / 100 * (len(seen) - 1)
    low, high = (np.searchsorted(up_to, rank, side="right") for rank in (np.floor(at), np.ceil(at)))
    between: NDArray[np.float64] = low + (high - low) * (at - np.floor(at))
    return between
