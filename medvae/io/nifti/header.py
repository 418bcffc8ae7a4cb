"""What a NIfTI header says, believed only where the file can hold it and the standard allows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from zlib import error as ZlibError

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from medvae.errors import ScanError
from medvae.io.nifti.geometry import read_geometry
from medvae.io.nifti.pairs import half_of, pair_of

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import Geometry
    from medvae.settings import ReadSettings

GZIP_ERRORS: Any = (igzip.BadGzipFile, isal_zlib.error, ZlibError)
TRAILING_LIMIT = 1 << 20  # bytes after the voxels that are tolerated
_DEFLATE_LIMIT = 1032  # no gzip member inflates to more than this times its size
_SINGLE, _PAIR = (b"n+1\0", b"n+2\0"), (b"ni1\0", b"ni2\0")
_KINDS = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex", 1536: "128-bit float", 1: "1-bit"}
_NO_VOLUME = "leave the file out with exclude=: only 3D volumes can be read"


@dataclass(frozen=True)
class Header:
    """What is needed of a header, checked against the standard and the size of the file.

    Attributes:
        geometry: shape and affine, RAS+ mm.
        dtype: stored voxel type, byte order included.
        slope: stored value × slope + inter is the value; 1 where the file is unscaled.
        inter: see slope.
        data: the file that holds the voxels.
        offset: of the wanted volume, bytes from the start of the inflated data file.
        after: bytes of the volumes that follow it.
        warnings: what a user should know, in words.
    """

    geometry: Geometry
    dtype: np.dtype[np.generic]
    slope: float
    inter: float
    data: Path
    offset: int
    after: int
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the wanted volume as stored."""
        return _product(self.geometry.shape) * self.dtype.itemsize


def read_header(path: Path, settings: ReadSettings) -> Header:
    """The header of a NIfTI file, or of the pair that it is one half of.

    Raises:
        ScanError: see the NIfTI codes in `medvae.errors`.
        OSError: the file cannot be opened.
    """
    path, data_path = _pair(path)
    start, header = _parse(path, single=path == data_path)
    dtype = _dtype(header, path)
    dims = _dims(header, path)
    volume = _volume(dims, settings, path)
    shape = (dims[0], dims[1], dims[2])
    geometry, warnings = read_geometry(header, shape, settings, path)
    size = _product(shape) * dtype.itemsize
    slope, inter = _scaling(header, path)
    offset = _offset(header, path, minimum=start) + volume * size
    after = (_product(dims[3:]) - volume - 1) * size
    found = Header(geometry, dtype, slope, inter, data_path, offset, after, (*warnings, *_unused_inter(header)))
    _check_size(found, path, settings)
    return found


def is_gzip(file: BinaryIO) -> bool:
    """Whether a file, open at its start, is gzip, whatever it is called. It is at its start again afterwards."""
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


def _pair(path: Path) -> tuple[Path, Path]:
    """Header file and data file; the same for a single file. The half that was named is the half that is taken."""
    half, found = half_of(path), pair_of(path)
    if half is None:
        return path, path
    if len(found) < 2:
        other = ".img" if half == "hdr" else ".hdr"
        raise ScanError(
            f"the other half of the pair, a {other} file of the same name, is missing", code="unpaired", path=path
        )
    return found[0], found[1]


def _parse(path: Path, *, single: bool) -> tuple[int, Any]:
    """First byte at which voxels can lie, and nibabel's header object."""
    raw = _start(path, 540)
    for kind, size, at in ((nib.Nifti1Header, 348, 344), (nib.Nifti2Header, 540, 4)):
        for first, order in ((size.to_bytes(4, "little"), "<"), (size.to_bytes(4, "big"), ">")):
            if raw[:4] == first:
                _check_magic(raw, size, at=at, single=single, path=path)
                return size + 4 if single else 0, kind(raw[:size], order, check=False)
    if not raw:
        raise ScanError("an empty file", code="truncated", path=path)
    if raw.startswith(b"version https://git-lfs"):
        raise ScanError("a Git LFS pointer, not the file itself", code="not_a_scan", path=path)
    raise ScanError("no NIfTI header", code="not_a_scan", path=path)


def _check_magic(raw: bytes, size: int, *, at: int, single: bool, path: Path) -> None:
    if len(raw) < size:
        raise ScanError(f"{len(raw)} bytes, a header has {size}", code="truncated", path=path)
    magic = raw[at : at + 4]
    if magic not in _SINGLE + _PAIR:
        message = "Analyze or another format without NIfTI magic"
        raise ScanError(message, code="unsupported_type", path=path, hint="convert it to NIfTI")
    if single and magic in _PAIR:
        raise ScanError("by its magic the voxels lie in a second file", code="unpaired", path=path)
    if not single and magic in _SINGLE:
        raise ScanError("by its magic the voxels lie in the header's own file", code="malformed", path=path)


def _start(path: Path, count: int) -> bytes:
    """The first `count` bytes, inflated where the file is gzip."""
    if path.exists() and not path.is_file():  # a pipe would block for ever
        raise ScanError("not a regular file", code="unreadable", path=path)
    with open(path, "rb") as file:
        if not is_gzip(file):
            return file.read(count)
        try:
            return cast("bytes", igzip.IGzipFile(fileobj=file, mode="rb").read(count))
        except EOFError:
            raise ScanError("the gzip stream ends too early", code="truncated", path=path) from None
        except GZIP_ERRORS as error:
            raise ScanError(f"broken gzip: {error}", code="corrupt", path=path) from None


def _dtype(header: Any, path: Path) -> np.dtype[np.generic]:
    code = int(header["datatype"])
    intent = int(header["intent_code"])
    if 3000 <= intent < 3100:
        raise ScanError(f"CIFTI (intent {intent})", code="unsupported_type", path=path, hint=_NO_VOLUME)
    if code in _KINDS:
        raise ScanError(f"{_KINDS[code]} voxels", code="unsupported_type", path=path)
    try:
        dtype: np.dtype[np.generic] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        raise ScanError(f"unknown data type {code}", code="unsupported_type", path=path) from None
    if dtype.kind not in "iuf":
        raise ScanError(f"data type {code} ({dtype})", code="unsupported_type", path=path)
    return dtype


def _dims(header: Any, path: Path) -> tuple[int, ...]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise ScanError(f"{count} dimensions", code="malformed", path=path)
    dims = tuple(int(n) for n in header["dim"][1 : count + 1])
    if min(dims) < 1:
        raise ScanError(f"a length in {_times(dims)} is not positive", code="malformed", path=path)
    if count < 3:
        raise ScanError(f"{count}D, shape {_times(dims)}", code="not_3d", path=path, hint=_NO_VOLUME)
    return dims


def _volume(dims: tuple[int, ...], settings: ReadSettings, path: Path) -> int:
    """Which volume is wanted, counted in file order."""
    if min(dims[:3]) < 2:
        raise ScanError(f"shape {_times(dims)} is flat", code="not_3d", path=path, hint=_NO_VOLUME)
    count = _product(dims[3:])
    if count == 1:
        return 0
    hint = f"choose one of its {count} volumes, 0 to {count - 1}: set read.volume=0"
    if settings.volume is None:
        raise ScanError(f"shape {_times(dims)} is not one 3D volume", code="not_3d", path=path, hint=hint)
    if settings.volume >= count:
        raise ScanError(f"there is no volume {settings.volume} among {count}", code="not_3d", path=path, hint=hint)
    return settings.volume


def _product(lengths: tuple[int, ...]) -> int:
    return int(np.prod(lengths, dtype=object))  # Python integers: a lying header must not overflow


def _times(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims))


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # the standard: unscaled
        return 1.0, 0.0
    if not np.isfinite(inter):
        raise ScanError(f"scl_slope is {slope:g} and scl_inter {inter}", code="malformed", path=path)
    return slope, inter


def _unused_inter(header: Any) -> list[str]:
    """An intercept without a slope: by the standard it does not count, but ITK adds it."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if (slope and np.isfinite(slope)) or not inter or not np.isfinite(inter):
        return []
    return [f"scl_inter is {inter:g} but scl_slope {slope:g}: values are taken as stored; other tools may differ"]


def _offset(header: Any, path: Path, *, minimum: int) -> int:
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < 0:
        raise ScanError(f"vox_offset is {offset}", code="malformed", path=path)
    return max(int(offset), minimum)


def _check_size(header: Header, path: Path, settings: ReadSettings) -> None:
    """Refuse what the file cannot hold, before anything is allocated."""
    shape = header.geometry.shape
    gib = _product(shape) * 4 / 2**30
    if gib > settings.max_gib:
        message = f"shape {_times(shape)} needs {gib:.1f} GiB, allowed are {settings.max_gib:g}"
        raise ScanError(message, code="too_large", path=path)
    size = header.data.stat().st_size
    with open(header.data, "rb") as file:
        zipped = is_gzip(file)
    needed = header.offset + header.nbytes + header.after
    if needed > size * (_DEFLATE_LIMIT if zipped else 1):
        raise ScanError(f"{size} bytes cannot hold the {needed} that the header needs", code="truncated", path=path)
    if not zipped and size > needed + TRAILING_LIMIT:
        raise ScanError("far more data than the header says", code="malformed", path=path)
