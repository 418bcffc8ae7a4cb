"""Writing one scan to a file, in the format that the file's name indicates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import OutputError
from medvae.io.contract import offering
from medvae.scan import Geometry, Scan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def write(
    path: Path | str,
    scan: Scan | ArrayLike,
    *,
    geometry: Geometry | None = None,
    affine: ArrayLike | None = None,
    description: str = "",
    limits: tuple[float, float] | None = None,
) -> Path:
    """Write a scan, or an array with its geometry, atomically, and return the path.

    A scan that was read from a NIfTI file is written with the length unit, qform and codes of that file, so that every
    reader sees both at the same place.

    Args:
        path: its suffix chooses the format, e.g. `.nii.gz`.
        scan: a Scan; or an array `(X, Y, Z)`: of float32, uint8 and int16 as it is, of other integers as int16 or
            float32 if that keeps every value, of booleans as uint8, of other floats as float32.
        geometry: of an array.
        affine: of an array instead of a geometry: 4×4, voxel index -> RAS+ mm. A MONAI MetaTensor brings its own.
        description: what it is and its unit, at most 79 bytes; the scan's modality and unit if empty.
        limits: display range; the smallest and largest value if None.

    Raises:
        OutputError: the suffix is of no format that can be written.
        ValueError: an array without geometry, or of another shape; values that are not finite or cannot be kept.
        OSError: the disk is full, or the folder cannot be written.

    Example:
        >>> path = medvae.write("out/ramp.nii.gz", np.arange(24.0).reshape(2, 3, 4), affine=np.eye(4))
        >>> medvae.read(path).data.shape
        (2, 3, 4)
    """
    path = Path(path)
    writers = offering("write", path)
    if not writers:
        raise OutputError("no format with this suffix can be written", path=path, hint="use .nii.gz")
    data, where = _parts(scan, geometry, affine)
    if isinstance(scan, Scan):
        description = description or ", ".join([*([scan.modality] if scan.modality else []), scan.units])
    next(iter(writers.values()))(path, _storable(data), where, description=description, limits=limits)
    return path


def _parts(
    scan: Scan | ArrayLike, geometry: Geometry | None, affine: ArrayLike | None
) -> tuple[NDArray[Any], Geometry]:
    """Values and geometry of a scan, or of an array that comes with one."""
    if isinstance(scan, Scan):
        return scan.data, geometry or scan.geometry
    affine = getattr(scan, "affine", None) if affine is None else affine
    data = np.asarray(scan)
    if geometry is not None:
        return data, geometry
    if affine is None:
        raise ValueError("an array needs geometry= or affine=")
    if data.ndim != 3:
        raise ValueError(f"an array must have three axes, got shape {data.shape}")
    x, y, z = data.shape
    return data, Geometry((x, y, z), np.asarray(affine, np.float64))


def _storable(data: NDArray[Any]) -> NDArray[Any]:
    """In a type that files hold: float32, uint8 or int16."""
    if data.dtype in (np.float32, np.uint8, np.int16):
        return data
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind == "f":
        return data.astype(np.float32)
    if data.dtype.kind not in "iu":
        raise ValueError(f"only numbers and booleans can be written, not {data.dtype}")
    for kind in (np.int16, np.float32):
        if np.array_equal(data.astype(kind), data):
            return data.astype(kind)
    raise ValueError("integers beyond int16 that float32 cannot hold cannot be written")
