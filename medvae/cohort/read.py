"""Read one scan, whatever it is given as: a path, a scan that was found, or an image that is in memory already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvae.cohort import memory
from medvae.cohort.find import Cohort, find, read_settings
from medvae.cohort.rows import MODALITIES
from medvae.errors import InputError, ScanError
from medvae.io import reading
from medvae.scan import Scan, ScanRef

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from medvae.scan import Modality
    from medvae.settings import ReadSettings, Settings


def read(
    what: Any,
    settings: ReadSettings | Settings | None = None,
    *,
    affine: ArrayLike | None = None,
    modality: str | None = None,
) -> Scan:
    """Read one scan as float32 `(X, Y, Z)` on its own grid, coordinates in RAS+ mm.

    Args:
        what: one of

            - a path: a NIfTI file, a DICOM file, the folder of a DICOM series, or a list with one row;
            - a `ScanRef`, or a `Cohort` of one scan, as `find` gives them;
            - a `Scan`, which is returned as it is;
            - a NumPy array or torch tensor `(X, Y, Z)`, or with one channel first or last, and its `affine`;
            - an image that knows where it lies: of nibabel, a MONAI `MetaTensor` (in LPS coordinates, too), of TorchIO.

        settings: how files are read; those on values that are not finite and on the modality hold for images in memory,
            too, and that on the volume of a 4D image for those of nibabel. From a 4D array, pass one volume.
        affine: of an array: 4×4, voxel index -> RAS+ mm.
        modality: "CT", "MR", "PT" or "SHAPE", where the scan does not say it itself; DICOM does.

    Raises:
        InputError: there is no scan, or more than one; an array comes without an affine.
        ScanError: the scan cannot be used; the code says why.

    Example:
        >>> scan = medvae.read("case.nii.gz")
        >>> scan = medvae.read(array, affine=np.diag([1, 1, 2, 1]), modality="MR")
    """
    options, known = read_settings(settings), _modality(modality)
    if isinstance(what, str | Path | ScanRef | Scan | Cohort):
        if affine is not None:
            message = f"affine= belongs to an array, a {type(what).__name__} has its own"
            raise InputError(message, hint="leave affine= out")
        if isinstance(what, Scan):
            return what
        ref = what if isinstance(what, ScanRef) else only(what, options)
        return reading.read(replace(ref, modality=known or ref.modality), options)
    return memory.scan_of(what, options, affine=affine, modality=known)


def _modality(text: str | None) -> Modality | None:
    if text is None:
        return None
    if text.upper() not in MODALITIES:
        raise InputError(f"modality {text!r} is not one of CT, MR, PT, SHAPE", hint="correct it, or leave it out")
    return MODALITIES[text.upper()]


def only(what: Path | str | Cohort, settings: ReadSettings) -> ScanRef:
    """The one scan at a path, or in a cohort, that can be used.

    Raises:
        InputError: there is none, or more than one.
    """
    refs = find(what, settings).refs
    if len(refs) == 1:
        return refs[0]
    usable = [ref for ref in refs if _is_usable(ref, settings)]
    if len(usable) != 1:
        path = what if isinstance(what, str | Path) else None
        message = f"one scan is needed; found {len(refs)} scans, {len(usable)} of them usable"
        raise InputError(message, path=path, hint="name one file or series; medvae.find lists them")
    return usable[0]


def _is_usable(ref: ScanRef, settings: ReadSettings) -> bool:
    try:
        reading.inspect(ref, settings)
    except ScanError:
        return False
    return True
