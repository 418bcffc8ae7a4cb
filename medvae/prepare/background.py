"""The background of a stripped scan: one value around the tissue, which may be any value, also one that tissue has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Scan

T = TypeVar("T", bound=np.generic)
_ONE_VALUE = 1e-4  # of the range: nearer than this is the same value (images that were interpolated have a dust)
_RIM = 0.3  # a value that fills this share of the image's six faces is the background
_DARKEST = 0.01  # percentile of the tissue: what is far darker are single voxels that are not tissue
_DARKER, _BELOW_P5 = 0.5, 2.5  # spreads of the tissue below that percentile, and below the fifth: farther is far
_AMONG = 0.05  # a background with this share of the tissue below it is not what is dark in the scan
_FAR = 5.0  # spreads of the tissue: no background of a magnitude image is so far below its darkest tissue
_P95_OF_NORMAL = 1.6448536
_CORE_MM = 2.0  # background is somewhere thicker than twice this; tissue of the same value is not


@dataclass(frozen=True, eq=False)
class Background:
    """What is not tissue in a scan.

    Attributes:
        where: bool `(X, Y, Z)`.
        level: its value.
        stands_for: the value that it has to have to be darker than the tissue, as it is in a magnitude image; `level`
            where it is that already.
    """

    where: NDArray[np.bool_] = field(repr=False)
    level: float
    stands_for: float

    @property
    def odd(self) -> bool:
        """Whether its value is not that of a magnitude image."""
        return self.stands_for != self.level


def find_background(scan: Scan) -> Background:
    """Where a scan has the one value of its background: 0, or what fills the faces of the image.

    A brain that was scaled to z-scores inside its mask keeps 0 outside, which is then the value of mean tissue; others
    have their background at -1000. Both say nothing about the tissue, and would be mixed into its rim by resampling.
    """
    data = scan.data
    level, near = value_of_faces(data) or (np.float32(0), np.float32(0))
    where = np.abs(data - level) <= near
    tissue = data[~where if scan.valid is None else ~where & scan.valid]
    if not tissue.size:
        return Background(where, float(level), float(level))
    among = np.mean(tissue < level) >= _AMONG
    if not among and level == 0:  # a magnitude image, as it came from the scanner
        return Background(where, float(level), float(level))
    darkest, spread = _darkest(tissue)
    if among:
        where = _thick(where, spacing=scan.geometry.spacing)
        return Background(where, float(level), darkest if where.any() else float(level))
    return Background(where, float(level), darkest if darkest - level > _FAR * spread else float(level))


def darkened(scan: Scan, background: Background) -> Scan:
    """The scan with a background that is darker than the tissue; the scan itself where it is that already.

    NaN all around a brain is background as well: taken for unknown, the rim would be brighter than in other scans.
    """
    unknown = _unknown_outside(scan)
    where = np.zeros(scan.data.shape, bool) if unknown is None else unknown
    where = where | background.where if background.odd else where
    if not where.any():
        return scan
    valid = scan.valid if scan.valid is None else scan.valid | where
    return replace(scan, data=np.where(where, np.float32(background.stands_for), scan.data), valid=valid)


def value_of_faces(data: NDArray[np.float32]) -> tuple[np.float32, np.float32] | None:
    """The one value that fills the faces of an image, and how near to it the same value is; None if none does."""
    rim = _faces(data)
    low, high = np.percentile(data[::3, ::3, ::3], (0.5, 99.5))
    level, near = np.median(rim), np.float32(_ONE_VALUE * (high - low))
    return (level, near) if np.mean(np.abs(rim - level) <= near) >= _RIM else None


def _faces(data: NDArray[T]) -> NDArray[T]:
    """What lies on the six faces of an image `(X, Y, Z)`, in one row."""
    return np.concatenate([np.take(data, end, axis).ravel() for axis in range(3) for end in (0, -1)])


def _unknown_outside(scan: Scan) -> NDArray[np.bool_] | None:
    """Filled voxels that are background: those that join the faces of the image, where most of these were filled."""
    if scan.valid is None or np.mean(~_faces(scan.valid)) < _RIM:
        return None
    thick = _thick(~scan.valid, spacing=scan.geometry.spacing)
    outside: NDArray[np.bool_] = ~ndimage.binary_fill_holes(~thick)
    return outside


def _darkest(tissue: NDArray[np.float32]) -> tuple[float, float]:
    """The lowest value of the tissue, single outliers aside, and the tissue's spread as in `robust_z`."""
    low, p5, p95 = (float(v) for v in np.percentile(tissue, (_DARKEST, 5, 95)))
    spread = (p95 - p5) / (2 * _P95_OF_NORMAL)
    return max(float(tissue.min()), low - _DARKER * spread, p5 - _BELOW_P5 * spread), spread


def _thick(where: NDArray[np.bool_], *, spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Without voxels of tissue that happen to have the background's value; thin parts that join the rest stay."""
    steps = max(1, round(_CORE_MM / min(spacing)))
    core = ndimage.binary_opening(np.pad(where, steps, mode="edge"), iterations=steps)
    core = core[steps:-steps, steps:-steps, steps:-steps] & where
    thick: NDArray[np.bool_] = ndimage.binary_propagation(core, mask=where)
    return thick
