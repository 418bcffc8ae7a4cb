"""What a writer needs of the origin of a scan: identifiers of patient, study, series and slices. Never printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.io.dicom.header import read_header
from medvae.io.dicom.quiet import quiet
from medvae.io.dicom.tags import SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.io.dicom.frames import Frame, Image
    from medvae.io.dicom.tags import Tags

_ALSO = ("PatientID", "SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "Modality")
_DELIMITERS = {ord(mark) for mark in "\\^="}  # where a coded text returns to its first character set


def source_of(images: Sequence[Image], frames: Sequence[Frame]) -> dict[str, str]:
    """Texts by keyword; SOPInstanceUID and, for multi-frame objects, FrameNumber for each slice, joined by "\\".

    Raises:
        ScanError: the first file is broken.
        OSError: it cannot be opened.
    """
    tags = read_header(frames[0].path, source=True).tags
    found = {name: _decoded(tags, name) for name in (*SOURCE, *_ALSO) if name in tags}
    uids = {image.header.path: image.header.tags.text("SOPInstanceUID") for image in images}
    found["SOPInstanceUID"] = "\\".join(uids[frame.path] for frame in frames)
    if any(image.count > 1 for image in images):
        found["FrameNumber"] = "\\".join(str(frame.number + 1) for frame in frames)
    return found


def _decoded(tags: Tags, name: str) -> str:
    """A text in the character set that the file names."""
    raw = tags.raw(name).strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    from pydicom.charset import convert_encodings, decode_bytes

    with quiet():
        encodings = convert_encodings(list(tags.texts("SpecificCharacterSet")) or None)
        return str(decode_bytes(raw, encodings, _DELIMITERS))
