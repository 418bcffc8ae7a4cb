"""From an object to the bytes of its file, which are the same in every run."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmwrite

from medvae.dicom_objects.content import uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.source import Source


def encode(made: Dataset, source: Source, *, key: str) -> bytes:
    """The file of an object, without any trace of the time and place of the run.

    Where a date is required it is that of the series, for two objects of one UID must not differ.
    """
    date, time = source.moment
    for name in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if name in made:
            delattr(made, name)
    if "Rows" in made and made.Modality != "SEG":
        _add_body_part(made, source.first)
    made.ContentDate, made.ContentTime = date, time
    for one in made.get("ContributingEquipmentSequence", ()):
        one.pop("ContributionDateTime", None)
    if "DimensionOrganizationSequence" in made:
        same = uid(key, "dimensions")
        made.DimensionOrganizationSequence[0].DimensionOrganizationUID = same
        for one in made.DimensionIndexSequence:
            one.DimensionOrganizationUID = same
    return file_of(made)


def file_of(made: Dataset) -> bytes:
    """The file of an object as it is."""
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    file = BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def _add_body_part(made: Dataset, header: Dataset) -> None:
    """Which part of the body it is, which highdicom does not copy; where nothing says it, an empty Laterality."""
    for name in ("BodyPartExamined", "Laterality"):
        if name in header:
            made[name] = header[name]
    if "BodyPartExamined" not in made and "Laterality" not in made:
        made.Laterality = ""
