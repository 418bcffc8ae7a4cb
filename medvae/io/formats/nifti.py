"""NIfTI-1 and -2, plain, gzipped or in pairs: a strict reader, and a writer that makes its own header.

Coordinates of NIfTI are RAS+ already; other units than mm become mm. The reader believes no header: sizes are checked
against the file before anything is allocated, exactly the bytes needed are inflated, and the rest is read through so
that length and CRC are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from isal import igzip

from medvae.errors import ScanError
from medvae.io.checked import as_scan, stated
from medvae.io.nifti.header import GZIP_ERRORS, TRAILING_LIMIT, Header, is_gzip, read_header
from medvae.io.nifti.pairs import half_of, pair_of
from medvae.io.nifti.write import write
from medvae.scan import Scan, ScanInfo, ScanRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Geometry
    from medvae.settings import ReadSettings

__all__ = ["SUFFIXES", "find", "inspect", "matches", "read", "read_stored", "read_values", "write"]

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
_FARTHEST = 0.4  # a whole number that a scaling moved by more than this cannot be told from its neighbour


def matches(path: Path) -> bool:
    """Whether the name is one of a NIfTI file or of a half of one."""
    return path.name.lower().endswith(SUFFIXES)


def find(files: Sequence[Path], settings: ReadSettings) -> tuple[list[ScanRef], list[Path]]:
    """The NIfTI files among files by their names, a pair as one scan, and the other files.

    An `.img` without a header is left among the others: DICOM files are often called so.
    """
    pairs = {file: pair_of(file) for file in files if matches(file)}
    images = {pair[1] for pair in pairs.values() if len(pair) == 2 and pair[0] in pairs}  # the header stands for both
    lone = {file for file, pair in pairs.items() if len(pair) == 1 and half_of(file) == "img"}
    scans = [pair for file, pair in pairs.items() if file not in images and file not in lone]
    return [ScanRef("", "nifti", pair) for pair in scans], [file for file in files if file not in pairs or file in lone]


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """Geometry and type from the header, checked against the size of the file.

    Raises:
        ScanError: the header shows that the file cannot be used.
    """
    header = read_header(ref.path, settings)
    return ScanInfo(header.geometry, str(header.dtype), *stated(ref, settings), header.warnings)


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read one 3D volume as float32.

    Raises:
        ScanError: see the table in `medvae.errors`.
    """
    header = read_header(ref.path, settings)
    return as_scan(_scaled(header, _stored(header, ref.path)), header.geometry, ref, settings, warnings=header.warnings)


def read_values(path: Path, settings: ReadSettings) -> tuple[NDArray[np.float32], Geometry]:
    """Voxels and geometry of a mask or label map, which may be blank.

    Whole numbers that were stored with a slope below 1, as nibabel does with a float array under an integer header,
    are whole again.

    Raises:
        ScanError: as `read`, except `blank`.
    """
    header, stored = _opened(path, settings)
    values = _scaled(header, stored)
    return (_rounded(values, abs(header.slope)) if abs(header.slope) < 1 else values), header.geometry


def read_stored(path: Path, settings: ReadSettings) -> tuple[NDArray[np.generic], tuple[float, float]]:
    """Voxels `(X, Y, Z)` in the type of the file, and slope and intercept: number · slope + intercept is the value.

    Raises:
        ScanError: as `read_values`.
    """
    header, stored = _opened(path, settings)
    return stored, (header.slope, header.inter)


# ---------------------------------------------------------------------------------------------------------- voxels


def _rounded(values: NDArray[np.float32], slope: float) -> NDArray[np.float32]:
    """Whole numbers again after steps of `slope`; of other values only what was 0, so that a mask keeps its outside."""
    off = slope / 2 + 1e-6 * float(np.abs(values).max())  # and the rounding of slope and intercept to float32
    whole = np.rint(values)
    if off <= _FARTHEST and float(np.abs(values - whole).max()) <= off:
        return whole
    return np.where(np.abs(values) <= off, np.float32(0), values)


def _opened(path: Path, settings: ReadSettings) -> tuple[Header, NDArray[np.generic]]:
    """Header and stored voxels of a file that may be missing."""
    try:
        header = read_header(path, settings)
        return header, _stored(header, path)
    except OSError as error:
        raise ScanError(error.strerror or str(error), code="unreadable", path=path) from error


def _stored(header: Header, path: Path) -> NDArray[np.generic]:
    """Voxels in the type and, Fortran's, the order of the file: the next step takes them as they lie."""
    return np.frombuffer(_inflate(header, path), dtype=header.dtype).reshape(header.geometry.shape, order="F")


def _scaled(header: Header, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Float32 values of stored voxels, in their order."""
    with np.errstate(over="ignore", invalid="ignore"):
        if (header.slope, header.inter) == (1.0, 0.0):
            return stored.astype(np.float32)
        scaled: NDArray[np.floating] = stored.astype(np.float64 if stored.dtype.itemsize > 2 else np.float32)
        scaled *= scaled.dtype.type(header.slope)
        scaled += scaled.dtype.type(header.inter)
        return scaled.astype(np.float32, copy=False)


def _inflate(header: Header, path: Path) -> bytearray:
    """Exactly the bytes of the wanted volume; what follows is read too, so that length and CRC are checked."""
    voxels = bytearray(header.nbytes)
    with open(header.data, "rb") as raw:
        zipped = is_gzip(raw)
        file = igzip.IGzipFile(fileobj=raw, mode="rb") if zipped else raw
        try:
            got = _skip(file, header.offset)
            got += _read_into(file, memoryview(voxels))
            got += _skip(file, header.after)
            beyond = _skip(file, TRAILING_LIMIT + 1) if zipped else 0
        except EOFError:
            raise ScanError("the gzip stream ends too early", code="truncated", path=path) from None
        except GZIP_ERRORS as error:
            raise ScanError(f"broken gzip: {error}", code="corrupt", path=path) from None
    needed = header.offset + header.nbytes + header.after
    if got < needed:
        raise ScanError(f"{got} bytes of the {needed} that the header needs", code="truncated", path=path)
    if beyond > TRAILING_LIMIT:
        raise ScanError("far more data than the header says", code="malformed", path=path)
    return voxels


def _skip(file: BinaryIO, count: int) -> int:
    """Read up to `count` bytes without keeping them; returns how many there were."""
    left = count
    while left and (piece := file.read(min(left, 1 << 20))):
        left -= len(piece)
    return count - left


def _read_into(file: BinaryIO, buffer: memoryview) -> int:
    got = 0
    while got < len(buffer) and (count := file.readinto(buffer[got:])):  # type: ignore[attr-defined]
        got += count
    return got
