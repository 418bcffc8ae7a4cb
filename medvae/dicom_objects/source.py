"""The series that a scan was read from: its headers, slice by slice, fit for objects that refer to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DS, TM

from medvae.errors import ScanError
from medvae.io.dicom.quiet import quiet
from medvae.io.dicom.volume import open_series

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Frame
    from medvae.scan import Geometry, ScanRef
    from medvae.settings import ReadSettings

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (  # an object must have them, without a value if need be
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientPosition",
    "PositionReferenceIndicator",
)
_MOMENTS = ("Content", "Acquisition", "Series", "Study")  # each with Date and Time
_UNKNOWN = ("19000101", "000000")


NO_DICOM = "no_dicom"  # how the warning of objects that could not be written begins


class Unfit(Exception):  # noqa: N818 - a reason, not an error of the run
    """Why headers cannot carry an object, in words without identity."""


@dataclass(frozen=True, eq=False)
class Source:
    """A series in slice order, everything in LPS and mm.

    Attributes:
        images: headers without pixels, one per slice; a multi-frame object is one for all.
        geometry: its grid, `(columns, rows, slices)`.
        orientation: row cosines, then column cosines.
        positions: `(slices, 3)`, centre of the first pixel of each slice.
        spacing: between rows, between columns.
        thickness: of a slice.
        numbers: of the frames of a multi-frame object that the slices are, from 1; () for single ones.
    """

    images: list[Dataset] = field(repr=False)
    geometry: Geometry
    orientation: tuple[float, ...]
    positions: NDArray[np.float64] = field(repr=False)
    spacing: tuple[float, float]
    thickness: float
    numbers: tuple[int, ...] = ()

    @property
    def first(self) -> Dataset:
        """The header of the first slice, for what is the same in all."""
        return self.images[0]

    @property
    def key(self) -> str:
        """What tells it from other series, and from other parts of its own."""
        uids = [str(image.SOPInstanceUID) for image in self.images]
        return "\n".join([str(self.first.SeriesInstanceUID), *uids, *map(str, self.positions.ravel())])

    @property
    def moment(self) -> tuple[str, str]:
        """Date and time that its headers give, which the objects bear: they must not change from run to run."""
        for name in _MOMENTS:
            date, time = (str(self.first.get(name + part) or "") for part in ("Date", "Time"))
            if date and _is(DA, date):
                return date, time if time and _is(TM, time) else _UNKNOWN[1]
        return _UNKNOWN

    def require_place(self) -> None:
        """Raise Unfit where the headers do not say what their places refer to."""
        if not self.first.get("FrameOfReferenceUID"):
            raise Unfit("the headers have no FrameOfReferenceUID")

    def series_number(self, offset: int) -> int:
        """A number near the one of the series, for a derived series."""
        number = self.first.get("SeriesNumber")
        return 100 * int(number) + offset if number is not None and 0 < int(number) < 10**6 else 9000 + offset


def open_source(ref: ScanRef, settings: ReadSettings) -> Source:
    """Headers of the series of a scan.

    Raises:
        Unfit: the scan is not a DICOM series, or its headers lack what an object needs.
        OSError: a file cannot be opened.
    """
    if ref.format != "dicom":
        raise Unfit("the scan was not read from DICOM")
    try:
        volume = open_series(ref, settings)
    except ScanError:  # it was read before: the files have changed since
        raise Unfit("the series cannot be read again") from None
    frames = volume.frames
    paths = list(dict.fromkeys(frame.path for frame in frames))
    if 1 < len(paths) < len(frames):
        raise Unfit("the series has several multi-frame objects")
    images = [_header(path) for path in paths]
    first = frames[0]
    thickness = _complete(images, first, float(volume.geometry.spacing[2]))
    return Source(
        images=images,
        geometry=volume.geometry,
        orientation=first.orientation,
        positions=np.array([frame.position for frame in frames]),
        spacing=(first.spacing[0], first.spacing[1]),
        thickness=thickness,
        numbers=tuple(frame.number + 1 for frame in frames) if len(paths) < len(frames) else (),
    )


def _header(path: Path) -> Dataset:
    """The header of a file, with all that an object takes from it."""
    with quiet():
        try:
            header = dcmread(path, stop_before_pixels=True, force=True)
            header.decode()
            _fill(header)
        except (MemoryError, OSError, Unfit):
            raise
        except Exception:  # pydicom fails in many ways; its messages quote the file
            raise Unfit("a header cannot be parsed") from None
    return header


def _fill(header: Dataset) -> None:
    """Leave empty what is missing or broken and may be empty; refuse a header that lacks what is needed."""
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        raise Unfit(f"the headers have no {missing[0]}")
    for name in _MAY_BE_EMPTY:
        if header.get(name) is None:
            setattr(header, name, "")
    if not header.get("SpecificCharacterSet"):
        header.pop("SpecificCharacterSet", None)
    if header.PatientSex not in ("M", "F", "O", ""):
        header.PatientSex = ""
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        if not _is(kind, str(header[name].value)):
            setattr(header, name, "")


def _complete(images: Sequence[Dataset], frame: Frame, step: float) -> float:
    """Add measures and orientation where a header has them in another place than highdicom looks.

    Args:
        images: headers, of single slices or one of many frames.
        frame: any slice.
        step: between slices.

    Returns:
        The thickness of a slice; the step, if the headers do not say it.
    """
    for image in images:
        place = _shared(image, frame) if "PerFrameFunctionalGroupsSequence" in image else image
        if not _is_length(place):
            place.SliceThickness = DS(step, auto_format=True)
    return float(place.SliceThickness)


def _is_length(place: Dataset) -> bool:
    """Whether SliceThickness is there, and is one."""
    try:
        return float(place.get("SliceThickness") or 0) > 0
    except (TypeError, ValueError):
        return False


def _shared(image: Dataset, frame: Frame) -> Dataset:
    """The measures that all frames share; the reader has checked that they have the same ones."""
    if not image.get("SharedFunctionalGroupsSequence"):
        image.SharedFunctionalGroupsSequence = [Dataset()]
    shared = image.SharedFunctionalGroupsSequence[0]
    if not shared.get("PixelMeasuresSequence"):
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [DS(one, auto_format=True) for one in frame.spacing]
    if not shared.get("PlaneOrientationSequence"):
        shared.PlaneOrientationSequence = [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [
            DS(one, auto_format=True) for one in frame.orientation
        ]
    measures: Dataset = shared.PixelMeasuresSequence[0]
    return measures


def _is(kind: type[DA] | type[TM], value: str) -> bool:
    """Whether a text is a date or a time of DICOM, or empty."""
    try:
        kind(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True
