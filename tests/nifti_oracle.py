"""NIfTI files made field by field for the tests, and what nibabel and SimpleITK say of a file."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from medvae.scan import Geometry, ScanRef

if TYPE_CHECKING:
    from pathlib import Path

AFFINE = np.array([[0, -2.0, 0, 30], [0, 0, 3.0, -20], [4.0, 0, 0, 10], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Seen:
    """What another reader sees: values `(X, Y, Z)` and 4×4 voxel index -> RAS+ mm."""

    data: np.ndarray[Any, Any]
    geometry: Geometry


def ref(path: Path, **more: Any) -> ScanRef:
    return ScanRef("scan", "nifti", (path,), **more)


def ramp(shape: tuple[int, ...] = (4, 5, 6), dtype: Any = np.int16) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape, order="F").astype(dtype)


def header_of(data: np.ndarray[Any, Any], *, version: int = 1, order: str = "<", **fields: Any) -> Any:
    """A header with sform `AFFINE`, its voxel size and no qform; `fields` are then set as they are, right or wrong."""
    header = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version](endianness=order)
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_sform(AFFINE, code=1)
    header["pixdim"][1:4] = 4, 2, 3
    header["xyzt_units"] = 2
    header["magic"] = {1: b"n+1", 2: b"n+2\0\r\n\x1a\n"}[version]
    header["vox_offset"] = {1: 352, 2: 544}[version]
    for name, value in fields.items():
        header[name] = value
    return header


def with_zooms(path: Path, zooms: tuple[float, ...], codes: tuple[int, int]) -> Path:
    """A file of `ramp` with sform and qform `AFFINE`, their codes, and this pixdim whatever the affine says."""
    header = header_of(ramp())
    header.set_qform(AFFINE, code=codes[1])
    header["sform_code"], header["pixdim"][1:4] = codes[0], zooms
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    return path


def raw_file(data: np.ndarray[Any, Any], *, version: int = 1, order: str = "<", **fields: Any) -> bytes:
    """The bytes of a single-file NIfTI."""
    header = header_of(data, version=version, order=order, **fields)
    return bytes(header.binaryblock) + b"\0\0\0\0" + voxels_of(data, order)


def voxels_of(data: np.ndarray[Any, Any], order: str = "<") -> bytes:
    return data.astype(data.dtype.newbyteorder(order)).tobytes(order="F")


def put(path: Path, data: np.ndarray[Any, Any], **options: Any) -> Path:
    """Write a NIfTI file, gzipped where the name ends in .gz."""
    raw = raw_file(data, **options)
    path.write_bytes(gzip.compress(raw, mtime=0) if path.name.endswith(".gz") else raw)
    return path


def by_nibabel(path: Path, volume: int = 0) -> Seen:
    image = nib.load(path)
    data = np.asarray(image.dataobj, np.float64)
    data = data.reshape(*data.shape[:3], -1, order="F")[..., volume]
    return Seen(data, Geometry(data.shape, image.affine))


def by_sitk(path: Path, volume: int = 0) -> Seen:
    image = sitk.ReadImage(str(path))
    if image.GetDimension() == 4:
        image = image[:, :, :, volume]
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Seen(
        sitk.GetArrayFromImage(image).T.astype(np.float64), Geometry(image.GetSize(), np.diag([-1, -1, 1, 1]) @ affine)
    )
