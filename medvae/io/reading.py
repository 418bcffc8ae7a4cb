"""Reading: a scan by its format, and the masks and label maps that lie beside it, on its grid or refused."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ScanError
from medvae.io import contract
from medvae.io.same_voxels import SAME_PLACE_MM, corners_apart, turned_onto

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from medvae.scan import Geometry, Scan, ScanInfo, ScanRef
    from medvae.settings import ReadSettings

__all__ = ["SAME_PLACE_MM", "inspect", "read", "read_foreground", "read_label_map", "read_mask"]

_COPY_HEADER = "give it the sform and qform of its scan, e.g. copy the header of the scan"
_ONE_VOLUME = "save one of its volumes as a file of its own"
_WHOLE_NUMBERS = "save it with whole numbers from -32768 to 32767"
_NOT_EMPTY = "give a mask that is not 0 in the foreground, or none"
_NEAR_WHOLE = 0.01  # of labels that went through floating point


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    """Read all voxels of a scan.

    Raises:
        ScanError: it cannot be used; the code says why.
    """
    try:
        return contract.get(ref.format).read(ref, settings)
    except OSError as error:
        raise _unreadable(error, ref.path) from error


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    """What the headers alone say about a scan.

    Raises:
        ScanError: the headers show that it cannot be used.
    """
    try:
        return contract.get(ref.format).inspect(ref, settings)
    except OSError as error:
        raise _unreadable(error, ref.path) from error


def read_label_map(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.int16]:
    """Labels on the grid `like`, `(X, Y, Z)`, turned onto it where the file's axes run another way.

    Raises:
        ScanError: unreadable, not whole numbers, or `mask_mismatch` where it does not lie on the grid.
    """
    with _named("label map"):
        data = _values_on(path, like, settings)
        labels = np.rint(data)
        near = bool(np.abs(data - labels).max() <= _NEAR_WHOLE) if np.isfinite(data).all() else False
        if not near or np.abs(labels).max() > np.iinfo(np.int16).max:
            message = "labels are not whole numbers within int16"
            raise ScanError(message, code="mask_mismatch", path=path, hint=_WHOLE_NUMBERS)
        return labels.astype(np.int16)


def read_mask(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.bool_]:
    """A foreground mask on the grid `like`, `(X, Y, Z)`: True wherever the file is not 0, and not NaN.

    Probabilities, and masks that were interpolated or smoothed, are True from half of their largest value on.

    Raises:
        ScanError: unreadable, or `mask_mismatch` where it does not lie on the grid.
    """
    with _named("mask"):
        data = _values_on(path, like, settings)
    values = np.nan_to_num(data)
    some, whole = values[values != 0], np.rint(values)
    if not some.size or np.ptp(some) == 0 or some.max() < 0:
        mask: NDArray[np.bool_] = values != 0
    elif np.abs(values - whole).max() <= _NEAR_WHOLE:
        mask = whole != 0
    else:
        mask = values >= (0.5 - _NEAR_WHOLE) * some.max()
    return mask


def read_foreground(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.bool_]:
    """The mask of a scan's foreground, as `read_mask`.

    Raises:
        ScanError: as `read_mask`; `no_foreground` where it is empty.
    """
    mask = read_mask(path, like, settings)
    if not mask.any():
        raise ScanError("mask: it is empty", code="no_foreground", path=path, hint=_NOT_EMPTY)
    return mask


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say of a problem that it is one of the mask, or label map, for an outcome names the scan alone."""
    try:
        yield
    except ScanError as problem:
        message, code, hint = problem.message, problem.code, problem.hint
        if code == "no_orientation":  # an orientation that is assumed has no origin: it would not lie on the scan
            message, code, hint = f"{message}, so it has no orientation", "mask_mismatch", _COPY_HEADER
        hint = _ONE_VOLUME if code == "not_3d" else hint  # not every command that takes masks chooses volumes
        raise ScanError(f"{what}: {message}", code=code, path=problem.path, hint=hint) from problem


def _values_on(path: Path, like: Geometry, settings: ReadSettings) -> NDArray[np.float32]:
    """The values of a mask or label map, in the axis order and directions of `like`."""
    data, own = _read_values(path, settings)
    turned = turned_onto(data, own, like)
    if turned is None:
        apart = corners_apart(own, like)
        message = f"shape {own.shape} against {like.shape} of the scan"
        if np.isfinite(apart):
            message = f"its corners lie up to {apart:.3g} mm from those of the scan, more than {SAME_PLACE_MM:g} mm"
        raise ScanError(message, code="mask_mismatch", path=path)
    return turned


def _read_values(path: Path, settings: ReadSettings) -> tuple[NDArray[np.float32], Geometry]:
    """By the format that the name indicates; where it indicates none, by the first that can read the file."""
    named = contract.offering("read_values", path).values()
    others = (one.read_values for one in contract.formats().values() if hasattr(one, "read_values"))
    return _first_that_reads(named or others, path, settings)


def _first_that_reads(
    readers: Iterable[Any], path: Path, settings: ReadSettings
) -> tuple[NDArray[np.float32], Geometry]:
    problem = ScanError("no format that can hold a mask or label map", code="not_a_scan", path=path)
    for read_values in readers:
        try:
            found: tuple[NDArray[np.float32], Geometry] = read_values(path, settings)
        except OSError as error:
            problem = _unreadable(error, path)
        except ScanError as error:
            problem = error
        else:
            return found
    raise problem


def _unreadable(error: OSError, path: Path) -> ScanError:
    if isinstance(error, FileNotFoundError) and Path(error.filename or path).is_symlink():
        hint = "fetch the file, e.g. with `datalad get`, or repair the link"
        return ScanError("a link to a file that is not there", code="unreadable", path=path, hint=hint)
    return ScanError(error.strerror or str(error), code="unreadable", path=path)
