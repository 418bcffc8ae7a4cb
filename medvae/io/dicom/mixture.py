"""Whether a series is one stack of one kind of image, or several that ended up under one SeriesInstanceUID.

Some tags are the same in all slices of a volume: any difference is a mixture. Others change from slice to slice in many
good volumes (AcquisitionNumber and AcquisitionTime in step-and-shoot CT, the times of interleaved MR). These count only
where their values part the slices into stacks that share their place.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.io.dicom.stack import FEWEST, along, distinct, regular
from medvae.io.dicom.tags import uid_name
from medvae.io.dicom.traits import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Frame, Vector
    from medvae.io.dicom.traits import Value

    Rule = Callable[[NDArray[np.float64], Sequence[NDArray[np.float64]]], bool]

_COSINE = 1e-3  # cosines nearer than this are one orientation
_SPACING = 1e-4  # mm; over 512 pixels 0.05 mm
_ECHO = 0.02  # ms; echo times nearer than this are one
_THICKNESS = 0.1  # mm; thicknesses nearer than this are one, rounded in two ways
_SHARED = 0.5  # of the shorter of two stacks: sharing less, they are blocks of one volume with common slices at the rim
_STRAY = 0.1  # of the slices may have values of their own beside the stacks that a tag makes
_SHOWN = 4  # values of a mixed tag in a message


@dataclass(frozen=True)
class _Tag:
    """A tag along which a series may be mixed.

    Attributes:
        name: keyword, as users read it.
        value: of a frame.
        tolerance: the largest difference that is none.
        words: a value as a user reads it; None where it is not to be shown.
        unknown: whether a missing value differs from the only one that is given.
        exact: words for values that would look the same in `words`.
    """

    name: str
    value: Callable[[Frame], Any]
    tolerance: float = 0
    words: Callable[[Any], str] | None = None
    unknown: bool = True
    exact: Callable[[Any], str] | None = None

    def labels(self, frames: Sequence[Frame]) -> list[int]:
        """A number for each frame, the same for values that agree; numbered as they appear."""
        values = [self.value(frame) for frame in frames]
        known: list[Any] = []
        exact: dict[Any, int] = {}
        for value in values:
            if value not in exact:
                exact[value] = self._near(value, known)
                if exact[value] == len(known):
                    known.append(value)
        if not self.unknown and sum(map(bool, known)) < 2:
            return [0] * len(frames)
        return [exact[value] for value in values]

    def _near(self, value: Any, known: Sequence[Any]) -> int:
        """The number of the known value that agrees with this one; the next number where none does."""
        if not self.tolerance:
            return len(known)
        return next((n for n, other in enumerate(known) if _apart(value, other) <= self.tolerance), len(known))

    def shown(self, frame: Frame, label: int) -> str:
        """The value of a frame as a user reads it; where it is not shown, its number."""
        return f"{self.words(self.value(frame))[:40] or 'none'}" if self.words else f"value {label + 1}"


@dataclass(frozen=True)
class Part:
    """One part of a series.

    Attributes:
        members: indices of its frames.
        words: the tags that tell it from other parts, each with its value; () for a series that is one.
    """

    members: tuple[int, ...]
    words: tuple[str, ...] = ()


def split(frames: Sequence[Frame]) -> list[Part]:
    """The parts of a series, in the order of their first frames; a series that is not mixed is one part."""
    return _divide(frames)[0]


def mixture(frames: Sequence[Frame]) -> str:
    """The tags that divide a series, each with how many frames have which value; "" where it is not mixed."""
    tags = [_counted(frames, tag, labels=labels) for tag, labels in _divide(frames)[1]]
    return f"the slices differ in {', in '.join(tags)}" if tags else ""


def unequal_rescale(frames: Sequence[Frame]) -> str:
    """What is unequal about the rescale of the slices of one volume, in words, or "".

    All slices of a CT have the same rescale, unless they are frames of one object that gives each its own. In other
    modalities each slice may have its own, as in PET: there only a slice without a slope or an intercept, among others
    that have both, has lost it.
    """
    if len({(frame.slope, frame.intercept) for frame in frames}) == 1:
        return ""
    if len({frame.path for frame in frames}) == 1 and all(frame.rescaled and frame.sloped for frame in frames):
        return ""
    labels = _RESCALE.labels(frames)
    return f"the slices differ in {_counted(frames, _RESCALE, labels=labels)}" if any(labels) else ""


def _counted(frames: Sequence[Frame], tag: _Tag, *, labels: Sequence[int | None]) -> str:
    """A tag and its values, each with the number of frames that have it."""
    counts = Counter(label for label in labels if label is not None)
    labelled = {n: frames[labels.index(n)] for n in list(counts)[:_SHOWN]}
    names = {n: tag.shown(frame, n) for n, frame in labelled.items()}
    if len(set(names.values())) < len(names):
        names = {n: tag.exact(tag.value(frame)) if tag.exact else f"value {n + 1}" for n, frame in labelled.items()}
    shown = ", ".join(f"{name} ({counts[n]})" for n, name in names.items())
    return f"{tag.name}: {shown}{', ...' if len(counts) > _SHOWN else ''}"


# ----------------------------------------------------------------------------------------------------------- values


def _plane(cosines: Sequence[float]) -> str:
    """The anatomical plane that the cosines lie nearest to."""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(cosines[:3], cosines[3:]))))]


def _turned_plane(cosines: Sequence[float]) -> str:
    """The plane, and by how much the cosines are turned from it."""
    axes = np.array([cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])])
    nearest = np.abs(axes).max(axis=1) / np.linalg.norm(axes, axis=1)
    return f"{_plane(cosines)} turned by {np.degrees(np.arccos(nearest.clip(max=1))).max():.2f} degrees"


def _lengths(digits: int) -> Callable[[Vector], str]:
    return lambda spacing: "x".join(f"{length:.{digits}g}" for length in spacing)


def _rescale(frame: Frame) -> tuple[float, ...] | str:
    """Slope and intercept of a CT; of another modality, whether they are given."""
    if not frame.rescaled:
        return "none"
    if frame.traits["Modality"] == "CT":
        return frame.slope, frame.intercept
    return "given" if frame.sloped else "no slope"


def _rescale_words(value: tuple[float, ...] | str) -> str:
    return value if isinstance(value, str) else f"slope {value[0]:g} and intercept {value[1]:g}"


def _unit(frame: Frame) -> str:
    """RescaleType, or what a missing one means."""
    return frame.unit or ("HU" if frame.traits["Modality"] == "CT" else "US")


def _tomographic_time(frame: Frame) -> Any:
    """Acquisition time where slices are never acquired out of order: in MR even and odd ones of one volume may be."""
    return frame.traits["AcquisitionDateTime"] if frame.traits["Modality"] in ("CT", "PT") else ""


def _clock(value: Any) -> str:
    """The time of day alone: a date may identify a patient."""
    text = words_of(value)
    return re.sub(r"^\d{8} ?", "", text) or ("a date" if text else "")


def _apart(one: Value, other: Value) -> float:
    if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
        return float("inf")
    return max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0)


def _trait(
    name: str, unit: str = "", *, key: str = "", tolerance: float = 0, shown: bool = True, unknown: bool = True
) -> _Tag:
    """A tag whose value is a trait of the frame, `name` unless there is a `key`."""

    def words(value: Any) -> str:
        text = words_of(value)
        return f"{text}{unit}" if text else ""

    return _Tag(name, lambda frame: frame.traits[key or name], tolerance, words if shown else None, unknown=unknown)


# ------------------------------------------------------------------------------------------------------------ rules
# Each takes the heights of slices along their normal, and the same heights grouped by the value of a tag, and decides
# whether the groups are separate stacks at one place.


def _share_place(groups: Iterable[NDArray[np.float64]]) -> bool:
    """Whether two stacks lie in each other over more than their rims."""
    ends = [(float(group.min()), float(group.max())) for group in groups]
    return any(
        min(a[1], b[1]) - max(a[0], b[0]) > _SHARED * min(a[1] - a[0], b[1] - b[0]) for a, b in combinations(ends, 2)
    )


def _contrast(heights: NDArray[np.float64], groups: Sequence[NDArray[np.float64]]) -> bool:
    """The slices are no stack as they are; those of each value share the place of others."""
    return not regular(heights) and _share_place(groups)


def _acquisition(heights: NDArray[np.float64], groups: Sequence[NDArray[np.float64]]) -> bool:
    """As `_contrast`, or each value has a stack of its own whose slices lie between those of another."""
    return _share_place(groups) and (not regular(heights) or all(map(regular, groups)))


def _time(heights: NDArray[np.float64], groups: Sequence[NDArray[np.float64]]) -> bool:
    """Positions are taken several times, and each value has one slice at every position."""
    places = len(distinct(heights))
    return places < len(heights) and all(len(group) == len(distinct(group)) == places for group in groups)


_RESCALE = _Tag("RescaleSlope and RescaleIntercept", _rescale, words=_rescale_words)
_ALWAYS = (
    _Tag("ImageOrientationPatient", lambda frame: frame.orientation, _COSINE, _plane, exact=_turned_plane),
    _Tag("Rows and Columns", lambda frame: frame.matrix, words=lambda matrix: f"{matrix[0]}x{matrix[1]}"),
    _Tag("PixelSpacing", lambda frame: frame.spacing, _SPACING, _lengths(4), exact=_lengths(8)),
    _Tag("FrameOfReferenceUID", lambda frame: frame.reference),
    _Tag("PatientID", lambda frame: frame.person.patient, unknown=False),
    _trait("StudyInstanceUID", shown=False, unknown=False),
    _trait("Modality", unknown=False),
    _trait("ImageType"),
    _trait("EchoNumbers"),
    _trait("EchoTime", " ms", tolerance=_ECHO, unknown=False),
    _trait("TemporalPositionIdentifier"),
    _Tag("RescaleType", _unit, words=str),
    _trait("Units", unknown=False),
    _trait("PhotometricInterpretation", unknown=False),
)
_SOMETIMES: tuple[tuple[Rule, _Tag], ...] = (
    (_acquisition, _Tag("PatientName", lambda frame: frame.person.name, unknown=False)),
    (_acquisition, _Tag("PatientBirthDate", lambda frame: frame.person.birth, unknown=False)),
    (_acquisition, _Tag("PatientSex", lambda frame: frame.person.sex, unknown=False)),
    (_acquisition, _trait("StudyDate", shown=False)),
    (_acquisition, _trait("SeriesNumber")),
    (_acquisition, _trait("SeriesDescription")),
    (_acquisition, _trait("DiffusionBValue", " s/mm2")),
    (_acquisition, _trait("ConvolutionKernel")),
    (_acquisition, _trait("KVP", " kV")),
    (_contrast, _Tag("SOPClassUID", lambda frame: frame.traits["SOPClassUID"], words=uid_name)),
    (_contrast, _trait("ImageType", key="ImageType (origin)")),
    (_contrast, _trait("EchoTime", " ms", tolerance=_ECHO)),
    (_acquisition, _trait("InversionTime", " ms")),
    (_contrast, _trait("FlipAngle", " degrees")),
    (_contrast, _trait("RepetitionTime", " ms")),
    (_contrast, _trait("DiffusionGradientOrientation")),
    (_acquisition, _trait("SequenceName")),
    (_contrast, _trait("ScanOptions")),
    (_acquisition, _trait("ContrastBolusAgent")),
    (_acquisition, _trait("SliceThickness", " mm", tolerance=_THICKNESS)),
    (_contrast, _Tag("RescaleSlope and RescaleIntercept", lambda f: (f.slope, f.intercept), words=_rescale_words)),
    (_contrast, _trait("StackID")),
    (_contrast, _trait("NominalPercentageOfCardiacPhase", " %")),
    (_contrast, _trait("NominalPercentageOfRespiratoryPhase", " %")),
    (_acquisition, _trait("AcquisitionNumber")),
    (_acquisition, _trait("AcquisitionUID", shown=False)),
    (_acquisition, _trait("IrradiationEventUID", shown=False)),
    (_acquisition, _Tag("AcquisitionTime", _tomographic_time, words=_clock)),
    (_time, _trait("TriggerTime", " ms")),
    (_time, _trait("TemporalPositionTimeOffset", " s")),
    (_time, _Tag("AcquisitionTime", lambda frame: frame.traits["AcquisitionDateTime"], words=_clock)),
    (_time, _trait("ContentTime")),
)


# --------------------------------------------------------------------------------------------------------- division


def _divide(frames: Sequence[Frame]) -> tuple[list[Part], list[tuple[_Tag, list[int | None]]]]:
    """The parts of a series, and the tags that divide it with the label of each frame (None: not divided by it)."""
    found: list[tuple[_Tag, list[int | None]]] = []
    parts = [Part(tuple(range(len(frames))))] if frames else []
    for tag in _ALWAYS:
        if any(labels := tag.labels(frames)):
            found.append((tag, list(labels)))
            parts = [piece for part in parts for piece in _pieces(frames, part, tag, labels=labels)]
    for rule, tag in _SOMETIMES:
        if not any(labels := tag.labels(frames)):
            continue
        divided = [part for part in parts if _divides(frames, part, rule, labels=labels)]
        if divided:
            inside = {member for part in divided for member in part.members}
            found.append((tag, [label if n in inside else None for n, label in enumerate(labels)]))
            parts = [
                piece
                for part in parts
                for piece in (_pieces(frames, part, tag, labels=labels) if part in divided else [part])
            ]
    return sorted(parts, key=lambda part: part.members[0]), found


def _pieces(frames: Sequence[Frame], part: Part, tag: _Tag, *, labels: Sequence[int]) -> list[Part]:
    """The frames of a part by their labels."""
    groups: dict[int, list[int]] = {}
    for member in part.members:
        groups.setdefault(labels[member], []).append(member)
    return [
        Part(tuple(members), (*part.words, f"{tag.name} {tag.shown(frames[members[0]], label)}"))
        for label, members in groups.items()
    ]


def _divides(frames: Sequence[Frame], part: Part, rule: Rule, *, labels: Sequence[int]) -> bool:
    """Whether the labels part the frames of a part into several stacks that share their place.

    Values of a few slices only make no stack. Where there are many of them, the tag changes from slice to slice.
    """
    own = np.array([labels[member] for member in part.members])
    kinds, counts = np.unique(own, return_counts=True)
    large = kinds[counts >= FEWEST]
    if len(large) < 2 or counts[counts < FEWEST].sum() > _STRAY * len(own):
        return False
    heights = along([frames[member] for member in part.members])
    groups = [heights[own == kind] for kind in large]
    return min(len(distinct(group)) for group in groups) >= FEWEST and rule(heights, groups)
