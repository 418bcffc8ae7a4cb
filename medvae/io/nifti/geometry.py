"""Where the voxels of a NIfTI file lie, from its header: RAS+ mm, whatever unit the file is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nibabel.spatialimages import HeaderDataError

from medvae.errors import ScanError
from medvae.scan import Geometry, Stored

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Shape
    from medvae.settings import ReadSettings

UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: metre, mm, micron; unknown is taken as mm
_LONGEST_QUATERNION = 1.0005  # of a unit quaternion that was rounded on its way into the file
_PLAUSIBLE_MM = (0.5, 5000.0)  # longest edge of a scan whose unit is not mm
_AGREE_MM = 0.1
_LAST_CODE = 5  # NIFTI_XFORM_TEMPLATE_OTHER


def read_geometry(header: Any, shape: Shape, settings: ReadSettings, path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """The affine by the rule of the standard: sform if it is coded, else qform if it is coded, else refused.

    An sform that is broken gives way to a good qform.

    Returns:
        The geometry, with all that a writer needs to say it in the same way, and warnings in words.

    Raises:
        ScanError: `no_orientation`, `bad_affine`.
    """
    unit = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    codes = _code(int(header["sform_code"])), _code(int(header["qform_code"]))
    sform = _scaled(header.get_sform(), unit) if codes[0] else None
    qform = _scaled(_qform(header), unit) if codes[1] else None
    rigid = qform if qform is not None and _is_usable(qform) else None
    affine = qform if sform is None else sform
    if affine is None:
        affine = _assumed(header, shape, settings, unit=unit, path=path)
    elif rigid is not None and not _is_usable(affine):
        affine = rigid
    if not _is_usable(affine):
        raise ScanError("the affine is singular or not finite", code="bad_affine", path=path)
    zooms = _other_zooms(header, Geometry(shape, affine), unit=unit) if any(codes) else None
    geometry = Geometry(shape, affine, Stored(unit, rigid, codes, zooms))
    return geometry, (*_unit_doubts(geometry), *_disagreement(geometry, sform, qform))


def _code(stored: int) -> int:
    """What an affine leads to: 0 is none; a code that the standard does not have counts as 2, some other scan."""
    return 2 if stored > _LAST_CODE else max(stored, 0)


def _qform(header: Any) -> NDArray[np.float64]:
    """The quaternion's affine, NaN where there is none. By the standard qfac is 1 if it is not −1.

    A quaternion a hair longer than 1 is brought back to 1, as `nifti_quatern_to_mat44` of the reference library does.
    """
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    parts = [f"quatern_{axis}" for axis in "bcd"]
    length = np.linalg.norm([float(header[part]) for part in parts])
    if 1 < length <= _LONGEST_QUATERNION:
        for part in parts:
            header[part] = float(header[part]) / length
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Finite, and not flat: the volume of a voxel beside that of a box with its edges."""
    if not np.isfinite(affine).all():
        return False
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(edges.min() > 0 and abs(np.linalg.det(affine[:3, :3] / edges)) > 1e-6)


def _scaled(affine: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    return np.vstack([np.asarray(affine, np.float64)[:3] * unit, [0.0, 0.0, 0.0, 1.0]])


def _assumed(header: Any, shape: Shape, settings: ReadSettings, *, unit: float, path: Path) -> NDArray[np.float64]:
    """Axes as the settings say, the centre of the image at the origin."""
    if settings.assume_orientation is None:
        raise ScanError("neither sform nor qform is set", code="no_orientation", path=path)
    zooms = np.abs(np.asarray(header["pixdim"][1:4], np.float64)) * unit
    axes = axcodes2ornt(tuple(settings.assume_orientation))
    reorder = inv_ornt_aff(axes, shape)  # index in RAS order -> index as stored
    linear = np.linalg.inv(reorder)[:3, :3] @ np.diag(zooms)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return affine


def _other_zooms(header: Any, geometry: Geometry, *, unit: float) -> tuple[float, float, float] | None:
    """The voxel size of pixdim where it is not that of the affine, so that a corner would move."""
    zooms = np.asarray(header["pixdim"][1:4], np.float64)
    moved = np.abs(zooms * unit - geometry.spacing) * (np.array(geometry.shape) - 1)
    if not np.isfinite(zooms).all() or moved.max() <= _AGREE_MM:
        return None
    x, y, z = zooms.tolist()
    return x, y, z


def _disagreement(
    geometry: Geometry, sform: NDArray[np.float64] | None, qform: NDArray[np.float64] | None
) -> list[str]:
    """Where parts of the header say different things: the first of them, in words."""
    if qform is not None and sform is not None:
        if not _is_usable(sform):
            return ["the sform is broken; the qform is used, other tools may differ"]
        if not _is_usable(qform):
            return ["the qform is broken; the sform is used, other tools may differ"]
        apart = geometry.distance_to(Geometry(geometry.shape, qform))
        if apart > _AGREE_MM:
            return [f"sform and qform are {apart:.1f} mm apart; the sform is used, other tools may differ"]
    if geometry.stored is None or geometry.stored.zooms is None:
        return []
    sizes = geometry.stored.zooms, np.array(geometry.spacing) / geometry.stored.unit
    stated, used = ("×".join(f"{length:.4g}" for length in size) for size in sizes)
    return [f"voxels of {stated} by pixdim and of {used} by the affine, which is used; other tools may differ"]


def _unit_doubts(geometry: Geometry) -> list[str]:
    longest = max(n * mm for n, mm in zip(geometry.shape, geometry.spacing, strict=True))
    low, high = _PLAUSIBLE_MM
    if geometry.stored is None or geometry.stored.unit == 1 or low <= longest <= high:
        return []
    unit = "metres" if geometry.stored.unit > 1 else "microns"
    return [f"the header is in {unit}, which makes the scan {longest:.3g} mm long: check xyzt_units"]
