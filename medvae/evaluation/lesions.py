"""How much of the lesions a map finds at thresholds of healthy scans: voxels, whole lesions, false regions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import precision_recall_curve

from medvae.evaluation.metrics import Draws, ScanVoxels, interval
from medvae.evaluation.truth import LOWEST
from medvae.io.formats import nifti
from medvae.io.reading import read_mask
from medvae.prepare.pieces import CORNERS, numbered
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.evaluation.metrics import Interval

MEASURES = ("dice", "voxel_sensitivity", "lesion_sensitivity", "false_regions", "healthy_fpr")


@dataclass(frozen=True, eq=False)
class Volume:
    """One map that `detect` wrote for one scan, and the scan's truth, on the scan's own grid.

    Attributes:
        region: bool `(X, Y, Z)`, voxels that count: those that were evaluated, and all of the lesion.
        lesion: bool `(X, Y, Z)`.
        values: float32 `(X, Y, Z)`; the lowest number where nothing was evaluated.
    """

    region: NDArray[np.bool_] = field(repr=False)
    lesion: NDArray[np.bool_] = field(repr=False)
    values: NDArray[np.float32] = field(repr=False)

    def voxels(self, subject: str, name: str) -> ScanVoxels:
        """The voxels that count, of a subject, under the name of the map."""
        return ScanVoxels(subject, self.lesion[self.region], {name: self.values[self.region]})


def read_volume(folder: Path, name: str, truth: Path | None) -> Volume:
    """One map of one scan and its truth.

    Args:
        folder: of the scan, in the output of `detect`.
        name: of the map.
        truth: the mask of its lesions, on the same grid; whatever is not 0 is lesion. None where it is healthy.

    Raises:
        ScanError: a file cannot be read; `mask_mismatch` where the mask does not lie on the scan's grid.
    """
    settings = ReadSettings()
    covered, geometry = nifti.read_values(folder / "coverage.nii.gz", settings)
    evaluated = covered != 0
    lesion = np.zeros(evaluated.shape, bool) if truth is None else read_mask(truth, geometry, settings)
    heat, _ = nifti.read_values(folder / f"{name}.nii.gz", settings)
    return Volume(evaluated | lesion, lesion, np.where(evaluated, heat, LOWEST))


def measure(scan: Volume, threshold: float) -> dict[str, float]:
    """The `MEASURES` of one scan at one threshold, NaN where they are not defined.

    - `dice`: 2 TP / (2 TP + FP + FN); NaN for a scan without a lesion, as the sensitivities.
    - `voxel_sensitivity`: share of lesion voxels above the threshold.
    - `lesion_sensitivity`: share of lesions (26-neighbourhood) of which a voxel lies above it.
    - `false_regions`: connected regions above it that touch no lesion.
    - `healthy_fpr`: share of the voxels outside of lesions that lie above it.
    """
    above, lesion = (scan.values > threshold) & scan.region, scan.lesion
    hits, healthy = int((above & lesion).sum()), scan.region & ~lesion
    lesions, regions = _parts_touched(lesion, above), _parts_touched(above, lesion)
    size = int(above.sum() + lesion.sum())
    some = bool(lesion.any())
    return {
        "dice": 2 * hits / size if some else np.nan,
        "voxel_sensitivity": hits / int(lesion.sum()) if some else np.nan,
        "lesion_sensitivity": float(lesions.mean()) if some else np.nan,
        "false_regions": float((~regions).sum()),
        "healthy_fpr": float((above & healthy).sum() / healthy.sum()) if healthy.any() else np.nan,
    }


def mean_measures(each: Sequence[Mapping[str, float]], *, subjects: Sequence[str]) -> dict[str, Interval]:
    """The mean of each measure over the scans for which it is defined, with its interval over subjects."""
    draws, found = Draws.from_subjects(subjects), {}
    for key in MEASURES:
        values = np.array([one[key] for one in each])
        known = np.isfinite(values)
        weights = draws.weights([subject for subject, yes in zip(subjects, known, strict=True) if yes])
        with np.errstate(invalid="ignore"):  # a draw may have none of these scans
            drawn = (weights @ values[known]) / weights.sum(1)
        found[key] = interval(float(values[known].mean()) if known.any() else float("nan"), drawn)
    return found


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one map over the voxels of all scans together.

    Attributes:
        precision: lesion among the voxels at or above each threshold, `(K + 1,)`; 1 at the end, where none is above.
        recall: of the lesion voxels those at or above it, `(K + 1,)`, falling from 1 to 0.
        thresholds: the different values of the map, `(K,)`, rising.
    """

    precision: NDArray[np.float64] = field(repr=False)
    recall: NDArray[np.float64] = field(repr=False)
    thresholds: NDArray[np.float32] = field(repr=False)

    @classmethod
    def from_scans(cls, scans: Sequence[ScanVoxels], name: str) -> Curve:
        """The curve of the map `name`; at least one scan has a lesion."""
        truth = np.concatenate([scan.truth for scan in scans])
        return cls(*precision_recall_curve(truth, np.concatenate([scan.maps[name] for scan in scans])))

    @property
    def oracle_dice(self) -> float:
        """The best Dice over all thresholds: chosen with the truth, no threshold attains more."""
        both = np.maximum(self.precision + self.recall, 1e-12)
        return float((2 * self.precision * self.recall / both).max())

    def at(self, threshold: float) -> tuple[float, float]:
        """Recall and precision of the voxels above a threshold."""
        first = np.searchsorted(self.thresholds, np.float32(threshold), side="right")
        return float(self.recall[first]), float(self.precision[first])

    def thinned(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and precision at up to `count` points, evenly spaced in recall."""
        falling = np.linspace(1, 0, count)
        chosen = np.unique(np.searchsorted(-self.recall, -falling))
        return self.recall[chosen], self.precision[chosen]


def _parts_touched(parts: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each connected part, whether the other mask touches it."""
    numbers, sizes = numbered(parts, CORNERS)
    touched: NDArray[np.bool_] = np.bincount(numbers[other], minlength=len(sizes) + 1)[1:] > 0
    return touched
