"""DICOM: from files, whatever their names, to volumes; a series is read as it is, or refused with its reasons.

Inside DICOM coordinates are LPS; they become RAS+ in `medvae.io.dicom.gate.geometry` and nowhere else. The parts, all
in `medvae.io.dicom`: `tags` and `header` read headers, `series` groups files, `subjects` names who was scanned,
`frames` and `traits` describe each slice, `mixture` and `gate` decide whether the slices are one volume, `volume` puts
these together, `pixels` and `codecs` decode. Paths inside files are never followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.errors import ScanError
from medvae.io.dicom.header import SUFFIXES
from medvae.io.dicom.pixels import read_volume
from medvae.io.dicom.series import find_series
from medvae.io.dicom.source import source_of
from medvae.io.dicom.text import description_of
from medvae.io.dicom.volume import open_series
from medvae.io.hounsfield import doubts
from medvae.scan import Scan, ScanInfo, ScanRef

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from medvae.settings import ReadSettings

BY_NAME = False  # a DICOM file may have any name


def matches(path: Path) -> bool:
    """Whether the file has the signature of DICOM, or a name that indicates it."""
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
    per series and kind), damaged ones, objects without a series, and files that only have a name of DICOM.

    Args:
        files: regular files.
        settings: with `split_mixed`, each part of a mixed series is a scan.

    Returns:
        Scans in the order of their first files, and the other files, both sorted. Ids are hashes of UIDs or contents.
        Subjects are hashes of the PatientID; see `medvae.io.dicom.subjects` for placeholders and shared ones.
    """
    return find_series(files, split_mixed=settings.split_mixed)


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """Geometry, type and unit of a series from its headers, through the whole gate.

    Pixels are read only where two files have one SOP Instance UID, to know whether they are copies.

    Raises:
        ScanError: the series cannot be used; the message has all reasons, the first in the table of codes is the code.
        OSError: a file cannot be opened.
    """
    volume = open_series(ref, settings)
    first = volume.images[0]
    return ScanInfo(
        volume.geometry,
        str(first.stored.dtype),
        volume.modality,
        volume.units,
        volume.warnings,
        description=description_of(first.header.tags),
    )


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read a series as float32 `(columns, rows, slices)`, rescaled slice by slice.

    `valid` is False at padding. `source` holds the identifiers of study, series, frame of reference and slices, as text
    by keyword ("\\" between several, in slice order); nothing in it identifies the patient.

    Raises:
        ScanError: as `inspect`; and `undecodable`, `truncated`, `corrupt`, `non_finite`, `blank`.
        OSError: a file cannot be opened.
    """
    volume = open_series(ref, settings)
    try:
        data, valid = read_volume(volume.images, volume.frames)
    except ScanError as problem:
        raise ScanError(problem.message, code=problem.code, path=problem.path or ref.path, hint=problem.hint) from None
    warnings = volume.warnings
    if volume.units == "HU" and all(frame.rescaled and frame.intercept == 0 for frame in volume.frames):
        warnings = (*warnings, *doubts(data))  # a rescale that shifts nothing may stand for one that was lost
    source = source_of(volume.images, volume.frames)
    return Scan(data, volume.geometry, valid, volume.modality, volume.units, warnings, source)
