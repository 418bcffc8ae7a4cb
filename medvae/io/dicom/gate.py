"""The gate: whether the frames of a series are one volume, every reason if not, and the geometry if so.

Positions are the only witness of where slices lie. InstanceNumber, SliceLocation, SliceThickness and
SpacingBetweenSlices are never asked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import atan, degrees
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.scan import Geometry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Frame, Reason

_COSINE = 1e-3  # cosines nearer than this are one orientation
_SPACING = 1e-4  # mm; over 512 pixels 0.05 mm
_SAME = 0.01  # of the median gap: slices nearer than this lie at one position
_ZERO = 1e-3  # mm; gaps below this are none
_OFF_LINE = (0.25, 0.10)  # mm, and of the step: how far a slice may lie off the even spacing
_DRIFT = 0.01  # of the stack's length: net drift in the plane beyond this is a tilt
_SHOWN = 4  # values of a mixed tag in a message
_FEWEST = 3  # with two slices, a missing one cannot be seen


@dataclass(frozen=True)
class _Tag:
    """A tag along which a series may be mixed: its value in a frame, the largest difference that is none, its words."""

    name: str
    value: Callable[[Frame], Any]
    tolerance: float = 0
    words: Callable[[Any], str] | None = None  # None: not to be shown

    def labels(self, frames: Sequence[Frame]) -> list[int]:
        """A number for each frame, the same for values that agree; numbered as they appear."""
        known: list[Any] = []
        exact: dict[Any, int] = {}
        for value in map(self.value, frames):
            if value not in exact:
                near = (n for n, other in enumerate(known) if self.tolerance and _apart(value, other) <= self.tolerance)
                exact[value] = next(near, len(known))
                if exact[value] == len(known):
                    known.append(value)
        return [exact[value] for value in map(self.value, frames)]

    def spoken(self, frame: Frame, label: int) -> str:
        """The value of a frame as a user reads it; where it is not shown, its number."""
        return f"{self.words(self.value(frame))[:40] or 'none'}" if self.words else f"no. {label + 1}"


def _plane(cosines: Sequence[float]) -> str:
    """The anatomical plane that the cosines lie nearest to."""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(cosines[:3], cosines[3:]))))]


_TAGS = (
    _Tag("ImageOrientationPatient", lambda frame: frame.orientation, _COSINE, _plane),
    _Tag("Rows and Columns", lambda frame: frame.matrix, words=lambda matrix: f"{matrix[0]}x{matrix[1]}"),
    _Tag("PixelSpacing", lambda frame: frame.spacing, _SPACING, lambda spacing: f"{spacing[0]:.4g}x{spacing[1]:.4g}"),
    _Tag("FrameOfReferenceUID", lambda frame: frame.reference),
    _Tag("ImageType", lambda frame: frame.sort, words="\\".join),
    _Tag("EchoNumbers", lambda frame: frame.echo, words=str),
    _Tag("TemporalPositionIdentifier", lambda frame: frame.time, words=str),
)


def split(frames: Sequence[Frame]) -> list[tuple[str, list[int]]]:
    """Frames that agree in every tag of a mixed series: those tags in words, and the indices of the frames.

    Parts come in the order in which their first frames do; a series that is not mixed is one part.
    """
    mixed = _differing(frames)
    parts: dict[tuple[int, ...], list[int]] = {}
    for index in range(len(frames)):
        parts.setdefault(tuple(labels[index] for _, labels in mixed), []).append(index)
    return [(", ".join(_spoken(frames, mixed, members[0])), members) for members in parts.values()]


def arrange(frames: Sequence[Frame]) -> list[Frame]:
    """Frames of one orientation in the order of the slices: along row cosines × column cosines."""
    along = _along(frames)
    return [frames[index] for index in np.argsort(along, kind="stable")]


def check(frames: Sequence[Frame]) -> list[Reason]:
    """Every reason why frames, in the order of `arrange`, are not one volume."""
    reasons: list[Reason] = []
    mixed = _mixture(frames)
    if mixed:
        reasons.append(("mixed_series", f"mixed {mixed}"))
    if len(frames) < _FEWEST:
        reasons.append(("too_few_slices", f"{len(frames)} slice{'s'[: len(frames) != 1]}"))
    if not mixed and len(frames) > 1:
        reasons += _check_positions(frames)
    return reasons


def geometry(frames: Sequence[Frame]) -> Geometry:
    """Shape (columns, rows, slices) and affine of frames that passed the gate, in slice order: LPS becomes RAS here."""
    first, last = frames[0], frames[-1]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    between_rows, between_columns = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = row / np.linalg.norm(row) * between_columns
    affine[:3, 1] = column / np.linalg.norm(column) * between_rows
    affine[:3, 2] = np.subtract(last.position, first.position) / (len(frames) - 1)
    affine[:3, 3] = first.position
    affine[:2] *= -1
    rows, columns = first.matrix
    return Geometry((columns, rows, len(frames)), affine)


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _differing(frames: Sequence[Frame]) -> list[tuple[_Tag, list[int]]]:
    """The tags along which frames differ, with their labels."""
    return [(tag, labels) for tag in _TAGS if any(labels := tag.labels(frames))]


def _spoken(frames: Sequence[Frame], mixed: list[tuple[_Tag, list[int]]], index: int) -> list[str]:
    """What tells the part of a frame from the others."""
    return [f"{tag.name} {tag.spoken(frames[index], labels[index])}" for tag, labels in mixed]


def _mixture(frames: Sequence[Frame]) -> str:
    """The tags along which frames differ, each with how many frames have which value; "" where there are none."""
    told = []
    for tag, labels in _differing(frames):
        counts = Counter(labels)
        shown = [f"{tag.spoken(frames[labels.index(n)], n)} ({counts[n]})" for n in list(counts)[:_SHOWN]]
        told.append(f"along {tag.name}: {', '.join(shown)}{', ...' if len(counts) > _SHOWN else ''}")
    return ", ".join(told)


def _along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Position of each frame along the normal of the first."""
    return _positions(frames) @ _normal(frames[0])


def _positions(frames: Sequence[Frame]) -> NDArray[np.float64]:
    return np.array([frame.position for frame in frames], dtype=np.float64)


def _normal(frame: Frame) -> NDArray[np.float64]:
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    unit: NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def _check_positions(frames: Sequence[Frame]) -> list[Reason]:
    along = _along(frames)
    gaps = np.diff(along)
    real = gaps[gaps > _ZERO]
    if not real.size:
        return [("duplicate_positions", f"all {len(frames)} slices lie at one position")]
    reasons: list[Reason] = []
    near = gaps < _SAME * np.median(real)
    if near.any():
        distinct = int((~near).sum()) + 1
        reasons.append(("duplicate_positions", f"{len(frames)} slices lie at {distinct} positions"))
    uneven = _uneven(along[np.concatenate([[True], ~near])])
    if uneven:
        reasons.append(("uneven_spacing", uneven))
    tilt = _tilt(frames)
    if tilt:
        reasons.append(("gantry_tilt", tilt))
    return reasons


def _uneven(along: NDArray[np.float64]) -> str:
    """What is uneven about sorted positions, in words, or ""."""
    if len(along) < _FEWEST:
        return ""
    step = (along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - (along[0] + step * np.arange(len(along))))
    if off.max() <= min(_OFF_LINE[0], _OFF_LINE[1] * step):
        return ""
    gaps = np.diff(along)
    usual, widest = float(np.median(gaps)), int(np.argmax(gaps))
    times = gaps[widest] / usual
    if round(times) >= 2 and abs(times - round(times)) <= _OFF_LINE[1] * times:
        missing = f", {round(times) - 1} missing"
        return f"after slice {widest + 1} the gap is {gaps[widest]:.3f} mm, usual is {usual:.3f} mm{missing}"
    worst = int(np.argmax(off))
    return f"slice {worst + 1} lies {off[worst]:.3f} mm off an even spacing of {step:.3f} mm"


def _tilt(frames: Sequence[Frame]) -> str:
    """How the stack leans, in words, or ""."""
    whole = np.subtract(frames[-1].position, frames[0].position)
    normal = _normal(frames[0])
    length = float(whole @ normal)
    drift = float(np.linalg.norm(whole - length * normal)) / length
    return (
        "" if drift <= _DRIFT else f"the stack leans by {degrees(atan(drift)):.1f} degrees ({drift:.1%} of its length)"
    )
