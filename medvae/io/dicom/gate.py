"""The gate: whether the frames of a series are one volume, every reason if not, and the geometry if so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.io.dicom.mixture import mixture
from medvae.io.dicom.stack import FEWEST, along, distinct, tilt, uneven
from medvae.scan import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.io.dicom.frames import Frame, Reason


def arrange(frames: Sequence[Frame]) -> list[Frame]:
    """Frames of one orientation in the order of the slices: along row cosines × column cosines."""
    return [frames[index] for index in np.argsort(along(frames), kind="stable")]


def check(frames: Sequence[Frame]) -> list[Reason]:
    """Every reason why frames, in the order of `arrange`, are not one volume."""
    reasons: list[Reason] = []
    mixed = mixture(frames)
    if mixed:
        reasons.append(("mixed_series", mixed))
    if len(frames) < FEWEST:
        reasons.append(("too_few_slices", f"{len(frames)} slice{'s'[: len(frames) != 1]}"))
    if not mixed and len(frames) > 1:
        reasons += _check_positions(frames)
    return reasons


def geometry(frames: Sequence[Frame]) -> Geometry:
    """Shape (columns, rows, slices) and affine of frames that passed the gate, in slice order: LPS becomes RAS here."""
    first, last = frames[0], frames[-1]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    between_rows, between_columns = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = row / np.linalg.norm(row) * between_columns
    affine[:3, 1] = column / np.linalg.norm(column) * between_rows
    affine[:3, 2] = np.subtract(last.position, first.position) / (len(frames) - 1)
    affine[:3, 3] = first.position
    affine[:2] *= -1
    rows, columns = first.matrix
    return Geometry((columns, rows, len(frames)), affine)


def _check_positions(frames: Sequence[Frame]) -> list[Reason]:
    heights = along(frames)
    places = distinct(heights)
    if len(places) == 1:
        return [("duplicate_positions", f"all {len(frames)} slices lie at one position")]
    reasons: list[Reason] = []
    if len(places) < len(frames):
        reasons.append(("duplicate_positions", f"{len(frames)} slices lie at {len(places)} positions"))
    if gap := uneven(places):
        reasons.append(("uneven_spacing", gap))
    if lean := tilt(frames):
        reasons.append(("gantry_tilt", lean))
    return reasons
