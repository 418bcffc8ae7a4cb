"""The map as an ordinary series of single slices, on the grid of the scan, for viewers that can only fuse two series.

Values are whole numbers in a fixed window, the same for all scans of a model, so that a healthy scan stays dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pydicom.valuerep import DS

from medvae.dicom_objects.content import WINDOW, equipment, text, uid
from medvae.dicom_objects.planes import frames
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
_RESCALE = {"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "US"}  # stored numbers are the values
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {  # by modality, with what the class requires besides
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
    "CT": (CTImageStorage, {"KVP": "", "AcquisitionNumber": "", **_RESCALE}),
    "PT": (
        PositronEmissionTomographyImageStorage,
        {
            "SeriesDate": "",
            "SeriesTime": "",
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
            **_RESCALE,
        },
    ),
}


def fusion(source: Source, content: Content, *, key: str) -> list[Dataset]:
    """One object per slice, in slice order.

    Raises:
        Unfit: there is no class of single slices for the modality.
    """
    modality = str(source.first.get("Modality", ""))
    if modality not in _CLASSES:
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
    made, header = Dataset(), source.first
    for name in _OF_THE_STUDY:
        if name in header:
            made[name] = header[name]
    sop_class, required = _CLASSES[str(header.Modality)]
    for name, default in required.items():
        setattr(made, name, default if name in _RESCALE else header.get(name, default))
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid(key, "fusion", str(index))
    made.Modality, made.SeriesInstanceUID = header.Modality, uid(key, "fusion series")
    made.SeriesNumber, made.InstanceNumber = source.series_number(5), index + 1
    made.SeriesDescription = text(f"{content.algorithm} for fusion", f"{content.unit} x {scale:g}")
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if header.Modality == "CT" else "OTHER", "HEATMAP"]
    made.DerivationDescription = text(content.algorithm, f"{content.unit} x {scale:g}", content.status)
    made.BurnedInAnnotation, made.RecognizableVisualFeatures = "NO", "NO"
    for name, value in zip(
        ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"),
        equipment(content).values(),
        strict=True,
    ):
        setattr(made, name, value)
    _place(made, source, index)
    _values(made, pixels, high=WINDOW * content.limit * scale)
    made.SourceImageSequence = [_reference(source, index)]
    if header.Modality == "PT":
        made.Units, made.NumberOfSlices, made.ImageIndex = "NONE", len(source.positions), index + 1
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _place(made: Dataset, source: Source, index: int) -> None:
    made.ImageOrientationPatient = _numbers(source.orientation)
    made.ImagePositionPatient = _numbers(source.positions[index])
    made.PixelSpacing = _numbers(source.spacing)
    made.SliceThickness = _numbers([source.thickness])[0]


def _values(made: Dataset, pixels: NDArray[np.uint16], *, high: float) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.WindowCenter, made.WindowWidth = _numbers([high / 2])[0], _numbers([high])[0]
    made.LossyImageCompression = "00"
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"


def _reference(source: Source, index: int) -> Dataset:
    image = source.images[index if len(source.images) > 1 else 0]
    found = Dataset()
    found.ReferencedSOPClassUID, found.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return found


def _numbers(values: Any) -> list[DS]:
    return [DS(float(value), auto_format=True) for value in values]
