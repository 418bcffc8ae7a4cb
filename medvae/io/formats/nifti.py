"""NIfTI-1 and -2, plain, gzipped or in pairs: a strict reader, and a writer that makes its own header.

Coordinates of NIfTI are RAS+ mm already. The reader believes no header: sizes are checked against the file before
anything is allocated, exactly the bytes needed are inflated, and the rest is drained so that length and CRC are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from medvae.errors import ScanError
from medvae.io.files import atomic
from medvae.io.nifti.header import GZIP_ERRORS, TRAILING_LIMIT, Header, is_gzip, read_header
from medvae.scan import Geometry, Modality, Scan, ScanInfo, ScanRef, Units

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.settings import ReadSettings

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
_UNITS: dict[Modality | None, Units] = {"CT": "HU", "SHAPE": "binary"}
_WRITE_LEVEL = 2  # isal: six times as fast as zlib's level 1 on float maps, at its size
# ISA-L (2.31, igzip_icf_body_h1_gr_bt.asm, write_first_byte) hashes an unset register that holds a heap address, where
# a stream's first bytes are the first of many: one process in a thousand then finds other matches, and writes other
# bytes for the same data. At most 16 bytes, flushed, take a road without that branch, and later bytes never reach it.
_FIRST = 16


def matches(path: Path) -> bool:
    """Whether the name is one of a NIfTI file or of a part of one."""
    return path.name.lower().endswith(SUFFIXES)


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """Geometry and type from the header, checked against the size of the file.

    Raises:
        ScanError: the header shows that the file cannot be used.
    """
    header = read_header(ref.path, settings)
    modality = ref.modality or settings.modality
    return ScanInfo(header.geometry, str(header.dtype), modality, _UNITS.get(modality, "a.u."), header.warnings)


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read one 3D volume as float32.

    Raises:
        ScanError: see the table in `medvae.errors`.
    """
    header = read_header(ref.path, settings)
    data = _read_voxels(header, ref.path)
    low, high = float(data.min()), float(data.max())
    valid = None
    warnings = header.warnings
    if not (np.isfinite(low) and np.isfinite(high)):
        data, valid = _fill(data, settings, path=ref.path)
        low, high = float(data.min()), float(data.max())
        warnings = (*warnings, f"{int((~valid).sum())} voxels that are not finite were filled")
    if low == high:
        raise ScanError(f"all voxels are {low:g}", code="blank", path=ref.path)
    modality = ref.modality or settings.modality
    return Scan(data, header.geometry, valid, modality, _UNITS.get(modality, "a.u."), warnings)


def read_values(path: Path, settings: ReadSettings) -> tuple[NDArray[np.float32], Geometry]:
    """Voxels and geometry of a mask or label map, which may be blank.

    Raises:
        ScanError: as `read`, but for `blank`.
    """
    try:
        header = read_header(path, settings)
        return _read_voxels(header, path), header.geometry
    except OSError as error:
        raise ScanError(error.strerror or str(error), code="unreadable", path=path) from error


def write(
    path: Path,
    data: NDArray[np.float32] | NDArray[np.integer],
    geometry: Geometry,
    *,
    description: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Write `data` `(X, Y, Z)` in its own type under a header made from scratch, atomically; gzipped for `.gz`.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        data: float32, uint8 or int16. Nothing is scaled or rounded.
        geometry: where it lies; written as sform, and as qform where a qform can say it.
        description: what it is and its unit, at most 79 bytes.
        limits: display range (`cal_min`, `cal_max`); the data's own if None.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    header = _make_header(data, geometry, description=description, limits=limits)
    voxels = data.ravel(order="F").view(np.uint8).data
    with atomic(path) as partial, open(partial, "wb") as raw:
        if path.name.endswith(".gz"):
            with igzip.IGzipFile(filename="", mode="wb", compresslevel=_WRITE_LEVEL, fileobj=raw, mtime=0) as file:
                file.write(header[:_FIRST])
                file.flush(isal_zlib.Z_SYNC_FLUSH)
                file.write(header[_FIRST:])
                file.write(voxels)
        else:
            raw.write(header)
            raw.write(voxels)


# ---------------------------------------------------------------------------------------------------------- voxels


def _read_voxels(header: Header, path: Path) -> NDArray[np.float32]:
    """Float32 voxels in Fortran order, the order of the file: the next step takes them as they lie."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.frombuffer(_inflate(header, path), dtype=header.dtype).reshape(header.geometry.shape, order="F")
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


def _fill(
    data: NDArray[np.float32], settings: ReadSettings, *, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    valid = np.isfinite(data)
    if not settings.fill_non_finite or not valid.any():
        message = f"{int((~valid).sum())} of {valid.size} voxels are NaN or infinite"
        raise ScanError(message, code="non_finite", path=path)
    return np.where(valid, data, data[valid].min()), valid


# --------------------------------------------------------------------------------------------------------- writing


def _make_header(
    data: NDArray[np.generic], geometry: Geometry, *, description: str, limits: tuple[float, float] | None
) -> bytes:
    if data.shape != geometry.shape:
        raise ValueError(f"data {data.shape} does not fit the geometry {geometry.shape}")
    if data.dtype not in (np.float32, np.uint8, np.int16):
        raise ValueError(f"float32, uint8 or int16 are written, not {data.dtype}")
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_xyzt_units("mm")
    header.set_sform(geometry.affine, code=1)
    header.set_qform(geometry.affine, code=1, strip_shears=True)
    stored = Geometry(geometry.shape, np.asarray(header.get_qform(), np.float64))
    if stored.distance_to(geometry) > 1e-3:  # a qform cannot hold shear: better none than one that lies
        header.set_qform(None, code=0)
        header["pixdim"][1:4] = geometry.spacing
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("values that are not finite are not written")
    header["cal_min"], header["cal_max"] = limits or (low, high)
    header["descrip"] = description.encode("utf-8")[:79].decode("utf-8", "ignore").encode("utf-8")
    return bytes(header.binaryblock) + b"\0\0\0\0"
