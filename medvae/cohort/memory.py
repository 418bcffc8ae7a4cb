"""Images in memory as scans: arrays with an affine, and what nibabel, MONAI and TorchIO hold; none is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import InputError, ScanError
from medvae.io.checked import as_scan
from medvae.io.nifti.geometry import read_geometry
from medvae.scan import Geometry, ScanRef

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from medvae.scan import Modality, Scan
    from medvae.settings import ReadSettings

_AFFINE = "pass affine=, a 4x4 matrix from voxel index to RAS+ mm"
_ANALYZE = "pass its values with affine=, if you know how its axes run"
_VOLUME = "pass one volume (X, Y, Z), at least 2 voxels a side"
_SPACES = {"RAS": 1.0, "RIGHT-ANTERIOR-SUPERIOR": 1.0, "LPS": -1.0, "LEFT-POSTERIOR-SUPERIOR": -1.0}
_NAMES = {"Tensor": "a tensor", "ndarray": "an array"}


def scan_of(
    what: Any, settings: ReadSettings, *, affine: ArrayLike | None = None, modality: Modality | None = None
) -> Scan:
    """The scan that an image in memory is; its values are copied.

    Args:
        what: an array or tensor, or an image with an affine of its own.
        settings: `fill_non_finite`, `modality` and, of an image of nibabel, `volume` are used.
        affine: of an array: 4×4, voxel index -> RAS+ mm.
        modality: as stated by the caller.

    Raises:
        InputError: it is not an image, has no affine or two of them, several channels, or is a batch.
        ScanError: as for a file: `not_3d`, `bad_affine`, `no_orientation`, `unsupported_type`, `non_finite`, `blank`.
    """
    name = _NAMES.get(type(what).__name__, f"a {type(what).__name__}")
    own, of_nibabel = hasattr(what, "affine"), hasattr(what, "dataobj")
    _check(what, name, own=own, given=affine is not None)
    ref = ScanRef("memory", "memory", (Path(type(what).__name__),), modality=modality)
    if of_nibabel:
        data, geometry, warnings = _of_nibabel(what, settings, ref)
    else:
        data = _float32(_one_channel(_values(_data(what)), name), ref)
        matrix = _to_ras(what, name) if own else np.asarray(affine, np.float64)
        geometry, warnings = _geometry(data, matrix, ref), ()
    return as_scan(data, geometry, ref, settings, warnings=warnings)


def _check(what: Any, name: str, *, own: bool, given: bool) -> None:
    """Raises InputError where there are no voxels, or not exactly one affine."""
    if not own and not hasattr(what, "__array__"):
        raise InputError(f"{name} is not a scan", hint="give a path, an array with affine=, or an image")
    if not own and not given:
        raise InputError(f"{name} does not say where its voxels lie", hint=_AFFINE)
    if own and given:
        raise InputError(f"{name} has an affine of its own", hint="leave affine= out")


def _float32(data: NDArray[Any], ref: ScanRef) -> NDArray[np.float32]:
    """A copy in the order in which files have it: what follows gives the same bytes as for a file."""
    if data.dtype.kind not in "biuf":
        raise ScanError(f"voxels of type {data.dtype}", code="unsupported_type", path=ref.path)
    if data.ndim != 3 or min(data.shape) < 2:
        raise ScanError(f"shape {data.shape} is not one 3D volume", code="not_3d", path=ref.path, hint=_VOLUME)
    with np.errstate(over="ignore"):
        return np.array(data, dtype=np.float32, order="F")


def _geometry(data: NDArray[Any], affine: NDArray[np.float64], ref: ScanRef) -> Geometry:
    if affine.shape != (4, 4):
        raise InputError(f"an affine is 4x4, got {'x'.join(map(str, affine.shape))}", hint=_AFFINE)
    if np.isfinite(affine).all() and not np.allclose(affine[3], (0, 0, 0, 1)):
        row = " ".join(f"{one:g}" for one in affine[3])
        raise ScanError(
            f"the last row of the affine is {row}, not 0 0 0 1", code="bad_affine", path=ref.path, hint=_AFFINE
        )
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise ScanError("the affine is singular or not finite", code="bad_affine", path=ref.path, hint=_AFFINE)
    x, y, z = data.shape
    return Geometry((x, y, z), affine)


# ------------------------------------------------------------------------------------------- arrays, MONAI, TorchIO


def _data(what: Any) -> Any:
    """The values: of a MetaTensor, which is a tensor itself, of an array, or of a TorchIO image, which has them."""
    return what if hasattr(what, "__array__") else what.data


def _values(values: Any) -> NDArray[Any]:
    """As an array; a tensor may need its gradient, or lie on a GPU, or be of a type that NumPy lacks."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if not (values.is_complex() or str(values.dtype) == "torch.float64"):
            values = values.float()
        values = values.numpy()
    return np.asarray(values)


def _one_channel(data: NDArray[Any], name: str) -> NDArray[Any]:
    """Without the axis of the one channel, which MONAI and TorchIO put first; several are not chosen from."""
    if data.ndim <= 3:
        return data
    if data.ndim == 4 and data.shape[0] == 1:
        return np.asarray(data[0])
    if data.ndim == 4 and data.shape[-1] == 1:
        return np.asarray(data[..., 0])
    what = "a batch" if data.ndim > 4 else "several channels"
    hint = "pass one image (X, Y, Z), or with a channel axis of length 1"
    if data.ndim == 4:  # the axis that tells channels or volumes apart is the shorter one
        hint += ", e.g. " + ("image[..., 0]" if data.shape[-1] < data.shape[0] else "image[:1]")
    raise InputError(f"{name} of shape {data.shape} is {what}, not one image", hint=hint)


def _to_ras(image: Any, name: str) -> NDArray[np.float64]:
    """The affine of an image as RAS+, whatever space the image says it is in."""
    if getattr(image, "pending_operations", None):
        raise InputError(f"{name} has lazy transforms that were not applied", hint="apply them, e.g. with lazy=False")
    space = str(getattr(image, "meta", {}).get("space", "RAS")).upper()
    if space not in _SPACES:
        raise InputError(f"{name} lies in the space {space!r}", hint="bring its affine to RAS or LPS")
    affine = _values(image.affine).astype(np.float64)
    sign = _SPACES[space]
    return np.diag([sign, sign, 1.0, 1.0]) @ affine if affine.shape == (4, 4) else affine


# ------------------------------------------------------------------------------------------------------- nibabel


def _of_nibabel(
    image: Any, settings: ReadSettings, ref: ScanRef
) -> tuple[NDArray[np.float32], Geometry, tuple[str, ...]]:
    """Values and place of one volume of a nibabel image, by the rules for NIfTI files where it has such a header."""
    data, header = _float32(_volume(image, settings, ref), ref), image.header.copy()
    if not hasattr(header, "get_sform"):
        if any(kind.__name__ == "AnalyzeImage" for kind in type(image).__mro__):
            message = "Analyze does not say left from right"
            raise ScanError(message, code="no_orientation", path=ref.path, hint=_ANALYZE)
        return data, _geometry(data, np.asarray(image.affine, np.float64), ref), ()
    if image.affine is not None and not np.allclose(
        header.get_best_affine(), image.affine
    ):  # as nibabel does when it writes the image
        header.set_sform(image.affine, code=2)
        header.set_qform(None, code=0)
    x, y, z = data.shape
    return data, *read_geometry(header, (x, y, z), settings, ref.path)


def _volume(image: Any, settings: ReadSettings, ref: ScanRef) -> NDArray[Any]:
    """One volume, counted in file order, scaled as the reader of files scales it."""
    count, chosen = int(np.prod(image.shape[3:])), settings.volume or 0
    if count > 1 and (settings.volume is None or chosen >= count):
        hint = f"pass one of its {count} volumes, e.g. image.slicer[..., 0], or set read.volume=0"
        raise ScanError(f"shape {image.shape} is not one 3D volume", code="not_3d", path=ref.path, hint=hint)
    stored, slope, inter = _unscaled(image.dataobj)
    if stored.ndim > 3:
        stored = stored.reshape(*stored.shape[:3], -1, order="F")[..., chosen if count > 1 else 0]
    if (slope, inter) == (1.0, 0.0) or stored.dtype.kind not in "iuf":
        return stored
    scaled: NDArray[np.floating] = stored.astype(np.float64 if stored.dtype.itemsize > 2 else np.float32)
    scaled *= scaled.dtype.type(slope)
    scaled += scaled.dtype.type(inter)
    return scaled


def _unscaled(dataobj: Any) -> tuple[NDArray[Any], float, float]:
    """Values as stored, slope and intercept."""
    if hasattr(dataobj, "get_unscaled"):
        return np.asanyarray(dataobj.get_unscaled()), float(dataobj.slope), float(dataobj.inter)
    return np.asanyarray(dataobj), 1.0, 0.0
