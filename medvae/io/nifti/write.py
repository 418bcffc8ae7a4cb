"""The NIfTI writer: a header of its own, the same bytes for the same data, read at the same place by every reader."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from medvae.io.files import atomic
from medvae.io.nifti.geometry import UNITS_MM
from medvae.scan import Geometry, Stored

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LEVEL = 2  # isal: six times as fast as zlib's level 1 on float maps, at its size
# ISA-L (2.31, igzip_icf_body_h1_gr_bt.asm, write_first_byte) hashes an unset register that holds a heap address, where
# a stream's first bytes are the first of many: one process in a thousand then finds other matches, and writes other
# bytes for the same data. At most 16 bytes, flushed, avoid that branch, and later bytes never reach it.
_FIRST = 16
_RIGID_MM = 0.1  # a qform that is this near to the sform at every corner may stand for it
_UNIT_NAMES = {UNITS_MM[1]: "meter", UNITS_MM[2]: "mm", UNITS_MM[3]: "micron"}


def write(
    path: Path,
    data: NDArray[np.float32] | NDArray[np.integer],
    geometry: Geometry,
    *,
    description: str,
    limits: tuple[float, float] | None = None,
    scale: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Write `data` `(X, Y, Z)` in its own type under a header made from scratch, atomically; gzipped for `.gz`.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        data: float32, uint8, uint16 or int16. Nothing is rounded.
        geometry: where it lies, RAS+ mm. If it was read from a NIfTI file, length unit, qform and codes are those of
            that file: a map opens wherever its scan opens, and lies on it in every reader.
        description: what it is and its unit, at most 79 bytes.
        limits: display range (`cal_min`, `cal_max`); the data's own if None.
        scale: what a reader makes of a stored number: number · scale[0] + scale[1] (`scl_slope`, `scl_inter`).

    Raises:
        OSError: the disk is full or the folder cannot be written.
        ValueError: another suffix, type or shape; values that are not finite.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"NIfTI is written to .nii or .nii.gz, not to {path.name}")
    header = _header(data, geometry, description=description, limits=limits, scale=scale)
    with atomic(path) as partial, open(partial, "wb") as raw:
        if name.endswith(".gz"):
            _write_gzip(raw, header, data)
        else:
            raw.write(header)
            raw.write(_voxels(data))


def gzipped(
    data: NDArray[np.float32] | NDArray[np.integer],
    geometry: Geometry,
    *,
    description: str,
    limits: tuple[float, float] | None = None,
    scale: tuple[float, float] = (1.0, 0.0),
) -> bytes:
    """The bytes of the `.nii.gz` that `write` writes."""
    raw = BytesIO()
    _write_gzip(raw, _header(data, geometry, description=description, limits=limits, scale=scale), data)
    return raw.getvalue()


def _write_gzip(raw: BinaryIO, header: bytes, data: NDArray[np.generic]) -> None:
    with igzip.IGzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as file:
        file.write(header[:_FIRST])
        file.flush(isal_zlib.Z_SYNC_FLUSH)
        file.write(header[_FIRST:])
        file.write(_voxels(data))


def _voxels(data: NDArray[np.generic]) -> memoryview:
    return data.ravel(order="F").view(np.uint8).data


def _header(
    data: NDArray[np.generic],
    geometry: Geometry,
    *,
    description: str,
    limits: tuple[float, float] | None,
    scale: tuple[float, float],
) -> bytes:
    if data.shape != geometry.shape:
        raise ValueError(f"data {data.shape} does not fit the geometry {geometry.shape}")
    if data.dtype not in (np.float32, np.uint8, np.uint16, np.int16):
        raise ValueError(f"float32, uint8, uint16 or int16 are written, not {data.dtype}")
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("values that are not finite are not written")
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    _place(header, geometry)
    header.set_slope_inter(*scale)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["cal_min"], header["cal_max"] = limits or (low * scale[0] + scale[1], high * scale[0] + scale[1])
    header["descrip"] = description.encode("utf-8")[:79].decode("utf-8", "ignore").encode("utf-8")
    return bytes(header.binaryblock) + b"\0\0\0\0"


def _place(header: nib.Nifti1Header, geometry: Geometry) -> None:
    """Unit, sform and qform: those of the file that the geometry was read from, as far as it had them."""
    stored = geometry.stored or Stored()
    sform_code, qform_code = stored.codes
    sform_code = sform_code or qform_code or 1
    header.set_xyzt_units(_UNIT_NAMES[stored.unit])
    header.set_sform(_in_unit(geometry.affine, stored.unit), code=sform_code)
    rigid = _without_shear(geometry) if stored.rigid is None else stored.rigid
    if rigid is None:
        header.set_qform(None, code=0)
        header["pixdim"][1:4] = np.array(geometry.spacing) / stored.unit
    else:
        code = qform_code or (sform_code if stored.zooms is None else 0)
        header.set_qform(_in_unit(rigid, stored.unit), code=code, strip_shears=True)
    if stored.zooms is not None:
        header["pixdim"][1:4] = stored.zooms


def _in_unit(affine: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    return np.vstack([affine[:3] / unit, [0.0, 0.0, 0.0, 1.0]])


def _without_shear(geometry: Geometry) -> NDArray[np.float64] | None:
    """The nearest pose that a qform can hold, the same centre; None where shear moves a corner: better none than wrong.

    ITK takes no file without such a pose. Direction cosines of DICOM, rounded to a few digits, are a hair off.
    """
    linear = geometry.affine[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    left, _, right = np.linalg.svd(linear / spacing)
    straight = np.eye(4)
    straight[:3, :3] = (left @ right) * spacing
    centre = (np.array(geometry.shape) - 1) / 2
    straight[:3, 3] = geometry.to_world(centre) - straight[:3, :3] @ centre
    near = geometry.distance_to(Geometry(geometry.shape, straight)) <= _RIGID_MM
    return straight if near else None
