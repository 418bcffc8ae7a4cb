"""Texts of a header in the character set that the file names, and what a series calls itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medvae.io.dicom.quiet import quiet

if TYPE_CHECKING:
    from medvae.io.dicom.tags import Tags

_DELIMITERS = {ord(mark) for mark in "\\^="}  # where a coded text returns to its first character set
_LONGEST = 64  # characters: what the standard allows
_SHORTEST_NAME = 3  # characters: shorter words are in many descriptions by chance


def decoded(tags: Tags, name: str) -> str:
    """A text in the character set that the file names."""
    raw = tags.raw(name).strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    from pydicom.charset import convert_encodings, decode_bytes

    with quiet():
        encodings = convert_encodings(list(tags.texts("SpecificCharacterSet")) or None)
        return str(decode_bytes(raw, encodings, _DELIMITERS))


def description_of(tags: Tags) -> str:
    """SeriesDescription in one line of at most 64 characters; "" where it contains the patient's name or number."""
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in decoded(tags, "SeriesDescription")).split())
    if not text:
        return ""
    identity = re.split(r"[\W_]+", f"{decoded(tags, 'PatientName')} {decoded(tags, 'PatientID')}".casefold())
    identity.append(decoded(tags, "PatientID").casefold())
    words = text.casefold()
    if any(len(part) >= _SHORTEST_NAME and part in words for part in identity):
        return ""
    return text[:_LONGEST]
