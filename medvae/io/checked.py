"""The last step of every reader: voxels as they came out of a file become a Scan, or are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ScanError
from medvae.io.hounsfield import doubts
from medvae.scan import Modality, Scan, Units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Geometry, ScanRef
    from medvae.settings import ReadSettings

_UNITS: dict[Modality | None, Units] = {"CT": "HU", "SHAPE": "binary"}


def as_scan(
    data: NDArray[np.float32],
    geometry: Geometry,
    ref: ScanRef,
    settings: ReadSettings,
    *,
    warnings: tuple[str, ...] = (),
) -> Scan:
    """A scan of a file that does not say what it shows: modality and unit come from the list or the settings.

    Args:
        data: float32 `(X, Y, Z)`.
        geometry: where the voxels lie.
        ref: the scan that was asked for.
        settings: how files are read.
        warnings: what reading found so far.

    Raises:
        ScanError: `non_finite`, `blank`.
    """
    valid = None
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        data, valid = _fill(data, ref, settings)
        low, high = float(data.min()), float(data.max())
        warnings = (*warnings, f"{int((~valid).sum())} voxels that are not finite were filled")
    if low == high:
        raise ScanError(f"all voxels are {low:g}", code="blank", path=ref.path)
    modality, units = stated(ref, settings)
    if modality == "CT":
        warnings = (*warnings, *doubts(data))
    return Scan(data, geometry, valid, modality, units, warnings)


def stated(ref: ScanRef, settings: ReadSettings) -> tuple[Modality | None, Units]:
    """Modality and unit of a scan whose file does not know them."""
    modality = ref.modality or settings.modality
    return modality, _UNITS.get(modality, "a.u.")


def _fill(
    data: NDArray[np.float32], ref: ScanRef, settings: ReadSettings
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    valid = np.isfinite(data)
    if not settings.fill_non_finite or not valid.any():
        message = f"{int((~valid).sum())} of {valid.size} voxels are NaN or infinite"
        hint = None if valid.any() else "check the export: there is no value to fill them with"
        raise ScanError(message, code="non_finite", path=ref.path, hint=hint)
    return np.where(valid, data, data[valid].min()), valid
