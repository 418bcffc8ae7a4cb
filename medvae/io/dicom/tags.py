"""The DICOM elements that are read, and typed access to their bytes: a value that its tag forbids is `malformed`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from struct import unpack_from
from typing import NoReturn

from medvae.errors import ScanError

SEQUENCES = {
    "DiffusionGradientDirectionSequence": 0x00189076,
    "MRTimingAndRelatedParametersSequence": 0x00189112,
    "MREchoSequence": 0x00189114,
    "MRModifierSequence": 0x00189115,
    "MRDiffusionSequence": 0x00189117,
    "CardiacSynchronizationSequence": 0x00189118,
    "MRImageFrameTypeSequence": 0x00189226,
    "CTReconstructionSequence": 0x00189314,
    "CTXRayDetailsSequence": 0x00189325,
    "CTImageFrameTypeSequence": 0x00189329,
    "PETFrameTypeSequence": 0x00189751,
    "FrameContentSequence": 0x00209111,
    "PlanePositionSequence": 0x00209113,
    "PlaneOrientationSequence": 0x00209116,
    "UnassignedSharedConvertedAttributesSequence": 0x00209170,
    "UnassignedPerFrameConvertedAttributesSequence": 0x00209171,
    "RespiratorySynchronizationSequence": 0x00209253,
    "TemporalPositionSequence": 0x00209310,
    "ModalityLUTSequence": 0x00283000,
    "PixelMeasuresSequence": 0x00289110,
    "PixelValueTransformationSequence": 0x00289145,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
TAGS = {
    "SpecificCharacterSet": 0x00080005,
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "AcquisitionUID": 0x00080017,
    "SOPInstanceUID": 0x00080018,
    "StudyDate": 0x00080020,
    "AcquisitionDate": 0x00080022,
    "AcquisitionDateTime": 0x0008002A,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
    "Modality": 0x00080060,
    "SeriesDescription": 0x0008103E,
    "IrradiationEventUID": 0x00083010,
    "FrameType": 0x00089007,
    "ComplexImageComponent": 0x00089208,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "ContrastBolusAgent": 0x00180010,
    "ScanOptions": 0x00180022,
    "SequenceName": 0x00180024,
    "SliceThickness": 0x00180050,
    "KVP": 0x00180060,
    "RepetitionTime": 0x00180080,
    "EchoTime": 0x00180081,
    "InversionTime": 0x00180082,
    "EchoNumbers": 0x00180086,
    "TriggerTime": 0x00181060,
    "ConvolutionKernel": 0x00181210,
    "FlipAngle": 0x00181314,
    "FrameAcquisitionDateTime": 0x00189074,
    "InversionTimes": 0x00189079,
    "EffectiveEchoTime": 0x00189082,
    "DiffusionBValue": 0x00189087,
    "DiffusionGradientOrientation": 0x00189089,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "TemporalPositionIdentifier": 0x00200100,
    "StackID": 0x00209056,
    "TemporalPositionIndex": 0x00209128,
    "NominalCardiacTriggerDelayTime": 0x00209153,
    "FrameAcquisitionNumber": 0x00209156,
    "NominalPercentageOfCardiacPhase": 0x00209241,
    "NominalPercentageOfRespiratoryPhase": 0x00209245,
    "TemporalPositionTimeOffset": 0x0020930D,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "LossyImageCompression": 0x00282110,
    "Units": 0x00541001,
    "ExtendedOffsetTable": 0x7FE00001,
    "ExtendedOffsetTableLengths": 0x7FE00002,
    **SEQUENCES,
}


@dataclass(frozen=True, slots=True)
class Tags:
    """Elements of a dataset or of an item of a sequence, as they are stored.

    Names are keywords of DICOM, those of `TAGS`. An element that is absent or empty gives "", () or None.
    A value that cannot be what its tag demands raises a ScanError `malformed` that names the tag.
    """

    values: Values
    order: str  # "<" or ">", of the binary values

    def __contains__(self, name: str) -> bool:
        return bool(self.values.get(TAGS[name]))

    def raw(self, name: str) -> bytes:
        """The bytes."""
        value = self.values.get(TAGS[name], b"")
        return value if isinstance(value, bytes) else b""

    def text(self, name: str) -> str:
        """A text without its padding."""
        return self.raw(name).decode("latin-1").strip(" \0")

    def texts(self, name: str) -> tuple[str, ...]:
        """The parts of a text of several values."""
        whole = self.text(name)
        return tuple(part.strip(" \0") for part in whole.split("\\")) if whole else ()

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """`count` finite decimal numbers, or ()."""
        texts = self.texts(name)
        try:
            values = tuple(map(float, texts))
        except ValueError:
            broken(name, self.raw(name))
        if values and (len(values) != count or not all(map(isfinite, values))):
            broken(name, self.raw(name))
        return values

    def whole(self, name: str) -> int | None:
        """A whole number of 32 bits, written as text."""
        values = self.numbers(name, 1)
        if values and (values[0] != int(values[0]) or abs(values[0]) >= 1 << 31):
            broken(name, self.raw(name))
        return int(values[0]) if values else None

    def binary(self, name: str) -> int | None:
        """An unsigned number of 2 or 4 bytes."""
        raw = self.raw(name)
        if len(raw) not in (0, 2, 4):
            broken(name, raw)
        return int(unpack_from(self.order + {2: "H", 4: "L"}[len(raw)], raw)[0]) if raw else None

    def first(self, name: str) -> Tags:
        """The first item of a sequence, empty where there is none."""
        items = self.items(name)
        return items[0] if items else Tags({}, self.order)

    def items(self, name: str) -> tuple[Tags, ...]:
        """The items of a sequence."""
        value = self.values.get(TAGS[name], ())
        return value if isinstance(value, tuple) else ()


Values = dict[int, bytes | tuple[Tags, ...]]  # by the number of the tag


def broken(name: str, raw: bytes) -> NoReturn:
    """Refuse a value.

    Raises:
        ScanError: `malformed`, naming the tag and the (shortened) value.
    """
    raise ScanError(f"{name} is {raw[:40].decode('latin-1').strip(chr(0))!r}", code="malformed")


def uid_name(uid: str) -> str:
    """The name that the standard gives a UID, "" where it gives none."""
    from pydicom.uid import UID_dictionary

    return str(UID_dictionary.get(uid, ("",))[0])
