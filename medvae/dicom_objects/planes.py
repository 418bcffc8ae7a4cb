"""Frames of an object on the grid of a series: pixels, where they lie, and the arguments of highdicom for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from highdicom import (
    CoordinateSystemNames,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.source import Source


def frames(data: NDArray[Any]) -> NDArray[Any]:
    """`(columns, rows, slices)` as `(frames, rows, columns)`, the order of pixels in a file."""
    return np.ascontiguousarray(data.transpose(2, 1, 0))


def planes(source: Source) -> dict[str, Any]:
    """Arguments of highdicom that say where the frames of `frames` lie."""
    step = float(source.geometry.spacing[2])
    measures = PixelMeasuresSequence(source.spacing, source.thickness, spacing_between_slices=step)
    positions = [PlanePositionSequence(CoordinateSystemNames.PATIENT, list(place)) for place in source.positions]
    return {
        "pixel_measures": measures,
        "plane_orientation": PlaneOrientationSequence(CoordinateSystemNames.PATIENT, source.orientation),
        "plane_positions": positions,
    }


def keep_own_frames(made: Dataset, source: Source) -> None:
    """Drop references to other frames of a multi-frame object: highdicom refers to all that lie at one place.

    A part of a mixed series shares its places with the other parts.
    """
    if not source.numbers:
        return
    for group in made.PerFrameFunctionalGroupsSequence:
        derivation = group.DerivationImageSequence[0]
        derivation.SourceImageSequence = [
            one for one in derivation.SourceImageSequence if one.ReferencedFrameNumber in source.numbers
        ]


def sort_ascending(made: Dataset, source: Source) -> NDArray[np.intp]:
    """Put the functional groups of an object's frames in the order of the slices; returns the order.

    highdicom sorts frames against the normal. Some viewers take the frames of a file in its own order, as if ascending
    along row cosines × column cosines, and would show them mirrored.
    """
    groups = list(made.PerFrameFunctionalGroupsSequence)
    places = np.array([one.PlanePositionSequence[0].ImagePositionPatient for one in groups], np.float64)
    normal = np.cross(source.orientation[:3], source.orientation[3:])
    order = np.argsort(places @ normal, kind="stable")
    for number, index in enumerate(order, start=1):
        groups[index].FrameContentSequence[0].DimensionIndexValues = [number]
    made.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    return order
