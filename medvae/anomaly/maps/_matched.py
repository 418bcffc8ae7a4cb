"""Base of the maps that compare a scan with what is expected of it, in its own grey values, at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from medvae.anomaly.maps._normative import Normative
from medvae.anomaly.maps._shared import smooth_foreground

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference

_BINS = 24  # of expected values, with as many voxels each; a lesion that fills half of one bends the match


class Matched(Normative):
    """Mean over σ in `scales_mm` of |(G_σ d − μ)/s|, less √(2/π), with d = x − f(e); μ and s are those of each scale.

    e is what `expected` gives, and f the grey values of this scan for those of e: another scanner's contrast between
    tissues is not an anomaly. d is smoothed before its absolute value is taken: noise and fine anatomy cancel, and what
    has one sign over a region, as lesions have, stays. A map derives from this class and implements `expected`.
    """

    FIXED_OPTIONS: ClassVar[tuple[str, ...]] = ("scales_mm",)  # the statistics are of smoothed differences

    def expected(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """e, `(C, X, Y, Z)`. Of `arrays` only `used` may be read."""
        raise NotImplementedError

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """G_σ d for each scale and channel, `(scales · C, X, Y, Z)`."""
        inside, scales = inference.foreground, self.settings.scales_mm
        pairs = zip(inference.prepared.image, self.expected(inference, arrays), strict=True)
        apart = [image - in_greys_of(image, expected, inside) for image, expected in pairs]
        return np.stack([smooth_foreground(one, inference, mm=mm) for mm in scales for one in apart])

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        above = self.sizes(inference, arrays) - np.float32(self.EXPECTED)
        return np.where(inference.foreground, above, np.float32(0))


def in_greys_of(
    image: NDArray[np.float32], expected: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """f(`expected`), `(X, Y, Z)`, 0 outside: medians of the image in 24 bins of expected values, interpolated.

    Each bin has as many voxels; its centre is its median. The medians do not follow a lesion that fills less than half
    of each bin.
    """
    values, own = expected[inside], image[inside]
    borders = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])
    place = np.searchsorted(borders, values, side="right")
    parts = [place == number for number in np.unique(place)]
    centres, greys = ([float(np.median(one[part])) for part in parts] for one in (values, own))
    found = np.zeros_like(image)
    found[inside] = np.interp(values, centres, greys)
    return found
