"""DICOM: from files, whatever their names, to volumes; a series is read as it is, or refused with its reasons.

Inside DICOM coordinates are LPS; they become RAS+ in `_dicom_gate.geometry` and nowhere else. The parts: `_dicom_tags`
and `_dicom_header` read headers, `_dicom_frames` says what each frame is, `_dicom_gate` whether the frames are one
volume, `_dicom_pixels` and `_dicom_codecs` decode. Paths inside files are never followed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, cast

from medvae.errors import ScanError
from medvae.io.dicom.frames import Image, image_of, kind_of
from medvae.io.dicom.gate import arrange, check, geometry, split
from medvae.io.dicom.header import SUFFIXES, Header, read_header
from medvae.io.dicom.pixels import check_decodable, read_volume, same_pixels
from medvae.io.dicom.source import source_of
from medvae.scan import Modality, Scan, ScanInfo, ScanRef, Units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from medvae.io.dicom.frames import Frame, Reason
    from medvae.scan import Geometry
    from medvae.settings import ReadSettings

BY_NAME = False  # a DICOM file may have any name
_PET_UNITS: dict[str, Units] = {"BQML": "BQML", "GML": "SUV"}


@dataclass(frozen=True)
class _Found:
    """A file that `find` looked at."""

    path: Path
    key: tuple[str, str]  # files with the same key are one scan: series and kind
    subject: str = ""
    header: Header | None = None


@dataclass(frozen=True)
class _Series:
    """A series that passed the gate."""

    images: list[Image]
    frames: list[Frame]  # in slice order
    geometry: Geometry
    modality: Modality | None
    units: Units
    warnings: tuple[str, ...]


def matches(path: Path) -> bool:
    """Whether the file has the signature of DICOM, or a name that promises it."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find(files: Iterable[Path], settings: ReadSettings) -> tuple[list[ScanRef], list[Path]]:
    """The series among files, from their headers, and the files that are no DICOM.

    Every DICOM object ends in one scan, also those that reading will refuse: objects that are no image volume (one scan
    a series and kind), damaged ones, objects without a series, and files that only bear a name of DICOM.

    Args:
        files: regular files.
        settings: with `split_mixed`, each part of a mixed series is a scan.

    Returns:
        Scans in the order of their first files, and the other files, both sorted. Ids and subjects are hashes of UIDs,
        of the PatientID or of contents.
    """
    groups: dict[tuple[str, str], list[_Found]] = {}
    others = []
    for path in sorted(files):
        found = _look(path, keep=settings.split_mixed)
        if found is None:
            others.append(path)
        else:
            groups.setdefault(found.key, []).append(found)
    refs: list[ScanRef] = []
    for key, members in groups.items():
        refs += _refs(key, members, split_mixed=settings.split_mixed and not key[1])
    return refs, others


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """Geometry, type and unit of a series from its headers, through the whole gate.

    Pixels are read only where two files carry one SOP Instance UID, to know whether they are copies.

    Raises:
        ScanError: the series cannot be used; all reasons are said, the first in the table of codes is the code.
        OSError: a file cannot be opened.
    """
    series = _open(ref, settings)
    dtype = str(series.images[0].stored.dtype)
    return ScanInfo(series.geometry, dtype, series.modality, series.units, series.warnings)


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read a series as float32 `(columns, rows, slices)`, rescaled slice by slice.

    `valid` is False at padding. `source` holds the identifiers of patient, study, series and slices, as text by keyword
    ("\\" between several, in slice order).

    Raises:
        ScanError: as `inspect`; and `undecodable`, `truncated`, `corrupt`, `non_finite`, `blank`.
        OSError: a file cannot be opened.
    """
    series = _open(ref, settings)
    try:
        data, valid = read_volume(series.images, series.frames)
    except ScanError as problem:
        raise ScanError(problem.message, code=problem.code, path=problem.path or ref.path, hint=problem.hint) from None
    return Scan(
        data,
        series.geometry,
        valid,
        series.modality,
        series.units,
        series.warnings,
        source_of(series.images, series.frames),
    )


# --------------------------------------------------------------------------------------------------------- finding


def _look(path: Path, *, keep: bool) -> _Found | None:
    """What a file is part of, None if it is no DICOM; with its header where it is asked for."""
    try:
        return _identify(path, keep=keep)
    except OSError:  # said again when it is read
        return _Found(path, ("", f"unreadable {path}"))


def _identify(path: Path, *, keep: bool) -> _Found | None:
    try:
        header = read_header(path)
    except ScanError as problem:
        if problem.code == "not_a_scan" and not path.name.lower().endswith(SUFFIXES):
            return None
        return _Found(path, ("", _content(path)))
    tags = header.tags
    patient, series = tags.raw("PatientID").strip(b" \0"), tags.text("SeriesInstanceUID")
    if series:
        key = series, "" if header.problem else kind_of(header)
    else:
        key = "", tags.text("SOPInstanceUID") or _content(path)
    return _Found(path, key, f"patient-{_digest(patient)}" if patient else "", header if keep else None)


def _refs(key: tuple[str, str], members: list[_Found], *, split_mixed: bool) -> list[ScanRef]:
    """The scans of files with one key."""
    name = f"series-{_digest(''.join(key).encode())}" if key[0] else f"object-{_digest(key[1].encode())}"
    subject = next((found.subject for found in members if found.subject), "")
    whole = ScanRef(name, "dicom", tuple(found.path for found in members), subject)
    if not split_mixed:
        return [whole]
    try:
        frames = [frame for found in members if found.header for frame in image_of(found.header).frames]
    except ScanError:  # said again when it is read
        return [whole]
    parts = split(frames)
    if len(parts) < 2:
        return [whole]
    return [_part(whole, number, part, frames=frames) for number, part in enumerate(parts, start=1)]


def _part(whole: ScanRef, number: int, part: tuple[str, list[int]], *, frames: list[Frame]) -> ScanRef:
    """One part of a series: the files that have frames of it, and which of their frames they are."""
    words, members = part
    files, chosen = {frames[index].path for index in members}, set(members)
    inside = [index in chosen for index, frame in enumerate(frames) if frame.path in files]
    return replace(
        whole,
        id=f"{whole.id}-{number}",
        paths=tuple(path for path in whole.paths if path in files),
        part=words,
        frames=() if all(inside) else tuple(index for index, is_chosen in enumerate(inside) if is_chosen),
    )


def _content(path: Path) -> str:
    """A hash of the content, for files that say nothing else of themselves."""
    digest = sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _digest(value: bytes) -> str:
    return sha256(value).hexdigest()[:12]


# --------------------------------------------------------------------------------------------------------- opening


def _open(ref: ScanRef, settings: ReadSettings) -> _Series:
    """All headers of a series, through the gate; every problem of every file is collected before it is refused."""
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
        problems += [ScanError(message, code=code, path=ref.path) for code, message in _gate(frames, settings)]
    if problems:
        raise _combined(problems)
    modality, units, warnings = _meaning(images[0], frames, ref.modality or settings.modality)
    if copies:
        warnings.insert(0, f"{copies} duplicate file{'s'[: copies > 1]} left out")
    if ref.part:
        warnings.insert(0, f"a part of a mixed series: {ref.part}")
    return _Series(images, frames, geometry(frames), modality, units, tuple(warnings))


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
    if images:  # an object without pixels among others that have them is no other kind of object, but damage
        problems = [
            ScanError(problem.message, code="malformed", path=problem.path) if problem.code == "not_image" else problem
            for problem in problems
        ]
    return images, problems


def _combined(problems: list[ScanError]) -> ScanError:
    """One error of all problems; the same one of several files is said once."""
    if len(problems) == 1:
        return problems[0]
    found: dict[tuple[str, str], list[ScanError]] = {}
    for problem in problems:
        found.setdefault((problem.code, problem.message), []).append(problem)
    told = [
        (code, f"{message} ({len(same)} files)" if len(same) > 1 else message)
        for (code, message), same in found.items()
    ]
    error = ScanError.of_all(told)
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
            if same_pixels(first, image):
                copies += 1
            else:
                message = "different images carry one SOP Instance UID"
                problems.append(ScanError(message, code="duplicate_positions", path=image.header.path))
        except ScanError as problem:
            problems.append(problem)
    return list(kept.values()), copies, problems


def _gate(frames: Sequence[Frame], settings: ReadSettings) -> list[Reason]:
    reasons = check(frames)
    gib = _gib(frames[0].matrix, len(frames))
    if gib > settings.max_gib:
        reasons.append(("too_large", f"{len(frames)} slices need {gib:.1f} GiB, allowed are {settings.max_gib:g}"))
    return reasons


def _gib(matrix: tuple[int, int], slices: int) -> float:
    """What slices take as float32."""
    return 4 * matrix[0] * matrix[1] * slices / 2**30


def _meaning(
    image: Image, frames: Sequence[Frame], stated: Modality | None
) -> tuple[Modality | None, Units, list[str]]:
    """Modality and unit of the values, and what a user should know of them. DICOM's own modality wins."""
    tags, warnings = image.header.tags, []
    modality = cast("Modality", image.modality) if image.modality in ("CT", "MR", "PT") else stated
    units: Units = "a.u."
    if modality == "CT":
        foreign = sorted({frame.unit for frame in frames} - {"", "HU"})
        units = "a.u." if foreign else "HU"
        if foreign:
            warnings.append(f"CT values are in {foreign[0][:16]}, not HU")
        elif not any(frame.rescaled for frame in frames):
            warnings.append("there is no rescale: stored values are taken for HU")
    elif modality == "PT":
        units = _PET_UNITS.get(tags.text("Units"), "a.u.")
    if tags.text("LossyImageCompression") == "01":
        warnings.append("the images were compressed with loss")
    return modality, units, warnings
