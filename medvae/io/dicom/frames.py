"""From the header of a DICOM file to its frames: what kind of object it is, and where and how each frame is stored.

Geometry and rescale of a multi-frame object come from the functional groups of each frame, shared ones as fallback,
never from the top level, which may be wrong in such files. Everything is LPS here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ScanError
from medvae.io.dicom.subjects import person_of
from medvae.io.dicom.tags import Tags, broken, uid_name
from medvae.io.dicom.traits import image_type_of, modality_of, traits_of_file, traits_of_frame

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medvae.io.dicom.header import Header
    from medvae.io.dicom.subjects import Person
    from medvae.io.dicom.traits import Value

Reason = tuple[str, str]  # code and message
Vector = tuple[float, ...]

_ROOT = "1.2.840.10008.5.1.4.1.1."
_ENHANCED = {_ROOT + number for number in ("2.1", "2.2", "4.1", "4.4", "128.1", "130")}  # and converted to it
_VOLUMES = _ENHANCED | {_ROOT + number for number in ("2", "4", "128")}  # CT, MR, PET
_CAPTURES = {_ROOT + number for number in ("7", "7.1", "7.2", "7.3", "7.4")}  # secondary capture
_DICOMDIR = "1.2.840.10008.1.3.10"
_MODALITIES = ("CT", "MR", "PT")
_FINEST, _FARTHEST = 1e-4, 1e6  # mm: what cannot be a spacing, or a place
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_DTYPES = {8: "int8", 16: "int16", 32: "int32"}


@dataclass(frozen=True, slots=True)
class Stored:
    """How the pixels of a file are stored.

    Attributes:
        rows, columns: of one frame.
        allocated, stored, high: bits of a pixel's cell, bits used, number of the highest one used.
        signed: two's complement.
        padding: lowest and highest stored value that means "no pixel here", or None.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool
    padding: tuple[int, int] | None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """NumPy's type of a cell, little endian."""
        return np.dtype(("" if self.signed else "u") + _DTYPES[self.allocated]).newbyteorder("<")

    @property
    def nbytes(self) -> int:
        """Bytes of one frame, uncompressed."""
        return self.rows * self.columns * self.allocated // 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice of a series: where it lies (LPS, mm), what kind of image it is, and how its values become real ones.

    Attributes:
        path, number: the file, and which of its frames, from 0.
        position: centre of the first pixel.
        orientation: direction in which columns advance, then the one in which rows do: the row and column cosines.
        spacing: mm between rows, mm between columns: the order of PixelSpacing.
        matrix: rows, columns.
        reference: FrameOfReferenceUID.
        person: who was scanned.
        traits: what kind of image it is, by keyword.
        slope, intercept, unit: of the rescale; the unit is RescaleType, "" where not given.
        rescaled, sloped: whether the file gives an intercept, and a slope: each may stand without the other.
    """

    path: Path
    number: int
    position: Vector
    orientation: Vector
    spacing: Vector
    matrix: tuple[int, int]
    reference: str
    person: Person = field(repr=False)
    traits: Mapping[str, Value] = field(repr=False)
    slope: float
    intercept: float
    unit: str
    rescaled: bool
    sloped: bool


@dataclass(frozen=True, slots=True)
class Image:
    """The image that the header of one file describes.

    Attributes:
        header: where it comes from.
        stored: how pixels are stored.
        count: number of frames in the file.
        frames: its frames; empty where the geometry is missing.
        problems: why it cannot be used, as far as one file shows.
    """

    header: Header
    stored: Stored
    count: int
    frames: tuple[Frame, ...]
    problems: tuple[Reason, ...]

    @property
    def modality(self) -> str:
        """Modality as written in the file, or that of the SOP class."""
        return modality_of(self.header.tags)


def kind_of(header: Header) -> str:
    """What the object is, in words, if it is not an image volume; "" if it is one."""
    tags = header.tags
    if header.media == _DICOMDIR:
        return "a DICOMDIR, the index of a medium"
    sop_class = tags.text("SOPClassUID") or header.media
    if sop_class in _CAPTURES:
        if "ImagePositionPatient" not in tags and "PerFrameFunctionalGroupsSequence" not in tags:
            return f"{_class_name(sop_class)} without a position in space"
    elif sop_class not in _VOLUMES:
        name = _class_name(sop_class)
        if name or tags.text("Modality") not in _MODALITIES:
            return name or f"an object of modality {tags.text('Modality')[:16] or 'unknown'}"
    if "LOCALIZER" in tags.texts("ImageType"):
        return "a localizer"
    return "an anomaly map" if "HEATMAP" in tags.texts("ImageType") else ""


def image_of(header: Header) -> Image:
    """The image in a file.

    Raises:
        ScanError: `not_image` with the kind in words; `malformed`, `truncated` or `unsupported_type`.
    """
    try:
        if header.problem:
            raise ScanError(header.problem[1], code=header.problem[0])
        count = header.tags.whole("NumberOfFrames") if "NumberOfFrames" in header.tags else 1
        if not count or count < 1:
            broken("NumberOfFrames", header.tags.raw("NumberOfFrames"))
        if kind := kind_of(header) or _without_pixels(header):
            raise ScanError(f"{kind}: not an image volume", code="not_image")
        stored = _stored(header.tags)
        problems = _problems(header, stored, count)
        try:
            frames = _frames(header, stored, count)
        except ScanError as problem:
            if problem.code != "no_geometry":
                raise
            frames, problems = (), [*problems, (problem.code, problem.message)]
    except ScanError as problem:
        raise ScanError(problem.message, code=problem.code, path=header.path) from None
    return Image(header, stored, count, frames, tuple(problems))


def _without_pixels(header: Header) -> str:
    if header.pixels is not None or not header.tags.text("SeriesInstanceUID"):
        return ""
    return f"{_class_name(header.tags.text('SOPClassUID')) or 'an object'} without pixel data"


def _class_name(uid: str) -> str:
    """The name of a standard SOP class without "Storage"; "" for a private or missing one."""
    return uid_name(uid).removesuffix(" Storage").removesuffix(" Image")


def _stored(tags: Tags) -> Stored:
    numbers = {}
    for name in ("Rows", "Columns", "BitsAllocated"):
        value = tags.binary(name)
        if not value:
            raise ScanError(f"{name} is {'missing' if value is None else 0}", code="malformed")
        numbers[name] = value
    allocated = numbers["BitsAllocated"]
    if allocated not in _DTYPES:
        raise ScanError(f"BitsAllocated is {allocated}; 8, 16 and 32 are supported", code="unsupported_type")
    used = tags.binary("BitsStored") or allocated
    high = tags.binary("HighBit")
    high = used - 1 if high is None else high
    if not 1 <= used <= high + 1 <= allocated:
        raise ScanError(f"{used} bits up to bit {high} do not fit into {allocated} bits", code="malformed")
    signed = tags.binary("PixelRepresentation") == 1
    return Stored(
        numbers["Rows"], numbers["Columns"], allocated, used, high, signed, _padding(tags, allocated, signed=signed)
    )


def _padding(tags: Tags, allocated: int, *, signed: bool) -> tuple[int, int] | None:
    """PixelPaddingValue to PixelPaddingRangeLimit, read by PixelRepresentation whatever VR they were written with."""
    values = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if raw := tags.raw(name):
            order = "big" if tags.order == ">" else "little"
            value = int.from_bytes(raw, order, signed=True)  # type: ignore[arg-type]
            value %= 1 << allocated
            values.append(value - (1 << allocated) if signed and value >> (allocated - 1) else value)
    return (min(values), max(values)) if values else None


def _problems(header: Header, stored: Stored, count: int) -> list[Reason]:
    tags = header.tags
    problems: list[Reason] = []
    if not tags.text("SeriesInstanceUID"):
        problems.append(("malformed", "SeriesInstanceUID is missing"))
    samples = tags.binary("SamplesPerPixel") or 1
    photometric = tags.text("PhotometricInterpretation")
    if samples != 1 or (photometric and not photometric.startswith("MONOCHROME")):
        problems.append(("colour", f"{samples} samples per pixel, {photometric[:16]}"))
    if "MOSAIC" in tags.texts("ImageType"):
        problems.append(("mosaic", "ImageType is MOSAIC: one frame holds several slices"))
    if tags.items("ModalityLUTSequence"):
        problems.append(("modality_lut", "ModalityLUTSequence is present"))
    return problems + _pixel_problems(header, stored.nbytes * samples, count)


def _pixel_problems(header: Header, nbytes: int, count: int) -> list[Reason]:
    """What is wrong with the pixels of `count` frames of `nbytes` each, as far as their place and length show."""
    pixels = header.pixels
    if pixels is None:
        return [("malformed", "there is no pixel data")]
    if pixels.name != "PixelData":
        return [("unsupported_type", f"pixels are stored as {pixels.name}")]
    length = nbytes * count if pixels.length is None else pixels.length
    if not pixels.complete or length < nbytes * count:
        return [("truncated", f"the file ends before the end of its {nbytes * count} bytes of pixels")]
    if length >= nbytes * (count + 1):
        return [("malformed", f"PixelData has {length} bytes, the header describes {nbytes * count}")]
    return []


def _frames(header: Header, stored: Stored, count: int) -> tuple[Frame, ...]:
    tags = header.tags
    person, traits = person_of(tags), traits_of_file(tags)
    if "PerFrameFunctionalGroupsSequence" not in tags:
        if count != 1 or tags.text("SOPClassUID") in _ENHANCED:
            raise ScanError("no functional groups with the positions of the frames", code="no_geometry")
        traits |= image_type_of(tags) | traits_of_frame(tags)
        return (_frame(header, stored, 0, (tags, tags, tags, tags), kind=(person, traits)),)
    groups = tags.items("PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        raise ScanError(f"NumberOfFrames is {count}, but {len(groups)} frames are described", code="malformed")
    shared = tags.first("SharedFunctionalGroupsSequence")
    frames = []
    for number, own in enumerate(groups):
        where = tuple(own.first(name) if name in own else shared.first(name) for name in _MACROS)
        own_traits = traits | image_type_of(tags, (own, shared)) | traits_of_frame(tags, (own, shared))
        frames.append(_frame(header, stored, number, where, kind=(person, own_traits)))
    return tuple(frames)


def _frame(
    header: Header,
    stored: Stored,
    number: int,
    groups: tuple[Tags, ...],
    *,
    kind: tuple[Person, Mapping[str, Value]],
) -> Frame:
    """A frame of the elements that give position, orientation, spacing and rescale."""
    *macros, rescale = groups
    position, orientation, spacing = (
        _given(tags, name, count)
        for tags, name, count in zip(
            macros, ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"), (3, 6, 2), strict=True
        )
    )
    row, column = orientation[:3], orientation[3:]
    if max(abs(hypot(*row) - 1), abs(hypot(*column) - 1), abs(sum(map(mul, row, column)))) > 0.01:
        broken("ImageOrientationPatient", macros[1].raw("ImageOrientationPatient"))
    if min(spacing) < _FINEST:
        broken("PixelSpacing", macros[2].raw("PixelSpacing"))
    slope = (rescale.numbers("RescaleSlope", 1) or (1.0,))[0]
    if slope == 0:
        broken("RescaleSlope", rescale.raw("RescaleSlope"))
    return Frame(
        path=header.path,
        number=number,
        position=position,
        orientation=orientation,
        spacing=spacing,
        matrix=(stored.rows, stored.columns),
        reference=header.tags.text("FrameOfReferenceUID"),
        person=kind[0],
        traits=kind[1],
        slope=slope,
        intercept=(rescale.numbers("RescaleIntercept", 1) or (0.0,))[0],
        unit=rescale.text("RescaleType"),
        rescaled="RescaleIntercept" in rescale,
        sloped="RescaleSlope" in rescale,
    )


def _given(tags: Tags, name: str, count: int) -> Vector:
    values = tags.numbers(name, count)
    if not values:
        raise ScanError(f"{name} is missing", code="no_geometry")
    if max(map(abs, values)) > _FARTHEST:
        broken(name, tags.raw(name))
    return values
