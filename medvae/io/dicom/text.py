"""Texts of a header in the character set that the file names, and what a series calls itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from medvae.io.dicom.quiet import quiet

if TYPE_CHECKING:
    from medvae.io.dicom.tags import Tags

_DELIMITERS = {ord(mark) for mark in "\\^="}  # where a coded text returns to its first character set
_LONGEST = 64  # characters: what the standard allows
_SHORTEST_NUMBER = 6  # characters, without what separates them
_SHORTEST_NAME = 3  # characters: shorter words are in many descriptions by chance


def decoded(tags: Tags, name: str) -> str:
    """A text in the character set that the file names, or, where no decoder knows that, in Latin-1."""
    raw = tags.raw(name).strip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        with quiet():
            encodings = convert_encodings(list(tags.texts("SpecificCharacterSet")) or None)
            return str(decode_bytes(raw, encodings, _DELIMITERS))
    except (ValueError, LookupError):
        return raw.decode("latin-1")


def description_of(tags: Tags) -> str:
    """SeriesDescription in one line of up to 64 characters; "" if it has the patient's name, number or birth date."""
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in decoded(tags, "SeriesDescription")).split())
    if not text:
        return ""
    identity = re.split(r"[\W_]+", f"{decoded(tags, 'PatientName')} {decoded(tags, 'PatientID')}".casefold())
    number, birth = decoded(tags, "PatientID").casefold(), tags.text("PatientBirthDate")
    identity.append(number)
    words = text.casefold()
    if any(len(part) >= _SHORTEST_NAME and part in words for part in identity):
        return ""
    joined = re.sub(r"[\W_]+", "", words)  # numbers may be written with other separators, dates in another order
    dates = (birth, birth[6:] + birth[4:6] + birth[:4], birth[4:] + birth[:4])
    if any(len(part) >= _SHORTEST_NUMBER and part in joined for part in (re.sub(r"[\W_]+", "", number), *dates)):
        return ""
    return text[:_LONGEST]
