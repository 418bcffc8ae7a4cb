"""How slices lie along the normal of their planes: at one place, evenly spaced, sheared. LPS, mm.

Only ImagePositionPatient counts. InstanceNumber, SliceLocation, SliceThickness and SpacingBetweenSlices are often wrong
and never used.
"""

from __future__ import annotations

from math import atan, degrees
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Frame

FEWEST = 3  # slices; with two, a missing one cannot be seen
_SAME = 0.01  # of the median gap: slices nearer than this lie at one position
_ZERO = 1e-3  # mm; gaps below this are none
_OFF_LINE = (0.25, 0.10)  # mm, and of the step: how far a slice may lie off the even spacing
_DRIFT = 0.01  # of the stack's length: net drift in the plane, or a slice aside of the line, beyond this is a tilt


def along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Position of each frame along the normal of the first, mm."""
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    heights: NDArray[np.float64] = positions @ _normal(frames[0])
    return heights


def distinct(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights in ascending order, of those at one position the first."""
    heights = np.sort(heights)
    gaps = np.diff(heights)
    real = gaps[gaps > _ZERO]
    if not real.size:
        return heights[:1]
    apart: NDArray[np.bool_] = gaps >= _SAME * np.median(real)
    places: NDArray[np.float64] = heights[np.concatenate([[True], apart])]
    return places


def uneven(heights: NDArray[np.float64]) -> str:
    """What is uneven about distinct heights, in words, or ""."""
    if len(heights) < FEWEST:
        return ""
    step = (heights[-1] - heights[0]) / (len(heights) - 1)
    off = np.abs(heights - (heights[0] + step * np.arange(len(heights))))
    if off.max() <= min(_OFF_LINE[0], _OFF_LINE[1] * step):
        return ""
    gaps = np.diff(heights)
    usual, widest = float(np.median(gaps)), int(np.argmax(gaps))
    times = gaps[widest] / usual
    if round(times) >= 2 and abs(times - round(times)) <= _OFF_LINE[1] * times:
        missing = f", {round(times) - 1} missing"
        return f"after slice {widest + 1} the gap is {gaps[widest]:.3f} mm instead of {usual:.3f} mm{missing}"
    worst = int(np.argmax(off))
    return f"slice {worst + 1} lies {off[worst]:.3f} mm off an even spacing of {step:.3f} mm"


def regular(heights: NDArray[np.float64]) -> bool:
    """Whether heights are distinct and evenly spaced."""
    return len(distinct(heights)) == len(heights) and not uneven(np.sort(heights))


def tilt(frames: Sequence[Frame]) -> str:
    """How far a stack in slice order is tilted, or one of its slices shifted in its plane, in words, or ""."""
    positions = np.array([frame.position for frame in frames]) - frames[0].position
    normal = _normal(frames[0])
    heights = positions @ normal
    length = float(heights[-1])
    aside = positions - np.outer(heights, normal)
    drift = float(np.linalg.norm(aside[-1])) / length
    if drift > _DRIFT:
        return f"the stack is tilted by {degrees(atan(drift)):.1f} degrees ({drift:.1%} of its length)"
    off_line = np.linalg.norm(aside - np.outer(heights / length, aside[-1]), axis=1)
    worst = int(np.argmax(off_line))
    if off_line[worst] > max(_OFF_LINE[0], _DRIFT * length):
        return f"slice {worst + 1} is shifted by {off_line[worst]:.1f} mm in its plane"
    return ""


def _normal(frame: Frame) -> NDArray[np.float64]:
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    unit: NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit
