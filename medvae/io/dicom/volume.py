"""A series as one volume: its headers go through the gate, and all its problems are collected before it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from math import dist
from typing import TYPE_CHECKING, cast

from medvae.errors import ScanError
from medvae.io.dicom.frames import Image, image_of
from medvae.io.dicom.gate import arrange, check, geometry
from medvae.io.dicom.header import read_header
from medvae.io.dicom.mixture import unequal_rescale
from medvae.io.dicom.pixels import check_decodable, same_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.io.dicom.frames import Frame
    from medvae.scan import Geometry, Modality, ScanRef, Units
    from medvae.settings import ReadSettings

_PET_UNITS: dict[str, Units] = {"BQML": "BQML", "GML": "SUV"}
_AGENT = "contrast_agent: the header names a contrast agent (ContrastBolusAgent)"
_INVERTED = "MONOCHROME1: stored values count, and viewers show high ones dark; invert them if the model expects that"
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # JPEG baseline and extended, which are never lossless
_NO_AGENT = ("", "no", "none", "n", "n/a", "without", "no contrast")  # what is written where none was given
_ONE_UID = "export the series again, every image with a SOPInstanceUID of its own"
_SAME_PLACE = 0.1  # mm
_UNEQUAL = "export the series again: some slices have lost their rescale, or come from another export"


@dataclass(frozen=True)
class Volume:
    """A series that passed the gate; its pixels are not read yet.

    Attributes:
        images: its files, without copies.
        frames: its slices, in order.
        geometry: where its voxels lie, RAS+.
        modality: "CT", "MR", "PT", or the user's where the file has none of these.
        units: of the rescaled values.
        warnings: what a user should know.
    """

    images: list[Image]
    frames: list[Frame]
    geometry: Geometry
    modality: Modality | None
    units: Units
    warnings: tuple[str, ...]


def open_series(ref: ScanRef, settings: ReadSettings) -> Volume:
    """All headers of a series, through the gate.

    Raises:
        ScanError: the series cannot be used; the message has all reasons, the first in the table of codes is the code.
        OSError: a file cannot be opened.
    """
    images, problems = _images(ref)
    if len(images) < len(ref.paths):
        raise _combined(problems)
    frames = [frame for image in images for frame in image.frames]
    if ref.frames:
        frames = [frames[index] for index in ref.frames if index < len(frames)]
    images, copies, differing = _without_copies(images, settings)
    kept = {image.header.path for image in images}
    frames = [frame for frame in frames if frame.path in kept]
    problems += differing
    if frames and all(image.frames for image in images):
        frames = arrange(frames)
        problems += _gate(frames, settings, ref=ref)
    if problems:
        raise _combined(problems)
    modality, units, warnings = _meaning(images, frames, ref.modality or settings.modality)
    if copies:
        warnings.insert(0, f"{copies} duplicate file{'s'[: copies > 1]} left out")
    if ref.part:
        warnings.insert(0, f"part of a mixed series: {ref.part}")
    return Volume(images, frames, geometry(frames), modality, units, tuple(warnings))


def _images(ref: ScanRef) -> tuple[list[Image], list[ScanError]]:
    """The images of the files, and all that is wrong with them."""
    images: list[Image] = []
    problems: list[ScanError] = []
    for path in ref.paths:
        try:
            image = image_of(read_header(path))
        except ScanError as problem:
            problems.append(problem)
            continue
        images.append(image)
        reasons = (*image.problems, *check_decodable(image))
        problems += [ScanError(message, code=code, path=path) for code, message in reasons]
    if images:  # an object without pixels among others that have them is not another kind of object, but damage
        problems = [
            ScanError(problem.message, code="malformed", path=problem.path) if problem.code == "not_image" else problem
            for problem in problems
        ]
    return images, problems


def _combined(problems: list[ScanError]) -> ScanError:
    """One error of all problems; one that several files have appears once."""
    if len(problems) == 1:
        return problems[0]
    found: dict[tuple[str, str], list[ScanError]] = {}
    for problem in problems:
        found.setdefault((problem.code, problem.message), []).append(problem)
    reasons = [
        (code, f"{message} ({len(same)} files)" if len(same) > 1 else message)
        for (code, message), same in found.items()
    ]
    error = ScanError.of_all(reasons)
    first = next(problem for problem in problems if problem.code == error.code)
    return ScanError(error.message, code=error.code, path=first.path, hint=first.hint)


def _without_copies(images: list[Image], settings: ReadSettings) -> tuple[list[Image], int, list[ScanError]]:
    """The images without those that repeat a SOP Instance UID, the number of copies, and what is wrong with others."""
    kept: dict[object, Image] = {}
    copies, problems = 0, []
    for image in images:
        uid = image.header.tags.text("SOPInstanceUID")
        first = kept.setdefault(uid or image.header.path, image)
        if (
            first is image
            or first.problems
            or image.problems
            or _gib((image.stored.rows, image.stored.columns), 1) > settings.max_gib
        ):
            continue  # nothing to compare, or refused anyway
        try:
            differing = _differing(first, image)
        except ScanError as problem:
            problems.append(problem)
            continue
        problems += differing
        copies += not differing
    return list(kept.values()), copies, problems


def _differing(first: Image, image: Image) -> list[ScanError]:
    """What is wrong with a file that has the SOP Instance UID of another; nothing where it is a copy."""
    if not (same_pixels(first, image) and _same_places(first, image)):
        message = "different images have the same SOPInstanceUID"
        return [ScanError(message, code="duplicate_positions", path=image.header.path, hint=_ONE_UID)]
    rescales = ([(frame.slope, frame.intercept) for frame in one.frames] for one in (first, image))
    if next(rescales) != next(rescales):
        message = "copies of one image differ in RescaleSlope or RescaleIntercept"
        return [ScanError(message, code="mixed_series", path=image.header.path, hint=_UNEQUAL)]
    return []


def _same_places(one: Image, other: Image) -> bool:
    """Whether the frames of two files lie at the same places, which may have been rounded in two ways."""
    pairs = zip(one.frames, other.frames, strict=True) if len(one.frames) == len(other.frames) else ()
    return all(dist(a.position, b.position) <= _SAME_PLACE for a, b in pairs)


def _gate(frames: Sequence[Frame], settings: ReadSettings, *, ref: ScanRef) -> list[ScanError]:
    """Everything that keeps frames, in slice order, from being one volume of one unit."""
    problems = [ScanError(message, code=code, path=ref.path) for code, message in check(frames)]
    if not problems and (unequal := unequal_rescale(frames)):
        problems.append(ScanError(unequal, code="mixed_series", path=ref.path, hint=_UNEQUAL))
    gib = _gib(frames[0].matrix, len(frames))
    if gib > settings.max_gib:
        message = f"{len(frames)} slices need {gib:.1f} GiB; the limit is {settings.max_gib:g} GiB"
        problems.append(ScanError(message, code="too_large", path=ref.path))
    return problems


def _gib(matrix: tuple[int, int], slices: int) -> float:
    """What slices take as float32."""
    return 4 * matrix[0] * matrix[1] * slices / 2**30


def _meaning(
    images: Sequence[Image], frames: Sequence[Frame], stated: Modality | None
) -> tuple[Modality | None, Units, list[str]]:
    """Modality and unit of the values, and what a user should know of them. DICOM's own modality wins."""
    tags, warnings = images[0].header.tags, []
    modality = cast("Modality", images[0].modality) if images[0].modality in ("CT", "MR", "PT") else stated
    units: Units = "a.u."
    if modality == "CT":
        foreign = sorted({frame.unit for frame in frames} - {"", "HU"})
        units = "a.u." if foreign else "HU"
        if foreign:
            warnings.append(f"CT values are in {foreign[0][:16]}, not HU")
        elif not any(frame.rescaled for frame in frames):
            warnings.append(_without_intercept(frames))
    elif modality == "PT":
        units = _PET_UNITS.get(tags.text("Units"), "a.u.")
    if modality == "MR" and tags.text("ContrastBolusAgent").lower() not in _NO_AGENT:
        warnings.append(_AGENT)
    if modality == "MR" and tags.text("PhotometricInterpretation") == "MONOCHROME1":
        warnings.append(_INVERTED)
    if any(
        image.header.tags.text("LossyImageCompression") == "01" or image.header.syntax in _LOSSY for image in images
    ):
        warnings.append("the images are lossily compressed")
    return modality, units, warnings


def _without_intercept(frames: Sequence[Frame]) -> str:
    """What is taken as HU where no slice of a CT has a RescaleIntercept."""
    slopes = sorted({frame.slope for frame in frames})
    if slopes == [1.0]:
        return "no rescale in the header: stored values are taken as HU"
    named = ", ".join(f"{slope:g}" for slope in slopes[:3])
    return f"no rescale intercept in the header: stored values times the slope ({named}) are taken as HU"
