"""The map as an ordinary series of single slices, on the grid of the scan, for viewers that can only fuse two series.

Values are whole numbers in a fixed window, the same for all scans of a model, so that a healthy scan stays dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from medvae.dicom_objects.content import text, uid
from medvae.dicom_objects.planes import frames
from medvae.dicom_objects.slices import CLASSES, Plane, blank, put_pixels, put_plane
from medvae.dicom_objects.source import Unfit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.dicom_objects.content import Content
    from medvae.dicom_objects.source import Source

_MOST = 2**15 - 1
_DIGITS = 3  # of the healthy limit that a stored number keeps
_OF_THE_STUDY = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "OtherPatientIDs",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
)


def fusion(source: Source, content: Content, *, key: str) -> list[Dataset]:
    """One object per slice, in slice order.

    Raises:
        Unfit: there is no class of single slices for the modality.
    """
    modality = str(source.first.get("Modality", ""))
    if modality not in CLASSES:
        raise Unfit(f"there is no series of single slices for modality {modality[:16] or 'unknown'}")
    scale = scale_of(content.limit)
    pixels = stored(content.data, scale)
    return [_slice(source, content, index, pixels=one, scale=scale, key=key) for index, one in enumerate(pixels)]


def scale_of(limit: float) -> float:
    """Stored numbers per unit of the map: the power of ten that leaves the healthy limit three digits."""
    return float(10.0 ** (_DIGITS - 1 - np.floor(np.log10(max(limit, 1e-6)))))


def stored(data: NDArray[np.float32], scale: float) -> NDArray[np.uint16]:
    """Pixels `(slices, rows, columns)`: value · scale, rounded; below 0 as 0."""
    return frames(np.clip(np.rint(data * scale), 0, _MOST).astype("<u2"))


def _slice(
    source: Source, content: Content, index: int, *, pixels: NDArray[np.uint16], scale: float, key: str
) -> Dataset:
    header = source.first
    made = blank(str(header.Modality), header, model=content.model)
    for name in _OF_THE_STUDY:
        if name in header:
            made[name] = header[name]
    made.SOPInstanceUID, made.SeriesInstanceUID = uid(key, "fusion", str(index)), uid(key, "fusion series")
    made.SeriesNumber, made.InstanceNumber = source.series_number(5), index + 1
    made.SeriesDescription = text(f"{content.algorithm} for fusion", f"{content.unit} x {scale:g}")
    made.DerivationDescription = text(content.algorithm, f"{content.unit} x {scale:g}", content.status)
    made.ImageType = [*made.ImageType, "HEATMAP"]
    made.RecognizableVisualFeatures = "NO"
    put_plane(made, Plane(source.orientation, tuple(source.positions[index]), source.spacing, source.thickness))
    put_pixels(made, pixels, (0.0, content.high * scale))
    made.SourceImageSequence = [_reference(source, index)]
    if made.Modality == "PT":
        made.pop("PatientPosition", None)  # PET says it by codes
        made.NumberOfSlices, made.ImageIndex = len(source.positions), index + 1
    return made


def _reference(source: Source, index: int) -> Dataset:
    image = source.images[index if len(source.images) > 1 else 0]
    found = Dataset()
    found.ReferencedSOPClassUID, found.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return found
