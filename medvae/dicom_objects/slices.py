"""What every series of single slices has: its class with what that requires, where a slice lies, its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pydicom.valuerep import DS

from medvae.dicom_objects.content import equipment

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

RESCALE = {"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}  # stored numbers are the values
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {  # by modality, with what the class requires besides
    "MR": (
        MRImageStorage,
        {
            "ScanningSequence": "RM",
            "SequenceVariant": "NONE",
            "ScanOptions": "",
            "MRAcquisitionType": "",
            "RepetitionTime": "",
            "EchoTime": "",
            "EchoTrainLength": "",
        },
    ),
    "CT": (CTImageStorage, {"KVP": "", "AcquisitionNumber": "", **RESCALE}),
    "PT": (
        PositronEmissionTomographyImageStorage,
        {
            "SeriesDate": "19000101",  # not known, and must not be empty
            "SeriesTime": "000000",
            "CountsSource": "EMISSION",
            "SeriesType": ["STATIC", "IMAGE"],
            "CorrectedImage": "",
            "DecayCorrection": "NONE",
            "CollimatorType": "",
            "FrameReferenceTime": "0",
            "AcquisitionDate": "",
            "AcquisitionTime": "",
            "ActualFrameDuration": "",
            "RadiopharmaceuticalInformationSequence": Sequence(),
            "PatientOrientationCodeSequence": Sequence(),
            "PatientGantryRelationshipCodeSequence": Sequence(),
            **RESCALE,
        },
    ),
}
IMAGE_TYPES = {
    "MR": ["DERIVED", "SECONDARY", "OTHER"],
    "CT": ["DERIVED", "SECONDARY", "AXIAL"],
    "PT": ["DERIVED", "PRIMARY"],
}
_LEAST = 1e-6  # a window has a width
_MAKER = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber")


@dataclass(frozen=True)
class Plane:
    """Where a slice lies, LPS, mm.

    Attributes:
        orientation: row cosines, then column cosines.
        position: centre of the first pixel.
        spacing: between rows, between columns.
        thickness: of the slice.
    """

    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing: tuple[float, float]
    thickness: float


def blank(modality: str, header: Dataset, *, model: str) -> Dataset:
    """A slice of a derived image of a modality of `CLASSES`, without a place, pixels and UIDs.

    Args:
        modality: MR, CT or PT.
        header: of the source, for what its class has; an empty one without a source.
        model: hash of the model.
    """
    made = Dataset()
    made.SOPClassUID, required = CLASSES[modality]
    for name, default in required.items():
        setattr(made, name, default if name in RESCALE else header.get(name, default))
    made.Modality = modality
    made.ImageType = IMAGE_TYPES[modality]
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
    for name, value in zip(_MAKER, equipment(model).values(), strict=True):
        setattr(made, name, value)
    if modality == "PT":
        made.Units = "NONE"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def put_plane(made: Dataset, plane: Plane) -> None:
    """Say where a slice lies."""
    made.ImageOrientationPatient = numbers(plane.orientation)
    made.ImagePositionPatient = numbers(plane.position)
    made.PixelSpacing = numbers(plane.spacing)
    (made.SliceThickness,) = numbers([plane.thickness])


def put_pixels(made: Dataset, pixels: NDArray[np.uint16] | NDArray[np.int16], window: tuple[float, float]) -> None:
    """Add pixels `(rows, columns)` of 16 bits, and the values between which they are shown."""
    low, high = window
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    made.WindowCenter, made.WindowWidth = numbers([(low + high) / 2, max(high - low, _LEAST)])
    made.VOILUTFunction = "LINEAR_EXACT"  # LINEAR takes widths for counts of whole numbers: none below 1
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"


def numbers(values: Iterable[Any]) -> list[DS]:
    """Decimal strings of at most 16 characters."""
    return [DS(float(value), auto_format=True) for value in values]
