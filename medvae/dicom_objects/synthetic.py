"""A synthetic scan as a DICOM series of single slices, of an invented patient, marked as synthetic (0008,001C)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DS

from medvae.dicom_objects.content import text, uid
from medvae.dicom_objects.encode import file_of
from medvae.dicom_objects.planes import frames
from medvae.dicom_objects.slices import Plane, blank, put_pixels, put_plane
from medvae.scan import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Scan

_MOST = 2**16 - 1
_SHOWN = (0.5, 99.5)  # percentiles between which values are shown
_NOT_KNOWN = (  # of the invented patient and study
    "PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName Laterality"
    " PatientPosition PositionReferenceIndicator"
)


def synthetic_series(scan: Scan, name: str, *, description: str, model: str) -> list[bytes]:
    """The files of a scan, in slice order.

    Columns run to the patient's left and rows to the back where the grid allows it. HU are stored as they are, other
    values in 65,536 steps from 0, or the smallest value below it, to the largest.

    Args:
        scan: of a modality of `slices.CLASSES`.
        name: of the invented patient, e.g. "synthetic-00001".
        description: of the series.
        model: hash of the model.
    """
    data, geometry = _towards_left_and_back(scan.data, scan.geometry)
    pixels, slope, intercept = _stored(frames(data), whole=scan.units == "HU")
    low, high = (float(one) for one in np.percentile(data, _SHOWN))
    shown = (name, description, model, sha256(pixels.tobytes()).hexdigest(), repr(geometry.affine.tolist()))
    made = []
    for index, frame in enumerate(pixels):
        one = blank(str(scan.modality), Dataset(), model=model)
        _identify(one, name, index, key=uid(*shown))
        one.SeriesDescription = text(description)
        put_plane(one, _plane(geometry, index))
        put_pixels(one, frame, (low, high))
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
        one.RescaleType = "HU" if scan.units == "HU" else "US"
        if one.Modality == "PT":
            one.pop("PatientPosition", None)  # PET says it by codes
            one.NumberOfSlices, one.ImageIndex = len(pixels), index + 1
        made.append(file_of(one))
    return made


def _identify(one: Dataset, name: str, index: int, *, key: str) -> None:
    """A patient and a study of its own, whose UIDs follow from the scan."""
    one.SyntheticData = "YES"
    one.PatientName, one.PatientID = f"{name}^", name
    for keyword in _NOT_KNOWN.split():
        setattr(one, keyword, "")
    one.StudyInstanceUID, one.SeriesInstanceUID = uid(key, "study"), uid(key, "series")
    one.FrameOfReferenceUID, one.SOPInstanceUID = uid(key, "frame of reference"), uid(key, str(index))
    one.SeriesNumber, one.InstanceNumber = 1, index + 1


def _towards_left_and_back(data: NDArray[np.float32], geometry: Geometry) -> tuple[NDArray[np.float32], Geometry]:
    """The same voxels, the first axis to the left and the second one to the back, as radiologists look at slices."""
    affine, flips = geometry.affine.copy(), []
    for axis in (0, 1):
        if affine[axis, axis] > 0:  # RAS+
            flips.append(axis)
            affine[:3, 3] += (geometry.shape[axis] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
    return np.flip(data, tuple(flips)), Geometry(geometry.shape, affine)


def _stored(values: NDArray[np.float32], *, whole: bool) -> tuple[NDArray[Any], DS, DS]:
    """Pixels, and the slope and intercept that make values of them."""
    if whole:
        return np.rint(values).astype("<i2"), DS("1"), DS("0")
    low, high = min(float(values.min()), 0.0), float(values.max())
    slope, intercept = DS((high - low) / _MOST or 1.0, auto_format=True), DS(low, auto_format=True)
    steps = np.rint((values.astype(np.float64) - float(intercept)) / float(slope))
    return np.clip(steps, 0, _MOST).astype("<u2"), slope, intercept


def _plane(geometry: Geometry, index: int) -> Plane:
    """A slice of a grid, in LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
    columns, rows, step = geometry.spacing
    cosines = lps[:3, :2] / (columns, rows)
    position = lps[:3, 3] + index * lps[:3, 2]
    return Plane(tuple(cosines.T.ravel()), tuple(position), (rows, columns), step)
