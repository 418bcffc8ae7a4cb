"""From stored pixels to real values: one frame at a time, rescaled into its slice of the one float32 volume."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medvae.errors import ScanError
from medvae.io.dicom.header import BIG_ENDIAN, NATIVE, inflate
from medvae.io.dicom.tags import uid_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from medvae.io.dicom.frames import Frame, Image, Reason, Stored
    from medvae.io.dicom.header import Header

_JPEG = "1.2.840.10008.1.2.4."
_CODED = {_JPEG + number for number in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")}
_RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True, slots=True)
class _Pixels:
    """One frame: its number, stored values `(rows, columns)` in native byte order, and where they are padding."""

    number: int
    values: NDArray[np.integer]
    padded: NDArray[np.bool_] | None


def check_decodable(image: Image) -> list[Reason]:
    """Why the pixels of a file cannot be decoded, as far as its header shows."""
    syntax = image.header.syntax
    if syntax not in NATIVE and syntax not in _CODED and syntax != _RLE:
        return [("undecodable", f"no decoder for {syntax_name(syntax)}")]
    pixels = image.header.pixels
    if pixels is None:
        return []
    if (syntax in NATIVE) != (pixels.length is not None):
        return [("malformed", f"pixels are not stored as {syntax_name(syntax)} requires")]
    if syntax == BIG_ENDIAN and image.stored.allocated == 8 and pixels.words:
        return [("undecodable", f"8-bit pixels in 16-bit words, {syntax_name(syntax)}")]
    return []


def syntax_name(syntax: str) -> str:
    """A transfer syntax in words, with its UID."""
    name = uid_name(syntax)
    return f"{name} ({syntax})" if name else f"transfer syntax {syntax[:64]!r}"


def read_stored(image: Image, numbers: Collection[int]) -> Iterator[_Pixels]:
    """Stored values of frames by their numbers, in the order of the file.

    Raises:
        ScanError: `truncated`, `corrupt` or `undecodable`.
        OSError: the file cannot be opened.
    """
    if image.header.syntax in NATIVE:
        yield from _read_native(image, numbers)
        return
    from medvae.io.dicom.codecs import decode, read_fragments

    try:
        for number, stream in read_fragments(image, numbers):
            pixels = decode(stream, image.header.syntax, image.stored)
            yield _Pixels(number, pixels, _padded(pixels, image.stored))
    except ScanError as problem:
        message = f"{problem.message}: {syntax_name(image.header.syntax)}"
        raise ScanError(message, code=problem.code, path=image.header.path) from None


def read_volume(
    images: Sequence[Image], frames: Sequence[Frame]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Real values of frames in slice order, `(columns, rows, slices)`, and where they are not padding.

    Padding is air: where its value is above the darkest pixel, it gets that one's.

    Raises:
        ScanError: as `read_stored`; `non_finite` where the rescale overflows; `blank`.
        OSError: a file cannot be opened.
    """
    wanted: dict[object, dict[int, int]] = {}
    for place, frame in enumerate(frames):
        wanted.setdefault(frame.path, {})[frame.number] = place
    rows, columns = frames[0].matrix
    volume = np.empty((len(frames), rows, columns), np.float32)
    valid: NDArray[np.bool_] | None = None
    for image in images:
        places = wanted.get(image.header.path, {})
        for pixels in read_stored(image, places):
            place = places[pixels.number]
            _rescale(pixels.values, frames[place], volume[place])
            if pixels.padded is not None and pixels.padded.any():
                valid = np.ones(volume.shape, np.bool_) if valid is None else valid
                np.logical_not(pixels.padded, out=valid[place])
    _finish(volume, valid)
    return volume.T, None if valid is None else valid.T


def same_pixels(one: Image, other: Image) -> bool:
    """Whether two files hold the same stored values.

    Raises:
        ScanError: as `read_stored`.
        OSError: a file cannot be opened.
    """
    if one.count != other.count or (one.stored.rows, one.stored.columns) != (other.stored.rows, other.stored.columns):
        return False
    pairs = zip(read_stored(one, range(one.count)), read_stored(other, range(other.count)), strict=True)
    return all(np.array_equal(a.values, b.values) for a, b in pairs)


def _read_native(image: Image, numbers: Collection[int]) -> Iterator[_Pixels]:
    header, stored = image.header, image.stored
    assert header.pixels is not None
    dtype = stored.dtype.newbyteorder(">" if header.syntax == BIG_ENDIAN else "<")
    with _opened(header, header.pixels.offset + stored.nbytes * image.count) as file:
        for number in sorted(numbers):
            file.seek(header.pixels.offset + number * stored.nbytes)
            raw = file.read(stored.nbytes)
            if len(raw) < stored.nbytes:
                raise ScanError(f"frame {number + 1} ends too early", code="truncated", path=header.path)
            cells = np.frombuffer(raw, dtype).reshape(stored.rows, stored.columns)
            cells = cells.astype(dtype.newbyteorder("="), copy=False)
            padded = _padded(cells, stored)  # before bits are cut off: padding need not fit into those that are used
            yield _Pixels(number, _used_bits(cells, stored), padded)


@contextmanager
def _opened(header: Header, count: int) -> Iterator[BinaryIO]:
    """The file, or its first `count` bytes inflated."""
    if header.inflate_from:
        yield BytesIO(inflate(header, count))
        return
    with open(header.path, "rb") as file:
        yield file


def _used_bits(pixels: NDArray[np.integer], stored: Stored) -> NDArray[np.integer]:
    """Values of the bits that are used: above them old files keep overlays, or do not extend the sign."""
    if stored.stored == stored.allocated:
        return pixels
    lifted: NDArray[np.integer] = pixels << (stored.allocated - 1 - stored.high)
    return lifted >> (stored.allocated - stored.stored)


def _rescale(pixels: NDArray[np.integer], frame: Frame, out: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if pixels.itemsize > 2:  # not every value has its float32
            out[...] = pixels * np.float64(frame.slope) + frame.intercept
            return
        np.multiply(pixels, np.float32(frame.slope), out=out)
        out += np.float32(frame.intercept)


def _padded(pixels: NDArray[np.integer], stored: Stored) -> NDArray[np.bool_] | None:
    if stored.padding is None:
        return None
    low, high = stored.padding
    return pixels == low if low == high else (pixels >= low) & (pixels <= high)


def _finish(volume: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> None:
    """Check the values, and darken padding that is brighter than air can be."""
    if valid is None:
        low, high = float(volume.min()), float(volume.max())
    else:
        low, high = float(volume.min(where=valid, initial=np.inf)), float(volume.max(where=valid, initial=-np.inf))
    if low >= high:
        raise ScanError(f"all voxels are {'padding' if low > high else f'{low:g}'}", code="blank")
    if not (np.isfinite(low) and np.isfinite(high)):
        hint = "check RescaleSlope and RescaleIntercept, and export the series again"
        raise ScanError("rescaled values are beyond the range of float32", code="non_finite", hint=hint)
    if valid is not None:
        np.minimum(volume, low, out=volume, where=~valid)
