"""What `detect` wrote and the truth, side by side: the foreground voxels of a scan on its own grid, and its scores."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medvae.evaluation.metrics import ScanVoxels
from medvae.io.formats import nifti
from medvae.io.reading import read_mask
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOWEST = np.finfo(np.float32).min  # of a voxel that was not evaluated: it comes after all others


@dataclass(frozen=True)
class Case:
    """A scan whose truth is known.

    Attributes:
        id: of the scan, the name of its folder in `scans/`.
        subject: who was scanned.
        scan: its file; the foreground is where it is not 0.
        truth: the mask of its lesion, on the same grid; None where it is healthy.
    """

    id: str
    subject: str
    scan: Path
    truth: Path | None


def read_voxels(out: Path, case: Case, *, maps: Sequence[str]) -> ScanVoxels:
    """The maps of one scan in the output folder of `detect`, and its truth.

    All of the foreground counts. A voxel that was not evaluated (`coverage.nii.gz` is 0) comes after all others, so
    that a lesion there is missed.

    Args:
        out: of `detect`.
        case: the scan.
        maps: names of the maps.

    Raises:
        ScanError: a file cannot be read, or does not lie on its scan.
    """
    settings, folder = ReadSettings(), out / "scans" / case.id
    image, geometry = nifti.read_values(case.scan, settings)
    foreground = image != 0
    lesion = np.zeros(image.shape, bool) if case.truth is None else read_mask(case.truth, geometry, settings)
    not_evaluated = ~read_mask(folder / "coverage.nii.gz", geometry, settings)[foreground]
    values = {}
    for name in maps:
        heat, _ = nifti.read_values(folder / f"{name}.nii.gz", settings)
        values[name] = np.where(not_evaluated, LOWEST, heat[foreground])
    return ScanVoxels(case.subject, lesion[foreground], values)


def read_scores(out: Path, name: str) -> dict[str, float]:
    """The scores of a map in `scores.csv`, by scan id; scans without one are left out."""
    with open(out / "scores.csv", encoding="utf-8", newline="") as file:
        return {row["id"]: float(row[name]) for row in csv.DictReader(file) if row[name]}
