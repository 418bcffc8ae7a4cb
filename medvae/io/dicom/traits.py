"""What kind of image a frame is, beside where it lies: values by the keyword of their tag.

A single-frame object has them at its top level. A multi-frame one has them in the functional groups of each frame, or
in the shared ones; its top level, which holds for all its frames, comes last. Nothing is refused here: a value that
cannot be parsed is compared as text.
"""

from __future__ import annotations

from functools import reduce
from math import isfinite
from struct import calcsize, unpack
from typing import TYPE_CHECKING

from medvae.io.dicom.tags import Tags
from medvae.io.dicom.text import description_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Value = tuple[float, ...] | str  # numbers, or a text; "" where there is none

_OF_A_FILE = (
    "Units",
    "SOPClassUID",
    "StudyInstanceUID",
    "StudyDate",
    "SeriesNumber",
    "ContrastBolusAgent",
    "ScanOptions",
    "SequenceName",
    "EchoNumbers",
    "PhotometricInterpretation",
    "AcquisitionUID",
    "IrradiationEventUID",
    "ContentTime",
)
_IMAGES = "1.2.840.10008.5.1.4.1.1."
_BY_CLASS = {  # the modality that a SOP class stands for
    _IMAGES + number: modality
    for modality, numbers in {
        "CT": ("2", "2.1", "2.2"),
        "MR": ("4", "4.1", "4.4"),
        "PT": ("128", "128.1", "130"),
    }.items()
    for number in numbers
}
_CONTENT, _CARDIAC = "FrameContentSequence", "CardiacSynchronizationSequence"
_TIMING = "MRTimingAndRelatedParametersSequence"
_OF_A_FRAME = {  # in single-frame objects under this keyword, in functional groups under that path
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "RepetitionTime": (_TIMING, "RepetitionTime"),
    "FlipAngle": (_TIMING, "FlipAngle"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "DiffusionGradientOrientation": (
        "MRDiffusionSequence",
        "DiffusionGradientDirectionSequence",
        "DiffusionGradientOrientation",
    ),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "StackID": (_CONTENT, "StackID"),
    "AcquisitionNumber": (_CONTENT, "FrameAcquisitionNumber"),
    "AcquisitionDateTime": (_CONTENT, "FrameAcquisitionDateTime"),
    "TemporalPositionIdentifier": (_CONTENT, "TemporalPositionIndex"),
    "TemporalPositionTimeOffset": ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    "TriggerTime": (_CARDIAC, "NominalCardiacTriggerDelayTime"),
    "NominalPercentageOfCardiacPhase": (_CARDIAC, "NominalPercentageOfCardiacPhase"),
    "NominalPercentageOfRespiratoryPhase": (
        "RespiratorySynchronizationSequence",
        "NominalPercentageOfRespiratoryPhase",
    ),
}
_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")
_DECIMAL = {  # numbers that are stored as text, in which 14 and 14.0 are the same
    "SliceThickness",
    "EchoNumbers",
    "EchoTime",
    "InversionTime",
    "RepetitionTime",
    "FlipAngle",
    "KVP",
    "SeriesNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
}
_BINARY = {  # how the other numbers are stored
    "InversionTimes": "d",
    "EffectiveEchoTime": "d",
    "DiffusionBValue": "d",
    "DiffusionGradientOrientation": "d",
    "NominalCardiacTriggerDelayTime": "d",
    "TemporalPositionTimeOffset": "d",
    "NominalPercentageOfCardiacPhase": "f",
    "NominalPercentageOfRespiratoryPhase": "f",
    "FrameAcquisitionNumber": "H",
    "TemporalPositionIndex": "L",
}


def traits_of_file(tags: Tags) -> dict[str, Value]:
    """Values that hold for all frames of a file."""
    found = {name: _value(tags, name) for name in _OF_A_FILE}
    return {**found, "Modality": modality_of(tags), "SeriesDescription": description_of(tags)}


def modality_of(tags: Tags) -> str:
    """Modality as written in the file; where it is missing, that of the SOP class; "" where neither says it."""
    return tags.text("Modality") or _BY_CLASS.get(tags.text("SOPClassUID"), "")


def traits_of_frame(tags: Tags, groups: Sequence[Tags] = ()) -> dict[str, Value]:
    """Values that may differ between frames of a file; `groups` are the functional groups, the frame's own first."""
    found = {name: _grouped(name, path, groups) or _value(tags, name) for name, path in _OF_A_FRAME.items()}
    found["AcquisitionDateTime"] = found["AcquisitionDateTime"] or " ".join(
        filter(None, (tags.text("AcquisitionDate"), tags.text("AcquisitionTime")))
    )
    return found


def image_type_of(tags: Tags, groups: Sequence[Tags] = ()) -> dict[str, Value]:
    """ImageType with the complex component: its first two values, and those after them."""
    sources = [tags]
    if groups:
        names = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
        sources = [next((group for group in groups if name in group), groups[0]).first(name) for name in names]
    first: list[str] = []
    later: list[str] = []
    for source in sources:
        types = source.texts("FrameType" if groups else "ImageType")
        first += types[:2]
        later += [*types[2:], *source.texts("ComplexImageComponent")]
    return {"ImageType": "\\".join(later), "ImageType (origin)": "\\".join(first)}


def words_of(value: Value) -> str:
    """A value as a user reads it."""
    if isinstance(value, str):
        return "".join(mark if mark.isprintable() else " " for mark in value)
    return "\\".join(f"{number:g}" for number in value)


def _grouped(name: str, path: tuple[str, ...], groups: Sequence[Tags]) -> Value:
    """A value in functional groups, or "": under its path, or among what a conversion could not place."""
    if not groups:
        return ""
    for *sequences, keyword in (path, *((sequence, name) for sequence in _CONVERTED)):
        for group in groups:
            inside = reduce(Tags.first, sequences, group)
            if keyword in inside:
                return _value(inside, keyword)
    return ""


def _value(tags: Tags, name: str) -> Value:
    if name not in tags:
        return ""
    if name in _DECIMAL:
        return _numbers(tags.texts(name)) or tags.text(name)
    if name not in _BINARY:
        return tags.text(name)
    raw, kind = tags.raw(name), _BINARY[name]
    count, odd = divmod(len(raw), calcsize(f"<{kind}"))
    numbers = () if odd else unpack(f"{tags.order}{count}{kind}", raw)
    return numbers if numbers and all(map(isfinite, numbers)) else raw.hex()


def _numbers(texts: Sequence[str]) -> tuple[float, ...]:
    """The numbers that texts are, or ()."""
    try:
        numbers = tuple(map(float, texts))
    except ValueError:
        return ()
    return numbers if all(map(isfinite, numbers)) else ()
