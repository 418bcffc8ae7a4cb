"""The header of a DICOM file: its wanted elements as bytes, and where its pixels lie. Pixels are never read here.

A series is opened twice, once to find it and once to read it, and a general parser costs more than the pixels do. This
walk looks at tags and lengths only, takes the few elements of `TAGS`, and never reads past the header. It puts no text
of the patient into a message.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from medvae.errors import ScanError
from medvae.io.dicom.tags import SEQUENCES, TAGS, Tags, Values

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".dcm", ".ima", ".dicom", ".dcm.gz")  # a file with such a name has to be one
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

_WANTED = frozenset(TAGS.values())
_NESTED = frozenset(SEQUENCES.values())
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_META = {0x00020002: "MediaStorageSOPClassUID", 0x00020010: "TransferSyntaxUID"}
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # VRs with a length of 4 bytes
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_PREAMBLE = 132  # bytes, with the signature
_HEAD = 1 << 14  # bytes read at once
_INFLATED_HEADER = 16 << 20  # a deflated header ends within this
_DEEPEST = 16  # levels of sequences


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixels lie.

    Attributes:
        name: "PixelData", "FloatPixelData" or "DoubleFloatPixelData".
        offset: of the first byte of the value; in the inflated dataset where the file is deflated.
        length: bytes of the value; None where it is a chain of compressed fragments.
        complete: whether the file holds all of it. Always True for a deflated file, which is not inflated so far.
        words: whether it is stored as 16-bit words (OW).
    """

    name: str
    offset: int
    length: int | None
    complete: bool
    words: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What is needed of the header of one file.

    Attributes:
        path: the file.
        syntax: TransferSyntaxUID.
        media: MediaStorageSOPClassUID, the only identifier of a DICOMDIR.
        tags: the wanted elements.
        pixels: None where there are none.
        inflate_from: offset of the deflated dataset; 0 where it is not deflated.
        problem: code and message of what broke the header after these tags, or None.
    """

    path: Path
    syntax: str
    media: str
    tags: Tags
    pixels: PixelElement | None
    inflate_from: int = 0
    problem: tuple[str, str] | None = None


def read_header(path: Path) -> Header:
    """The header of a DICOM file, as far as it goes.

    Raises:
        ScanError: `not_a_scan` where the file is not DICOM; `malformed`, `truncated` or `corrupt` where it is useless.
        OSError: it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return _parse(file, path=path)
    except (StructError, OverflowError):
        raise ScanError("the header cannot be parsed", code="malformed", path=path) from None
    except ScanError as problem:
        raise ScanError(problem.message, code=problem.code, path=path, hint=problem.hint) from None


def inflate(header: Header, count: int) -> bytes:
    """At most the first `count` bytes of a deflated dataset.

    Raises:
        ScanError: `corrupt`, the stream is broken.
        OSError: the file cannot be opened.
    """
    with open(header.path, "rb") as file:
        file.seek(header.inflate_from)
        return _inflate(file, count)


def _parse(file: BinaryIO, *, path: Path) -> Header:
    head = file.read(_HEAD)
    start = _PREAMBLE if head[128:_PREAMBLE] == b"DICM" else 0
    if not (start or _starts_like_dataset(head)):
        _refuse(head)
    size = os.fstat(file.fileno()).st_size
    walker = _Walker(file, head, size)
    meta, start = walker.meta(start)
    syntax = meta.get("TransferSyntaxUID", "") or walker.syntax(start)
    media = meta.get("MediaStorageSOPClassUID", "")
    inflate_from = 0
    if syntax == DEFLATED:
        file.seek(start)
        data = _inflate(file, _INFLATED_HEADER)
        walker, start, inflate_from = _Walker(BytesIO(data), data, len(data)), 0, start
    order = ">" if syntax == BIG_ENDIAN else "<"
    found: Values = {}
    problem = _walk(walker, start, found, order=order, implicit=syntax == IMPLICIT)
    if not meta and TAGS["SeriesInstanceUID"] not in found:
        raise ScanError("a DICOM dataset without preamble and SeriesInstanceUID", code="malformed")
    pixels = walker.pixels
    if pixels and inflate_from:
        pixels = replace(pixels, complete=True)
    return Header(path, syntax, media, Tags(found, order), pixels, inflate_from, problem)


def _walk(walker: _Walker, start: int, found: Values, *, order: str, implicit: bool) -> tuple[str, str] | None:
    """Fill `found` with the elements of the dataset; code and message of what stopped it early."""
    try:
        walker.open(start, order, implicit=implicit)
        end = walker.dataset(start, walker.size, 0, found)
        if 0 < walker.size - end < 8 and walker.pixels is None and any(walker.take(end, walker.size - end)):
            return "truncated", "the file ends inside its header"
    except (StructError, OverflowError):
        return "malformed", "the header cannot be parsed"
    except ScanError as problem:
        return problem.code, problem.message
    return None


def _inflate(file: BinaryIO, count: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), count)
    except zlib.error:
        raise ScanError("the deflated dataset is damaged", code="corrupt") from None


def _refuse(head: bytes) -> NoReturn:
    """Refuse a file without the DICOM signature, naming what it is."""
    if head.startswith(b"version https://git-lfs"):
        raise ScanError("a Git LFS pointer, not the file itself", code="not_a_scan")
    if head[:2] == b"\x1f\x8b":
        raise ScanError("gzip-compressed, not a DICOM file", code="not_a_scan", hint="decompress it first")
    if not head:
        raise ScanError("an empty file", code="not_a_scan")
    text = not head.translate(None, bytes(range(32, 127)) + b"\t\r\n")
    raise ScanError("a text file, not DICOM" if text else "not a DICOM file", code="not_a_scan")


def _starts_like_dataset(head: bytes) -> bool:
    """Whether the first element is one of group 2 or 8, with a VR or a short length: older than the file format."""
    if len(head) < 16 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[2] > 0x18 or head[3]:
        return False
    return head[4:6].isupper() or 0 < int.from_bytes(head[4:8], "little") <= 128


class _Walker:
    """Goes from element to element of a file by their lengths, holding a window of its bytes."""

    def __init__(self, file: BinaryIO, head: bytes, size: int) -> None:
        self.file, self.window, self.base, self.size = file, head, 0, size
        self.pixels: PixelElement | None = None

    def take(self, at: int, count: int) -> bytes:
        """`count` bytes from `at`."""
        if at + count > self.size:
            raise ScanError("the file ends inside its header", code="truncated")
        if at < self.base or at + count > self.base + len(self.window):
            self.file.seek(at)
            self.base, self.window = at, self.file.read(max(count, _HEAD))
        return self.window[at - self.base : at - self.base + count]

    def meta(self, at: int) -> tuple[dict[str, str], int]:
        """The file meta information from `at` on (explicit, little endian), if any, and where the dataset starts."""
        self.open(at, "<", implicit=False)
        found = {}
        while at + 8 <= self.size and self.take(at, 2) == b"\x02\x00":
            tag, _, length, at = self.element(at)
            if tag in _META:
                found[_META[tag]] = self.take(at, length).decode("latin-1").strip(" \0")
            at += length
        return found, at

    def syntax(self, at: int) -> str:
        """The transfer syntax of a dataset whose file does not say it, by its first element: little endian."""
        self.open(at, "<", implicit=True)
        return IMPLICIT if self.implicit else EXPLICIT

    def open(self, at: int, order: str, *, implicit: bool) -> None:
        """Set how elements are coded; the first element decides where it contradicts the transfer syntax."""
        self.order = order
        self.short = Struct(order + "HHL").unpack_from
        self.half, self.long = Struct(order + "H").unpack_from, Struct(order + "L").unpack_from
        if at + 8 <= self.size:
            letters = self.take(at + 4, 2)
            implicit = not (letters.isalpha() and letters.isupper())
        self.implicit = implicit

    def element(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, VR (b"" where implicit), length, and where the value starts."""
        if at < self.base or at + 12 > self.base + len(self.window):
            self.take(at, min(12, self.size - at))
        here = at - self.base
        group, number, length = self.short(self.window, here)
        if self.implicit or group == 0xFFFE:
            return group << 16 | number, b"", length, at + 8
        vr = self.window[here + 4 : here + 6]
        if vr in _LONG:
            return group << 16 | number, vr, self.long(self.window, here + 8)[0], at + 12
        if b"AA" <= vr <= b"ZZ":
            length = self.half(self.window, here + 6)[0]
        return group << 16 | number, vr, length, at + 8  # no VR: an implicit element in an explicit dataset

    def dataset(self, at: int, end: int, depth: int, found: Values) -> int:
        """Fill `found` with the wanted elements from `at` on; ends at `end`, at an item's end or at the pixels."""
        while at + 8 <= end:
            tag, vr, length, start = self.element(at)
            if tag == _ITEM_END or not tag:
                return start
            if depth == 0 and tag in _PIXELS:
                self.pixels = self._locate(tag, vr, start, length)
                return start
            if tag in _NESTED:
                found[tag], at = self.sequence(start, length, end, depth=depth + 1, unknown=vr == b"UN")
            elif length == _UNDEFINED:
                at = self._skip(vr, start, end, depth=depth + 1)
            else:
                at = start + length
                if at > end:
                    what = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
                    raise ScanError(f"the file ends inside element {what}", code="truncated")
                if tag in _WANTED:
                    found[tag] = self.take(start, length)
        return at

    def sequence(
        self, at: int, length: int, end: int, *, depth: int, unknown: bool = False
    ) -> tuple[tuple[Tags, ...], int]:
        """The items of a sequence, and where it ends. A sequence of unknown VR is coded implicitly."""
        if depth > _DEEPEST:
            raise ScanError("sequences are nested too deeply", code="malformed")
        was, self.implicit = self.implicit, self.implicit or unknown
        items, stop = [], end if length == _UNDEFINED else at + length
        if stop > end:
            raise ScanError("the file ends inside a sequence", code="truncated")
        while at + 8 <= stop:
            tag, _, size, at = self.element(at)
            if tag != _ITEM:
                if tag != _SEQUENCE_END:
                    raise ScanError("a sequence is broken", code="malformed")
                break
            inside = stop if size == _UNDEFINED else at + size
            if inside > stop:
                raise ScanError("the file ends inside a sequence", code="truncated")
            values: Values = {}
            after = self.dataset(at, inside, depth, values)
            items.append(Tags(values, self.order))
            at = after if size == _UNDEFINED else inside
        else:
            if length == _UNDEFINED:
                raise ScanError("the file ends inside a sequence", code="truncated")
        self.implicit = was
        return tuple(items), at if length == _UNDEFINED else stop

    def _skip(self, vr: bytes, at: int, end: int, *, depth: int) -> int:
        """Where an element of undefined length ends: a sequence, or the compressed pixels of an icon."""
        if vr in (b"OB", b"OW"):
            return self.fragments(at)[0]
        return self.sequence(at, _UNDEFINED, end, depth=depth, unknown=vr == b"UN")[1]

    def fragments(self, at: int) -> tuple[int, bool]:
        """Where a chain of compressed fragments ends, and whether the file holds all of it."""
        while at + 8 <= self.size:
            tag, _, length, at = self.element(at)
            if tag != _ITEM:
                break
            at += length
        return at, at <= self.size

    def _locate(self, tag: int, vr: bytes, start: int, length: int) -> PixelElement:
        if length == _UNDEFINED:
            return PixelElement(_PIXELS[tag], start, None, self.fragments(start)[1], False)
        return PixelElement(_PIXELS[tag], start, length, start + length <= self.size, vr != b"OB")
