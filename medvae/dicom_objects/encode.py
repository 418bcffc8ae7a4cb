"""From an object to the bytes of its file, which are the same in every run."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmwrite

from medvae.dicom_objects.content import uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.source import Source

_BODY_PART = ("BodyPartExamined", "Laterality")  # of the series, which highdicom does not copy


def encode(made: Dataset, source: Source, *, key: str) -> bytes:
    """The file of an object, with nothing of the time and place of the run.

    Where a date is required it is that of the series, for two objects of one UID must not differ.
    """
    date, time = source.moment
    for name in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if name in made:
            delattr(made, name)
    for name in _BODY_PART:
        if name in source.first and "Rows" in made:
            made[name] = source.first[name]
    made.ContentDate, made.ContentTime = date, time
    for one in made.get("ContributingEquipmentSequence", ()):
        one.pop("ContributionDateTime", None)
    if "DimensionOrganizationSequence" in made:
        same = uid(key, "dimensions")
        made.DimensionOrganizationSequence[0].DimensionOrganizationUID = same
        for one in made.DimensionIndexSequence:
            one.DimensionOrganizationUID = same
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    file = BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()
