"""What a writer needs of the origin of a scan: the identifiers of study, series, place and slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.io.dicom.frames import Frame, Image

_OF_THE_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "Modality")


def source_of(images: Sequence[Image], frames: Sequence[Frame]) -> dict[str, str]:
    """Texts by keyword; SOPInstanceUID and, for multi-frame objects, FrameNumber for each slice, joined by "\\".

    Nothing in it identifies the patient.
    """
    headers = {image.header.path: image.header for image in images}
    tags = headers[frames[0].path].tags
    found = {name: text for name in _OF_THE_SERIES if (text := tags.text(name))}
    found["SOPInstanceUID"] = "\\".join(headers[frame.path].tags.text("SOPInstanceUID") for frame in frames)
    if any(image.count > 1 for image in images):
        found["FrameNumber"] = "\\".join(str(frame.number + 1) for frame in frames)
    return found
