"""Candidates: the connected regions of a map that are larger than those of healthy scans, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.extremes import region_masses, regions_above
from medvae.prepare.native import only_channel, to_native

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.anomaly_map import AnomalyMap
    from medvae.anomaly.reference import Reference
    from medvae.prepare.preparation import Prepared
    from medvae.settings import DetectSettings

Point = tuple[float, float, float]
MIDLINE_MM = 5.0  # a peak that is nearer to the template's midsagittal plane has no side


@dataclass(frozen=True)
class Candidate:
    """One connected region of a map above its level, with more mass than healthy scans have.

    Attributes:
        number: from 1, by falling mass; its label in `candidates.nii.gz`.
        ras: position of the peak in the scanner's mm, x to the right, y to the front, z to the head.
        mni: position of the peak in the template's mm, as RAS; None for a model that is not aligned.
        side: left, right or midline of the patient; None for a model that is not aligned.
        volume_ml: of the region, in the scanner's mm.
        peak: the highest value of the region, in the map's unit.
        mean: its mean.
        mass: Σ (value − level) times the volume of a voxel of the model's grid, in the map's unit · mL.
        p: conformal p of the mass against the largest regions of healthy scans.
        witness: the written map that lies highest above its own healthy limit at the peak.
    """

    number: int
    ras: Point
    mni: Point | None
    side: str | None
    volume_ml: float
    peak: float
    mean: float
    mass: float
    p: float
    witness: str

    @property
    def lps(self) -> Point:
        """Position of the peak as DICOM and ITK write it: x to the left, y to the back."""
        x, y, z = self.ras
        return (-x, -y, z)

    def to_json(self) -> dict[str, Any]:
        """As plain data, lengths to 0.1 mm, other numbers to six digits."""
        return {
            "number": self.number,
            "ras": _rounded(self.ras),
            "lps": _rounded(self.lps),
            "mni": None if self.mni is None else _rounded(self.mni),
            "side": self.side,
            "volume_ml": float(f"{self.volume_ml:.6g}"),
            "peak": float(f"{self.peak:.6g}"),
            "mean": float(f"{self.mean:.6g}"),
            "mass": float(f"{self.mass:.6g}"),
            "p": float(f"{self.p:.6g}"),
            "witness": self.witness,
        }


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one scan.

    Attributes:
        map: name of the map that they are regions of.
        level: every voxel of them lies above, in the map's unit; infinite without healthy scans.
        threshold: their mass lies above, in the map's unit · mL; infinite without healthy scans.
        each: by falling mass.
        labels: uint16 `(X, Y, Z)` on the scan's own grid: 0 = none, k = candidate number k.
    """

    map: str
    level: float
    threshold: float
    each: tuple[Candidate, ...]
    labels: NDArray[np.uint16] = field(repr=False)

    def places(self, most: int) -> int:
        """So many places a picture shows: the candidates; the highest without one; `most` where they are unknown."""
        return min(most, max(1, len(self.each))) if np.isfinite(self.threshold) else most

    def in_words(self, unit: str, *, shown: int) -> str:
        """What was found, for a reader of the picture: the words of the page (`review/page/scan.js`).

        Args:
            unit: of the map.
            shown: candidates that the picture has room for.
        """
        if not np.isfinite(self.threshold):
            return "Candidates unknown: no healthy scans to compare with."
        limit = f"{in_digits(self.threshold)} {unit}·mL above {in_digits(self.level)} {unit}"
        return f"{self._count(shown)} A candidate exceeds the limit of healthy scans, {limit}."

    def _count(self, shown: int) -> str:
        if not self.each:
            return "No candidate. This does not exclude disease."
        some = f", the first {shown} are shown" if len(self.each) > shown else ""
        return f"{len(self.each)} {'candidates' if len(self.each) > 1 else 'candidate'}{some}."

    def to_json(self, *, status: str, unit: str) -> dict[str, Any]:
        """As `findings.json` has it."""
        level, threshold = (float(f"{one:.6g}") if np.isfinite(one) else None for one in (self.level, self.threshold))
        facts = {"map": self.map, "unit": unit, "level": level, "threshold": threshold, "reference": status}
        return {**facts, "candidates": [one.to_json() for one in self.each]}


def find_candidates(
    maps: Mapping[str, AnomalyMap], prepared: Prepared, reference: Reference, *, options: DetectSettings, aligned: bool
) -> Candidates:
    """The candidates of one scan, by its first map.

    Args:
        maps: of the scan, on the model's grid; the first says where candidates are.
        prepared: the scan on that grid.
        reference: of the model.
        options: `healthy_fpr`, candidates per healthy scan, and `min_ml`, the smallest volume.
        aligned: whether the model's grid lies in the template's space.
    """
    first = next(iter(maps.values()))
    extremes = reference.maps[first.name].extremes
    level, threshold = extremes.level, extremes.mass_threshold(options.healthy_fpr)
    to_world = prepared.input.affine @ prepared.to_input
    voxel_ml = float(abs(np.linalg.det(to_world[:3, :3]))) / 1000
    inside = np.where(only_channel(prepared.mask), first.values, np.float32(-np.inf))
    grid_ml = prepared.grid.voxel_volume / 1000
    regions, sums = _regions(inside, level, heavier=threshold / grid_ml, least=options.min_ml / voxel_ml)
    each = []
    for number, mass in enumerate(sums * grid_ml, start=1):
        voxels = np.argwhere(regions == number)
        values = first.values[tuple(voxels.T)]
        at = voxels[int(values.argmax())]
        mni = _point(prepared.grid.affine, at) if aligned else None
        each.append(
            Candidate(
                number=number,
                ras=_point(to_world, at),
                mni=mni,
                side=None if mni is None else side_of(mni[0]),
                volume_ml=len(voxels) * voxel_ml,
                peak=float(values.max()),
                mean=float(values.mean()),
                mass=float(mass),
                p=extremes.p_value(float(mass)),
                witness=_witness(maps.values(), reference, tuple(at)),
            )
        )
    return Candidates(first.name, level, threshold, tuple(each), _native(regions, each, prepared))


def in_digits(value: float) -> str:
    """A number to three digits, without an exponent where it is large, as the pages write it."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def side_of(x: float) -> str:
    """The side of a place in the template, x in mm to the right of the midsagittal plane."""
    if abs(x) <= MIDLINE_MM:
        return "midline"
    return "right" if x > 0 else "left"


def _regions(
    values: NDArray[np.float32], level: float, *, heavier: float, least: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Connected regions above a level, numbered by falling mass, 0 elsewhere; and their masses, in values times voxels.

    Args:
        values: `(X, Y, Z)`.
        level: all voxels of a region lie above.
        heavier: its mass exceeds this.
        least: voxels that it has at least.
    """
    regions = regions_above(values, level)
    masses = region_masses(values, regions, level=level)
    voxels = np.bincount(regions.ravel(), minlength=masses.size + 1)[1:]
    order = np.argsort(-masses, kind="stable")
    order = order[(masses[order] > heavier) & (voxels[order] >= least)]
    new = np.zeros(masses.size + 1, np.int32)
    new[order + 1] = np.arange(1, order.size + 1)
    return new[regions], masses[order]


def _native(regions: NDArray[np.int32], each: Iterable[Candidate], prepared: Prepared) -> NDArray[np.uint16]:
    """The regions on the scan's own grid; one that is smaller than its voxels keeps the voxel of its peak."""
    labels = to_native(regions, prepared, labels=True).astype(np.uint16)
    for one in each:
        if not (labels == one.number).any():
            at = np.rint(prepared.input.to_index(one.ras)).astype(int)
            labels[tuple(np.clip(at, 0, np.array(labels.shape) - 1))] = one.number
    return labels


def _witness(maps: Iterable[AnomalyMap], reference: Reference, at: tuple[int, ...]) -> str:
    """The map that is highest at a voxel, in units of its own healthy limit."""
    return max(maps, key=lambda one: float(one.values[at]) / max(reference.maps[one.name].limit, 1e-6)).name


def _point(matrix: NDArray[np.float64], index: NDArray[np.intp]) -> Point:
    x, y, z = matrix[:3, :3] @ index + matrix[:3, 3]
    return (float(x), float(y), float(z))


def _rounded(point: Point) -> list[float]:
    return [round(value, 1) + 0.0 for value in point]
