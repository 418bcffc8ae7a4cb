"""Would matching the central quantiles of a scan to those of the training scans help?

    python benchmarks/quantiles.py [--data FOLDER]

Prepared intensities (robust z, receive field divided out) of the calibration brains and of the second site, also as
other scanners might have made them, are mapped by the monotone, piecewise linear function that brings their 10%, 20%,
..., 90% quantiles to the mean ones of the training brains. Beyond the outer quantiles the slope is 1. Compared with
robust z alone: the distance to the training mean, and voxels beyond 3 SD of the training scans; then, for large
simulated lesions and tumours, how much of the change of a lesion is left, what appears outside of it, and voxel AP.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from medvae.cli import console
from medvae.cohort.find import find
from medvae.prepare import intensity
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import ReadSettings, load_settings
from medvae.simulate.anomalies import add_anomaly
from medvae.simulate.lesions import Kind, implant, shape_on, spread_by_volume
from medvae.simulate.scanners import CHANGES, changed_by_scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from medvae.scan import Geometry

DATA = Path(__file__).parents[2] / "shared" / "data"
LEVELS = np.linspace(10, 90, 9)
STROKES = 6  # the largest shapes
LEAST_SD = 0.1  # of a voxel over the training scans
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Brain:
    """A prepared scan `(X, Y, Z)`."""

    image: Values = field(repr=False)
    mask: Mask = field(repr=False)

    def fitted(self, image: Values) -> Brain:
        """Changed values, with robust z fitted again, as preparation does."""
        scale = intensity.fit(image, self.mask, settings=load_settings("brain-mri-t1").prepare)
        return Brain(np.where(self.mask, scale.apply(image), np.float32(0)), self.mask)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Training scans: mean and SD of each voxel, and their mean quantiles."""

    mean: Values = field(repr=False)
    spread: Values = field(repr=False)
    quantiles: NDArray[np.float64]

    @classmethod
    def of(cls, brains: list[Brain]) -> Cohort:
        """From prepared scans."""
        images = np.stack([one.image for one in brains])
        quantiles = np.mean([np.percentile(one.image[one.mask], LEVELS) for one in brains], axis=0)
        return cls(images.mean(axis=0), np.maximum(images.std(axis=0), LEAST_SD), quantiles)

    def matched(self, brain: Brain) -> Brain:
        """Matched to the quantiles of the cohort."""
        own = np.percentile(brain.image[brain.mask], LEVELS)
        far = 20.0
        ends = [own[0] - far, *own, own[-1] + far], [self.quantiles[0] - far, *self.quantiles, self.quantiles[-1] + far]
        return Brain(np.where(brain.mask, np.interp(brain.image, *ends), 0).astype(np.float32), brain.mask)

    def z(self, brain: Brain) -> Values:
        """SD from the mean of the training scans, absolute."""
        return np.abs(brain.image - self.mean) / self.spread


def plain(brain: Brain) -> Brain:
    """Robust z alone."""
    return brain


def distances(cohort: Cohort, brains: Iterable[Brain]) -> Iterator[tuple[float, float]]:
    """Per brain: mean distance to the training mean, and share of voxels beyond 3 SD."""
    for one in brains:
        yield float(np.abs(one.image - cohort.mean)[one.mask].mean()), float((cohort.z(one)[one.mask] > 3).mean())


def of_scanners(cohort: Cohort, calibration: list[Brain], site: list[Brain], grid: Geometry) -> list[list[str]]:
    """One row per change: both figures without and with matching."""
    groups: dict[str, list[Brain]] = {}
    for change in CHANGES:
        make = partial(changed_by_scanner, change=change, spacing=grid.spacing)
        rng = np.random.default_rng(0)
        groups[f"calibration, {change}"] = [one.fitted(make(one.image, one.mask, rng=rng)) for one in calibration]
    groups["second site"] = site
    rows = []
    for name, brains in groups.items():
        cells = []
        for mapped in (plain, cohort.matched):
            found = np.array(list(distances(cohort, map(mapped, brains))))
            cells += [f"{found[:, 0].mean():.3f}", f"{found[:, 1].mean():.2%}"]
        rows.append([name, *cells])
    return rows


def ill_brains(data: Path, brains: list[Brain], grid: Geometry) -> Iterator[tuple[str, Brain, Brain, Mask]]:
    """A name, the healthy brain, the ill one with robust z fitted again, and the lesion."""
    paths = sorted((data / "stroke-lesion-masks").glob("*.nii.gz"))
    kinds: tuple[Kind, ...] = ("dark", "bright")
    for number, path in enumerate(spread_by_volume(paths, len(paths))[-STROKES:]):
        one, shape = brains[number % len(brains)], shape_on(path, grid)
        for kind in kinds:
            made = implant(one.image, shape, foreground=one.mask, spacing=grid.spacing, kind=kind)
            yield f"{kind} stroke", one, one.fitted(made.image), made.truth
    rng = np.random.default_rng(0)
    for one in brains:
        ill = add_anomaly(one.image, one.mask, kind="tumour", spacing=grid.spacing, rng=rng)
        yield "tumour", one, one.fitted(ill.image), ill.truth


def of_lesions(cohort: Cohort, data: Path, brains: list[Brain], grid: Geometry) -> list[list[str]]:
    """One row per kind: volume, change inside and outside the lesion and AP, without and with matching."""
    found: dict[str, list[list[float]]] = {}
    for name, healthy, ill, truth in ill_brains(data, brains, grid):
        row = [float(truth.sum() * grid.voxel_volume / 1000)]
        rest = ill.mask & ~truth
        for mapped in (plain, cohort.matched):
            row += _changes(mapped, healthy, ill, truth, rest)
            z = cohort.z(mapped(ill))[ill.mask]
            row.append(float(average_precision_score(truth[ill.mask], z)))
        found.setdefault(name, []).append(row)
    rows = []
    for name, each in found.items():
        ml = [one[0] for one in each]
        cells = [f"{value:.3f}" for value in np.mean([one[1:] for one in each], axis=0)]
        rows.append([name, f"{min(ml):.0f} to {max(ml):.0f}", *cells])
    return rows


def _changes(
    mapped: Callable[[Brain], Brain], healthy: Brain, ill: Brain, truth: Mask, rest: Mask
) -> tuple[float, float]:
    """Mean absolute change of the lesion, and of what is around it."""
    change = np.abs(mapped(ill).image - mapped(healthy).image)
    return float(change[truth & ill.mask].mean()), float(change[rest].mean())


def prepared(where: Path | Selection, load: ReadAndPrepare) -> list[Brain]:
    """Prepared scans."""
    scans = (load(ref).prepared for ref in find(where, load.read))
    return [Brain(one.image[0], one.mask[0]) for one in scans]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="matching of central quantiles")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1, brains-t1-site2, ...")
    data: Path = parser.parse_args().data
    load = ReadAndPrepare(ReadSettings(), Preparation(load_settings("brain-mri-t1").prepare))
    by_split = partial(Selection, (data / "brains-t1" / "split.csv",))
    train, calibration = (prepared(by_split(split=name), load) for name in ("train", "calibrate"))
    site = prepared(Selection((data / "brains-t1-site2",), include=("*mni2mm*",)), load)
    report(Cohort.of(train), calibration, site, data, load.preparation.grid)


def report(cohort: Cohort, calibration: list[Brain], site: list[Brain], data: Path, grid: Geometry) -> None:
    """Print both tables."""
    pair = ["distance", "beyond 3 SD"]
    rows = of_scanners(cohort, calibration, site, grid)
    console.table(["brains", *pair, *(f"{one}, matched" for one in pair)], rows)
    three = ["change in lesion", "around it", "AP"]
    rows = of_lesions(cohort, data, calibration, grid)
    console.table(["lesion", "mL", *three, *(f"{one}, matched" for one in three)], rows)


if __name__ == "__main__":
    main()
