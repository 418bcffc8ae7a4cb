"""NIfTI-1 and -2, plain, gzipped or in pairs: a strict reader, and a writer that makes its own header.

Coordinates of NIfTI are RAS+ mm already. The reader believes no header: sizes are checked against the file before
anything is allocated, exactly the bytes needed are inflated, and the rest is drained so that length and CRC are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast
from zlib import error as ZlibError

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nibabel.spatialimages import HeaderDataError

from medvae.errors import ScanError
from medvae.io.files import atomic
from medvae.scan import Geometry, Modality, Scan, ScanInfo, ScanRef, Shape, Units

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.settings import ReadSettings

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
_DEFLATE_LIMIT = 1032  # no gzip member inflates to more than this times its size
_TRAILING_LIMIT = 1 << 20  # bytes after the voxels that are tolerated
_MAGIC = {b"n+1\0": 1, b"ni1\0": 1, b"n+2\0": 2, b"ni2\0": 2}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: unknown, metre, mm, micron
_KINDS = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex", 2048: "complex", 1536: "128-bit float", 1: "1-bit"}
_UNITS: dict[Modality | None, Units] = {"CT": "HU", "SHAPE": "binary"}
_WRITE_LEVEL = 2  # isal: six times as fast as zlib's level 1 on float maps, at its size


@dataclass(frozen=True)
class _Header:
    """What is needed of a header, checked."""

    geometry: Geometry
    dtype: np.dtype[np.generic]
    slope: float
    inter: float
    data: Path  # the file that holds the voxels
    offset: int  # of the wanted volume, bytes from the start of the inflated data file
    after: int  # bytes of the volumes that follow it
    warnings: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.geometry.shape, dtype=object)) * self.dtype.itemsize


def matches(path: Path) -> bool:
    """Whether the name is one of a NIfTI file or of a part of one."""
    return path.name.lower().endswith(SUFFIXES)


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """Geometry and type from the header, checked against the size of the file.

    Raises:
        ScanError: the header shows that the file cannot be used.
    """
    header = _read_header(ref.path, settings)
    modality = ref.modality or settings.modality
    return ScanInfo(header.geometry, str(header.dtype), modality, _UNITS.get(modality, "a.u."), header.warnings)


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read one 3D volume as float32.

    Raises:
        ScanError: see the table in `medvae.errors`.
    """
    header = _read_header(ref.path, settings)
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
        header = _read_header(path, settings)
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
    voxels = memoryview(data.ravel(order="F")).cast("B")
    with atomic(path) as partial, open(partial, "wb") as raw:
        if path.name.endswith(".gz"):
            with igzip.IGzipFile(filename="", mode="wb", compresslevel=_WRITE_LEVEL, fileobj=raw, mtime=0) as file:
                file.write(header)
                file.write(voxels)
        else:
            raw.write(header)
            raw.write(voxels)


# ---------------------------------------------------------------------------------------------------------- header


def _read_header(path: Path, settings: ReadSettings) -> _Header:
    path, data_path = _pair(path)
    raw, header = _parse(path)
    single = raw[1] in (b"n+1\0", b"n+2\0")
    dtype = _dtype(header, path)
    dims = _dims(header, path)
    volume = _volume(dims, settings, path)
    shape: Shape = dims[:3]
    if min(shape) < 2:
        raise ScanError(f"shape {_times(dims)} is flat", code="not_3d", path=path)
    geometry, warnings = _geometry(header, shape, settings, path)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    offset = _offset(header, path, minimum=len(raw[0]) if single else 0) + volume * size
    after = int(np.prod(dims[3:], dtype=object)) * size - (volume + 1) * size
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # the standard: unscaled
        slope, inter = 1.0, 0.0
    inter = inter if np.isfinite(inter) else 0.0
    found = _Header(geometry, dtype, slope, inter, path if single else data_path, offset, after, warnings)
    _check_size(found, path, settings)
    return found


def _pair(path: Path) -> tuple[Path, Path]:
    """Header file and data file; the same for a single file."""
    name = path.name.lower()
    if ".hdr" not in name[-7:] and ".img" not in name[-7:]:
        return path, path
    stem = path.name[: name.rindex(".hdr" if ".hdr" in name[-7:] else ".img")]
    halves = []
    for half in (".hdr", ".img"):
        found = [p for p in (path.with_name(stem + half), path.with_name(stem + half + ".gz")) if p.is_file()]
        if not found:
            raise ScanError(f"there is no {stem}{half} beside it", code="unpaired", path=path)
        halves.append(found[0])
    return halves[0], halves[1]


def _parse(path: Path) -> tuple[tuple[bytes, bytes], nib.Nifti1Header | nib.Nifti2Header]:
    """The header's bytes and magic, and the header."""
    with open(path, "rb") as file:
        raw = _start(file, 540, path)
    if len(raw) < 4:
        raise ScanError(f"only {len(raw)} bytes", code="truncated", path=path)
    for kind, size, at in ((nib.Nifti1Header, 348, 344), (nib.Nifti2Header, 540, 4)):
        for order, code in (("little", "<"), ("big", ">")):
            if int.from_bytes(raw[:4], order) != size:  # type: ignore[arg-type]
                continue
            if len(raw) < size:
                raise ScanError(f"{len(raw)} bytes, a header has {size}", code="truncated", path=path)
            magic = raw[at : at + 4]
            if magic not in _MAGIC:
                raise ScanError("Analyze or another format without NIfTI magic", code="unsupported_type", path=path)
            return (raw[:size], magic), kind(raw[:size], code, check=False)
    if raw.startswith(b"version https://git-lfs"):
        raise ScanError("a Git LFS pointer, not the file itself", code="not_a_scan", path=path)
    raise ScanError("no NIfTI header", code="not_a_scan", path=path)


def _start(file: BinaryIO, count: int, path: Path) -> bytes:
    """The first `count` bytes, inflated where the file is gzip (whatever it is called)."""
    raw = file.read(1 << 16)
    if raw[:2] != b"\x1f\x8b":
        return raw[:count]
    try:
        return cast("bytes", isal_zlib.decompressobj(wbits=31).decompress(raw, count))
    except (isal_zlib.error, ZlibError) as error:
        raise ScanError(f"broken gzip: {error}", code="corrupt", path=path) from None


def _dtype(header: nib.Nifti1Header, path: Path) -> np.dtype[np.generic]:
    code = int(header["datatype"])
    intent = int(header["intent_code"])
    if 3000 <= intent < 3100:
        raise ScanError(f"CIFTI (intent {intent})", code="unsupported_type", path=path)
    if code in _KINDS:
        raise ScanError(f"{_KINDS[code]} voxels", code="unsupported_type", path=path)
    try:
        dtype = header.get_data_dtype()
    except HeaderDataError:
        raise ScanError(f"unknown data type {code}", code="unsupported_type", path=path) from None
    if dtype.kind not in "iuf":
        raise ScanError(f"data type {code} ({dtype})", code="unsupported_type", path=path)
    return np.dtype(dtype)


def _dims(header: nib.Nifti1Header, path: Path) -> tuple[int, ...]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise ScanError(f"{count} dimensions", code="malformed", path=path)
    dims = tuple(int(n) for n in header["dim"][1 : count + 1])
    if min(dims) < 1:
        raise ScanError(f"a length in {_times(dims)} is not positive", code="malformed", path=path)
    if count < 3:
        raise ScanError(f"{count}D, shape {_times(dims)}", code="not_3d", path=path)
    return dims


def _volume(dims: tuple[int, ...], settings: ReadSettings, path: Path) -> int:
    """Which volume is wanted, counted in file order."""
    count = int(np.prod(dims[3:], dtype=object))
    if count == 1:
        return 0
    if settings.volume is None:
        hint = f"choose one of its {count} volumes with --volume 0 to {count - 1}"
        raise ScanError(f"shape {_times(dims)} is not one 3D volume", code="not_3d", path=path, hint=hint)
    if settings.volume >= count:
        raise ScanError(f"no volume {settings.volume} among {count}", code="not_3d", path=path)
    return settings.volume


def _times(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims))


def _offset(header: nib.Nifti1Header, path: Path, *, minimum: int) -> int:
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < 0:
        raise ScanError(f"vox_offset is {offset}", code="malformed", path=path)
    return max(int(offset), minimum)


def _check_size(header: _Header, path: Path, settings: ReadSettings) -> None:
    """Refuse what the file cannot hold, before anything is allocated."""
    voxels = int(np.prod(header.geometry.shape, dtype=object))
    if voxels * 4 > settings.max_gib * 2**30:
        shape = _times(header.geometry.shape)
        message = f"shape {shape} needs {voxels * 4 / 2**30:.1f} GiB, allowed are {settings.max_gib:g}"
        raise ScanError(message, code="too_large", path=path)
    size = header.data.stat().st_size
    with open(header.data, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    needed = header.offset + header.nbytes
    if needed > size * (_DEFLATE_LIMIT if zipped else 1):
        raise ScanError(f"{size} bytes cannot hold the {needed} that the header needs", code="truncated", path=path)


def _geometry(
    header: nib.Nifti1Header, shape: Shape, settings: ReadSettings, path: Path
) -> tuple[Geometry, tuple[str, ...]]:
    """The affine by the rule: sform if coded, else qform if coded, else refused."""
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    forms = [np.asarray(header.get_sform(), np.float64) if int(header["sform_code"]) > 0 else None]
    forms.append(_qform(header, path) if int(header["qform_code"]) > 0 else None)
    coded = [_scaled(form, scale) for form in forms if form is not None]
    if not coded:
        if settings.assume_orientation is None:
            raise ScanError("neither sform nor qform is set", code="no_orientation", path=path)
        zooms = np.abs(np.asarray(header["pixdim"][1:4], np.float64)) * scale
        return _assumed(shape, zooms, settings.assume_orientation, path), ()
    for form in coded:
        if not np.isfinite(form).all() or abs(np.linalg.det(form[:3, :3])) < 1e-9:
            raise ScanError("the affine is singular or not finite", code="bad_affine", path=path)
    geometry = Geometry(shape, coded[0])
    apart = geometry.distance_to(Geometry(shape, coded[-1]))
    if apart <= 0.1:
        return geometry, ()
    return geometry, (f"sform and qform are {apart:.1f} mm apart; the sform is used, other tools may differ",)


def _qform(header: nib.Nifti1Header, path: Path) -> NDArray[np.float64]:
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise ScanError(f"broken qform: {error}", code="bad_affine", path=path) from None


def _scaled(affine: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return np.vstack([affine[:3] * scale, affine[3:]])


def _assumed(shape: Shape, zooms: NDArray[np.float64], axes: str, path: Path) -> Geometry:
    """Axes as the user says, the centre of the image at the origin."""
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        raise ScanError(f"voxel size {zooms.tolist()}", code="bad_affine", path=path)
    reorder = inv_ornt_aff(axcodes2ornt(tuple(axes)), shape)  # index in RAS order -> index as stored
    linear = np.linalg.inv(reorder)[:3, :3] @ np.diag(zooms)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


# ---------------------------------------------------------------------------------------------------------- voxels


def _read_voxels(header: _Header, path: Path) -> NDArray[np.float32]:
    """Float32 voxels in Fortran order, the order of the file: the next step takes them as they lie."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.frombuffer(_inflate(header, path), dtype=header.dtype).reshape(header.geometry.shape, order="F")
        if (header.slope, header.inter) == (1.0, 0.0):
            return stored.astype(np.float32)
        exact = np.float64 if stored.dtype.itemsize > 2 else np.float32
        scaled = stored.astype(exact)
        scaled *= exact(header.slope)
        scaled += exact(header.inter)
        return scaled.astype(np.float32, copy=False)


def _inflate(header: _Header, path: Path) -> bytearray:
    """Exactly the bytes of the wanted volume; what follows is read too, so that length and CRC are checked."""
    voxels = bytearray(header.nbytes)
    with open(header.data, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = igzip.IGzipFile(fileobj=raw, mode="rb") if zipped else raw
        try:
            got = _skip(file, header.offset)
            got += _read_into(file, memoryview(voxels))
            if got == header.offset + header.nbytes and zipped:
                _drain(file, path, limit=header.after + _TRAILING_LIMIT)
        except EOFError:
            raise ScanError("the gzip stream ends too early", code="truncated", path=path) from None
        except (igzip.BadGzipFile, isal_zlib.error, ZlibError) as error:
            raise ScanError(f"broken gzip: {error}", code="corrupt", path=path) from None
    if got < header.offset + header.nbytes:
        message = f"{got} bytes of the {header.offset + header.nbytes} that the header needs"
        raise ScanError(message, code="truncated", path=path)
    return voxels


def _skip(file: BinaryIO, count: int) -> int:
    left = count
    while left and (piece := file.read(min(left, 1 << 20))):
        left -= len(piece)
    return count - left


def _read_into(file: BinaryIO, buffer: memoryview) -> int:
    got = 0
    while got < len(buffer) and (count := file.readinto(buffer[got:])):  # type: ignore[attr-defined]
        got += count
    return got


def _drain(file: BinaryIO, path: Path, *, limit: int) -> None:
    left = limit
    while piece := file.read(1 << 20):
        left -= len(piece)
        if left < 0:
            raise ScanError("far more data than the header says", code="malformed", path=path)


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
    header["cal_min"], header["cal_max"] = limits or (float(data.min()), float(data.max()))
    header["descrip"] = description.encode("utf-8")[:79].decode("utf-8", "ignore").encode("utf-8")
    return bytes(header.binaryblock) + b"\0\0\0\0"
