"""Thresholds of few healthy scans, by simulation: how many false alarms a new scan has, and how much that varies.

    python benchmarks/thresholds.py [--repeats N]

Healthy people differ. The voxels of a simulated subject's map are |N(0, 1)|, times a factor specific to the subject
whose logarithm is drawn from N(0, 0.25²), or from Student's t with three degrees of freedom times 0.15, which gives
outliers (odd subjects). At a threshold that 0.5% of all voxels exceed, the highest of ten subjects has 2.6 or 3.7%
above it, on average (3.1% of ten OASIS subjects, `benchmarks/false_alarms.py`). The number of a subject's regions is
Poisson with mean 20; their masses are exponential, times the third power of the subject's factor.

n subjects set the thresholds, again and again. Rates of new scans are exact for voxels (a mean over many further
subjects), and counted in further subjects for regions. Rules: "pooled" takes the quantile of the n scans' voxels, each
scan weighing the same, and for regions the rank that would be right if no scan had two; "left out" is that of
`medvae.anomaly.extremes`. Printed are the rates in new scans divided by the nominal ones: the mean over repetitions,
and in brackets the 10% and 90% quantiles.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from medvae.anomaly.extremes import KEPT, TAIL, Extremes
from medvae.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RATES = (0.005, 0.01, 0.05)  # of voxels
FPR = 0.1  # regions per scan
NEW = 20_000  # subjects that rates of voxels are the mean over
NEW_REGIONS = 2_000  # and those of regions
VOXELS = 200_000  # per scan: the share of the highest is 1 / VOXELS
SUBJECTS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: np.exp(rng.normal(0, 0.25, n)),
    "odd subjects": lambda rng, n: np.exp(0.15 * rng.standard_t(3, n)),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="false alarms at thresholds of few healthy scans, by simulation")
    parser.add_argument("--repeats", type=int, default=1000, help="repetitions for each number of scans")
    repeats = parser.parse_args().repeats
    console.configure(quiet=False)
    rows = []
    for name, draw in SUBJECTS.items():
        rng = np.random.default_rng(0)
        new = draw(rng, NEW)
        masses = np.sort(region_masses(rng, new[:NEW_REGIONS]), axis=None)
        for n in (5, 10, 25, 100):
            found = [list(rates_of(made(rng, draw(rng, n)), new, masses)) for _ in range(repeats)]
            for rule, each in zip(("pooled", "left out"), np.swapaxes(found, 0, 1), strict=True):
                rows.append([name, str(n), rule, *(cell(column) for column in each.T)])
    console.table(["subjects", "n", "rule", *(f"{rate:.1%}" for rate in RATES), f"{FPR:g} regions"], rows)


def region_masses(rng: np.random.Generator, factors: Floats) -> Floats:
    """The largest regions of subjects, falling, `(n, KEPT)`."""
    size = (len(factors), KEPT)
    masses = factors[:, None] ** 3 * rng.exponential(size=size)
    there = np.arange(KEPT) < rng.poisson(20, len(factors))[:, None]
    return np.sort(masses * there)[:, ::-1]


def made(rng: np.random.Generator, factors: Floats) -> Extremes:
    """What is kept of the scans of subjects."""
    quantiles = factors[:, None] * stats.norm.isf(np.maximum(TAIL, 1 / VOXELS) / 2)
    masses = region_masses(rng, factors)
    subjects = np.arange(len(factors), dtype=np.int32)
    return Extremes(masses.astype(np.float32), quantiles.astype(np.float32), subjects)


def rates_of(extremes: Extremes, new: Floats, masses: Floats) -> Iterator[list[float]]:
    """By rule, the rates in new scans at its thresholds divided by the nominal ones."""
    for voxel, mass in (
        ([pooled(extremes, rate) for rate in RATES], unclustered(extremes, FPR)),
        ([extremes.voxel_threshold(rate) for rate in RATES], extremes.mass_threshold(FPR)),
    ):
        above = [2 * float(stats.norm.sf(t / new).mean()) / rate for t, rate in zip(voxel, RATES, strict=True)]
        yield [*above, float(masses.size - np.searchsorted(masses, mass, side="right")) / NEW_REGIONS / FPR]


def pooled(extremes: Extremes, rate: float) -> float:
    """The value that the share `rate` of the given scans' voxels exceed."""
    levels = np.unique(extremes.quantiles)
    above = np.mean([np.interp(levels, rising, TAIL, left=1.0, right=0.0) for rising in extremes.quantiles], axis=0)
    return float(levels[np.argmax(above <= rate)])


def unclustered(extremes: Extremes, rate: float) -> float:
    """The mass that new scans exceed `rate` times on average if no scan has two such regions (Vovk et al. 2005)."""
    k = max(0, int(rate * (len(extremes.masses) + 1) + 1e-9) - 1)
    return float(np.sort(extremes.masses, axis=None)[-1 - k])


def cell(values: Floats) -> str:
    """The mean, and the 10% and 90% quantiles."""
    low, high = np.quantile(values, [0.1, 0.9])
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
