"""Compressed pixels: one frame's stream at a time, through pydicom's plug-ins or the GDCM inside SimpleITK.

GDCM reads the JPEG of 1992, whose other decoders are not under a free licence or know 8 bits only, and the JPEG-LS
that the plug-in does not. It would rescale, so it gets the stream in a file that has neither rescale nor geometry nor
anything of the patient. A result is accepted only where the stream describes the image in the header, is complete, and
its decoder does not complain: decoders tolerate much, and return something for half a stream.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, generate_uid

from medvae.errors import ScanError
from medvae.io.dicom.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Image, Stored

_BASELINE, _EXTENDED, _LOSSLESS, _FIRST_ORDER = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
_RLE = "1.2.840.10008.1.2.5"
_J2K = {f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)}
_JLS = {f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)}
_JPEG = (_BASELINE, _EXTENDED, _LOSSLESS, _FIRST_ORDER)
_PROCESSES = {  # the start of frame that each transfer syntax allows
    _BASELINE: (0xC0,),
    _EXTENDED: (0xC0, 0xC1),
    _LOSSLESS: (0xC3,),
    _FIRST_ORDER: (0xC3,),
    **dict.fromkeys(_JLS, (0xF7,)),
}
_COMPLAINTS = (b"Corrupt JPEG", b"Premature end", b"Invalid SOS", b"Inconsistent progression")


@dataclass(frozen=True)
class _Stream:
    """The image that a codestream describes."""

    rows: int
    columns: int
    components: int
    precision: int


def read_fragments(image: Image, numbers: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """The streams of frames by their numbers, in the order of the file.

    Raises:
        ScanError: `undecodable` where there are fewer frames than NumberOfFrames, or fragments that belong to none.
        OSError: the file cannot be opened.
    """
    header, last = image.header, max(numbers, default=-1)
    assert header.pixels is not None
    offsets = [header.tags.raw(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    with open(header.path, "rb") as file:
        file.seek(header.pixels.offset)
        table = (offsets[0], offsets[1]) if all(offsets) else None
        streams = generate_frames(file, number_of_frames=image.count, extended_offsets=table)
        for number in range(last + 1):
            try:
                stream = next(streams)
            except (MemoryError, OSError):
                raise
            except Exception:
                raise ScanError(f"frame {number + 1} of {image.count} is missing", code="undecodable") from None
            if number in numbers:
                yield number, stream


def decode(stream: bytes, syntax: str, stored: Stored) -> NDArray[np.integer]:
    """Stored values of one frame, `(rows, columns)`.

    Raises:
        ScanError: `undecodable`.
    """
    if syntax != _RLE:
        _check(stream, syntax, stored)
    with quiet():
        if syntax == _RLE:
            warnings.simplefilter("error")  # its decoder warns where a segment is longer than the image
        pixels = None if syntax in _JPEG else _by_pydicom(stream, syntax, stored)
        if pixels is None and syntax in _PROCESSES:
            pixels = _by_gdcm(stream, syntax, stored)
    if pixels is None:
        raise ScanError("no decoder can read the pixels", code="undecodable")
    unused = stored.allocated - stored.stored
    return pixels << unused >> unused if unused else pixels  # extends the sign


def _check(stream: bytes, syntax: str, stored: Stored) -> None:
    """Refuse a stream that is broken or contradicts the header."""
    if not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ScanError("the compressed stream has no end", code="undecodable")
    found = _parse_j2k(stream) if syntax in _J2K else _parse_jpeg(stream, _PROCESSES[syntax])
    if found is None:
        raise ScanError("the compressed stream is broken", code="undecodable")
    if (found.rows, found.columns, found.components) != (stored.rows, stored.columns, 1):
        raise ScanError(f"the stream holds {found.rows}x{found.columns}x{found.components}", code="undecodable")
    signed_in_part = stored.signed and syntax not in _J2K and found.precision not in (stored.stored, stored.allocated)
    if found.precision > stored.allocated or signed_in_part:  # only JPEG 2000 defines where the sign is
        raise ScanError(f"the stream holds {found.precision} bits of {stored.stored}", code="undecodable")


def _parse_j2k(stream: bytes) -> _Stream | None:
    """The SIZ segment, which follows the start of the codestream (ISO/IEC 15444-1, A.5.1)."""
    at = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or len(stream) < at + 43:
        return None
    right, bottom, left, top = unpack_from(">4L", stream, at + 8)
    (components,) = unpack_from(">H", stream, at + 40)
    return _Stream(bottom - top, right - left, components, (stream[at + 42] & 0x7F) + 1)


def _parse_jpeg(stream: bytes, processes: tuple[int, ...]) -> _Stream | None:
    """Frame and scan header of a JPEG or JPEG-LS stream (ISO/IEC 10918-1, B.2), or None where they are invalid."""
    found, process, at = None, 0, 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = unpack_from(">H", stream, at + 2)
        if marker in processes and at + 10 <= len(stream):
            precision, rows, columns, components = unpack_from(">BHHB", stream, at + 4)
            found, process = _Stream(rows, columns, components, precision), marker
        elif marker == 0xDA:
            sequential = process not in (0xC0, 0xC1) or stream[at + 7 : at + 10] == b"\0\x3f\0"
            return found if sequential else None
        at += 2 + length
    return None


def _by_pydicom(stream: bytes, syntax: str, stored: Stored) -> NDArray[np.integer] | None:
    try:
        pixels, _ = get_decoder(UID(syntax)).as_array(
            encapsulate([stream], has_bot=False),
            index=0,
            raw=True,
            decoding_plugin="pydicom" if syntax == _RLE else "",  # the compiled one panics on a broken stream
            rows=stored.rows,
            columns=stored.columns,
            samples_per_pixel=1,
            number_of_frames=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=stored.allocated,
            bits_stored=stored.stored,
            pixel_representation=int(stored.signed),
            pixel_keyword="PixelData",
        )
    except MemoryError:
        raise
    except Exception:  # each plug-in fails in its own way; their messages may quote the file
        return None
    return pixels if pixels.shape == (stored.rows, stored.columns) and pixels.dtype.kind in "iu" else None


def _by_gdcm(stream: bytes, syntax: str, stored: Stored) -> NDArray[np.integer] | None:
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "frame.dcm")
        _write_bare(path, stream, syntax, stored)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            with _captured_stderr() as written:
                pixels: NDArray[np.integer] = sitk.GetArrayFromImage(reader.Execute())
        except (RuntimeError, OSError):
            return None
    if any(complaint in written for complaint in _COMPLAINTS):
        return None
    if pixels.dtype != stored.dtype or pixels.size != stored.rows * stored.columns:
        return None
    return pixels.reshape(stored.rows, stored.columns)


def _write_bare(path: Path, stream: bytes, syntax: str, stored: Stored) -> None:
    """A DICOM file of one frame that has nothing but its pixels."""
    bare = Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID, bare.Modality = UID("1.2.840.10008.5.1.4.1.1.7"), generate_uid(), "OT"
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.Rows, bare.Columns, bare.PixelRepresentation = stored.rows, stored.columns, int(stored.signed)
    bare.BitsAllocated, bare.BitsStored, bare.HighBit = stored.allocated, stored.stored, stored.high
    bare.PixelData = encapsulate([stream])
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = UID(syntax)
    bare.save_as(path, enforce_file_format=True)


@contextmanager
def _captured_stderr() -> Iterator[bytearray]:
    """What is written to the standard error meanwhile: the only place where libjpeg reports a broken stream.

    It also writes there while GDCM tries one precision after the other; none of it is shown to the user.
    """
    written, kept = bytearray(), os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield written
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                written += file.read()
    finally:
        os.close(kept)
