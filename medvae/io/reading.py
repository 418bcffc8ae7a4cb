"""Reading scans: one module a format. This one finds the module by `ScanRef.format` and reads what lies beside a scan.

A format offers `matches(path)`, `read(ref, settings)` and `inspect(ref, settings)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medvae import plugins
from medvae.errors import ScanError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Geometry, Scan, ScanInfo, ScanRef
    from medvae.settings import ReadSettings

SAME_PLACE_MM = 0.1  # a mask lies on its scan when all corners agree to this


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read all voxels of a scan.

    Raises:
        ScanError: it cannot be used; the code says why.
    """
    scan: Scan = _guarded(ref, "read", settings)
    return scan


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """What the headers alone say of a scan.

    Raises:
        ScanError: the headers show that it cannot be used.
    """
    info: ScanInfo = _guarded(ref, "inspect", settings)
    return info


def read_label_map(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.int16]:
    """Labels on the grid `like`, `(X, Y, Z)`.

    Raises:
        ScanError: unreadable, not whole numbers, or `mask_mismatch` where it does not lie on the grid.
    """
    from medvae.io.formats import nifti

    data, geometry = nifti.read_values(path, settings)
    if geometry.distance_to(like) > SAME_PLACE_MM:
        raise ScanError(
            f"shape {geometry.shape} against {like.shape}, corners {geometry.distance_to(like):.3g} mm apart",
            code="mask_mismatch",
            path=path,
        )
    labels = np.rint(data)
    if not np.array_equal(labels, data) or np.abs(labels).max() > np.iinfo(np.int16).max:
        raise ScanError("labels are not whole numbers within int16", code="mask_mismatch", path=path)
    return labels.astype(np.int16)


def read_mask(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.bool_]:
    """A foreground mask on the grid `like`, `(X, Y, Z)`: True where the file is not 0.

    Raises:
        ScanError: as `read_label_map`.
    """
    mask: NDArray[np.bool_] = read_label_map(path, like, settings) != 0
    return mask


def _guarded(ref: ScanRef, what: str, settings: ReadSettings) -> Any:
    try:
        return getattr(plugins.load("formats", ref.format), what)(ref, settings)
    except OSError as error:
        raise ScanError(error.strerror or str(error), code="unreadable", path=ref.path) from error
