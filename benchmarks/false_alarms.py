"""False alarms in healthy brains: maps, candidates and p compared with the nominal rates of thresholds (cross-fitting).

    python benchmarks/false_alarms.py --model MODEL [--data FOLDER] [--cache FOLDER] [--maps NAME ...]
                                      [--set KEY=VALUE ...] [--splits N] [--reference N] [--healthy-fpr N]

The ten subjects of `split.csv` that the model was not trained on are split at random again and again: some make a
Reference, as `calibrate` makes it, the others are held out, each equally often. The network is not trained again, and
each scan is prepared and inferred once; no files are written except the cache of prepared scans. Training subjects are
left out: their residuals are too small; but for a model trained with `--folds`, the maps that each fold makes of the
scans it has not seen are in every Reference.

The first table takes all of them into one Reference and leaves out one subject at a time: each scan's map is that
against the others anyway, and the thresholds are those of the others, by the rules of `benchmarks/thresholds.py`. Ten
subjects are few to check a rate by: in brackets is the share of sets of ten drawn from these subjects, with
replacement, whose mean lies within 30% of the nominal rate.

Groups: the held-out OASIS subjects, first and second scan of one subject averaged; second scans of two training
subjects, whose anatomy the network knows; five IXI subjects, another scanner and mask. Per map and group, means over
subjects with the lowest and highest subject, each the mean over the splits in which it is held out:

- the share of foreground voxels above the thresholds of 0.5%, 1% and 5% of healthy voxels;
- candidates per scan at `--healthy-fpr`, with this map as the first;
- p of first scans. p takes the values k/(n + 1) only; minus a uniform number between 0 and 1/(n + 1) it would be
  uniform if the scans were exchangeable (Vovk et al. 2005). D is the Kolmogorov-Smirnov distance from that. The p of D
  assumes that all values are independent, which they are not: the same subjects are in many splits. The last column is
  the one to read: the share of simulations (exchangeable scores in the same splits) whose D is at least as large.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from maps import DATA, RATES, prepared_scan, prepared_scans
from scipy import stats
from thresholds import pooled, unclustered

from medvae.anomaly.anomaly_map import scan_maps
from medvae.anomaly.calibrate import reference_from
from medvae.anomaly.candidates import find_candidates
from medvae.anomaly.crossfit import ByFolds, KeptScans
from medvae.anomaly.extremes import TAIL, Extremes
from medvae.anomaly.inference import infer
from medvae.checkpoint.folder import load
from medvae.checkpoint.folds import load_folds
from medvae.cli import console
from medvae.cohort.find import find
from medvae.scan import Selection
from medvae.settings import adjust

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.settings import DetectSettings

MAPS = ("residual_z", "asymmetry", "contrast", "elbo_z", "fused")
OASIS, TRAINED, IXI = "OASIS, held out", "second scans of training subjects", "IXI"
SIMULATIONS = 2000
TEN, NEAR = 10, 0.3  # subjects, and how far their mean may lie from the nominal rate, as a share of it


def main() -> None:
    """Print the tables."""
    options = parse()
    console.configure(quiet=True)
    begun = time.monotonic()
    model = load(options.model)
    overrides = (f"detect.healthy_fpr={options.healthy_fpr}", *options.set)
    detect = adjust(model.settings, None, overrides, uses=("detect",)).detect
    with tempfile.TemporaryDirectory() as scratch:
        scans = find_scans(model, options.data, options.cache or Path(scratch), draws=detect.draws)
    folds, kept = load_folds(model), KeptScans.without_lesions(model)
    by_folds = ByFolds(model, folds, kept, draws=detect.draws)
    always = [by_folds[index] for index in range(len(kept))] if folds else []
    subjects = sorted({one.subject for one in scans if one.group == OASIS})
    splits = random_splits(subjects, count=options.splits, size=options.reference)
    referring = partial(
        reference_from,
        model,
        calibrated=True,
        folds=[one.model for one in folds],
        names=options.maps,
        detect=detect,
    )
    everyone = [one.inference for one in scans if one.first and one.group == OASIS]
    report_left_out(referring([*always, *everyone]), options.maps, fpr=options.healthy_fpr)
    results: list[Result] = []
    for number, chosen in enumerate(splits, 1):
        healthy = [one for one in everyone if one.prepared.subject in chosen]
        reference = referring([*always, *healthy])
        for one in scans:
            if one.subject not in chosen:
                results += measured(one, reference, detect, names=options.maps)
        console.out(f"split {number} of {len(splits)}: {time.monotonic() - begun:.0f} s")
    report(results, options.maps, fpr=options.healthy_fpr)
    report_p(results, options.maps, subjects=subjects, splits=splits, always=len(always))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="false alarms in healthy brains, by cross-fitting")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1, -rescans and -site2")
    parser.add_argument("--cache", type=Path, help="folder that keeps the prepared scans for the next run")
    parser.add_argument("--maps", nargs="+", default=MAPS, help="names of the maps")
    parser.add_argument("--set", nargs="+", default=[], help="detect.options.MAP.OPTION=VALUE")
    parser.add_argument("--splits", type=int, default=20, help="random splits of the subjects")
    parser.add_argument("--reference", type=int, default=5, help="subjects in the Reference; the others are held out")
    parser.add_argument("--healthy-fpr", type=float, default=0.1, help="candidates per healthy scan")
    return parser.parse_args()


@dataclass(frozen=True, eq=False)
class Healthy:
    """The model's maps of a healthy subject's scan, its group, and whether it is the subject's first scan."""

    inference: Inference
    group: str
    first: bool = True

    @property
    def subject(self) -> str:
        """Who was scanned."""
        return self.inference.prepared.subject


@dataclass(frozen=True)
class Result:
    """One map of one held-out scan: voxels above each threshold, candidates, p, and n of the Reference."""

    name: str
    group: str
    subject: str
    first: bool
    shares: tuple[float, ...]
    candidates: int
    p: float
    n: int


def find_scans(model: Model, data: Path, cache: Path, *, draws: int) -> list[Healthy]:
    """All scans but those that the model was trained on."""
    known = prepared_scans(model, data, cache)
    found = [(one, OASIS, True) for one in (*known["calibrate"], *known["test"])]
    folder, place = data / "brains-t1-rescans", cache / model.preparation.hash[:16]
    with open(folder / "participants.tsv", encoding="utf-8") as table:
        subjects = {row["file"]: row["oasis_subject"] for row in csv.DictReader(table, delimiter="\t")}
    for ref in find(Selection((folder,)), model.settings.read).refs:
        again = replace(prepared_scan(ref, model, place / f"{ref.id}.safetensors"), subject=subjects[ref.paths[0].name])
        found.append((again, TRAINED if again.subject in model.latents.subjects else OASIS, False))
    found += [(one, IXI, True) for one in known["site2"]]
    return [Healthy(infer(model, one, draws=draws), group, first) for one, group, first in found]


def random_splits(subjects: Sequence[str], *, count: int, size: int) -> list[frozenset[str]]:
    """The subjects of the Reference, `size` of them, in each of `count` splits.

    A random order of the subjects is cut into blocks, each of which is held out once; then comes another order.
    """
    rng, splits, out = np.random.default_rng(0), list[frozenset[str]](), len(subjects) - size
    while len(splits) < count:
        order = rng.permutation(subjects).tolist()
        splits += [frozenset(order) - {*order[i : i + out]} for i in range(0, len(order) - out + 1, out)]
    return splits[:count]


def measured(scan: Healthy, reference: Reference, detect: DetectSettings, *, names: Sequence[str]) -> Iterator[Result]:
    """The maps of a scan against the thresholds and scores of a Reference."""
    inference = scan.inference
    maps = scan_maps(names, inference, reference)
    for name in names:
        one, extremes = maps[name], reference.maps[name].extremes
        inside = one.values[inference.foreground]
        shares = tuple(float((inside > extremes.voxel_threshold(rate)).mean()) for rate in RATES)
        found = find_candidates({name: one}, inference.prepared, reference, options=detect, aligned=True)
        p = reference.p_value(name, one.score(inference.foreground, top=detect.top))
        assert p is not None
        yield Result(name, scan.group, scan.subject, scan.first, shares, len(found.each), p, reference.n)


def report_left_out(reference: Reference, names: Sequence[str], *, fpr: float) -> None:
    """Two rows per map: what the subjects of a Reference have at the thresholds of the others, by either rule."""
    rng, rows, nominal = np.random.default_rng(0), [], np.array([*RATES, fpr])
    tens = rng.integers(reference.n, size=(SIMULATIONS, TEN))
    for name in names:
        for rule, found in left_out(reference.maps[name].extremes, fpr=fpr).items():
            near = (np.abs(found[tens].mean(axis=1) / nominal - 1) <= NEAR).mean(axis=0)
            means = found.mean(axis=0) * ([100] * len(RATES) + [1])
            cells = [f"{mean:.2f} ({share:.0%})" for mean, share in zip(means, near, strict=True)]
            rows.append([name, str(reference.n), rule, *cells])
    console.out("\neach subject left out: share of voxels, %; candidates; in brackets tens near the nominal rate")
    titles = [*(f"nominal {rate:.1%}" for rate in RATES), f"candidates (nominal {fpr:g})"]
    console.table(["map", "n", "rule", *titles], rows)


def left_out(extremes: Extremes, *, fpr: float) -> dict[str, NDArray[np.float64]]:
    """By rule, each scan's shares of voxels and its regions above the thresholds of the other subjects' scans."""
    found: dict[str, list[list[float]]] = {"pooled": [], "left out": []}
    for index, subject in enumerate(extremes.subjects):
        kept = extremes.subjects != subject
        others = Extremes(extremes.masses[kept], extremes.quantiles[kept], extremes.subjects[kept])
        for rule, voxel, mass in (
            ("pooled", [pooled(others, rate) for rate in RATES], unclustered(others, fpr)),
            ("left out", [others.voxel_threshold(rate) for rate in RATES], others.mass_threshold(fpr)),
        ):
            shares = np.interp(voxel, extremes.quantiles[index], TAIL, left=1.0, right=0.0)
            found[rule].append([*shares, float((extremes.masses[index] > mass).sum())])
    return {rule: np.array(rows) for rule, rows in found.items()}


def report(results: Sequence[Result], names: Sequence[str], *, fpr: float) -> None:
    """One row per group and map: means over subjects, the lowest and the highest subject in brackets."""
    rows = []
    for group in (OASIS, TRAINED, IXI):
        for name in names:
            chosen = [one for one in results if (one.group, one.name) == (group, name)]
            shares = [cell(chosen, [100 * one.shares[k] for one in chosen]) for k in range(len(RATES))]
            rows.append([group, name, *shares, cell(chosen, [one.candidates for one in chosen])])
    console.out("\nshare of voxels above the thresholds of healthy voxels, %; candidates per scan")
    titles = [f"nominal {rate:.1%}" for rate in RATES]
    console.table(["group", "map", *titles, f"candidates (nominal {fpr:g})"], rows)


def cell(results: Sequence[Result], values: Sequence[float]) -> str:
    """The mean over subjects of each one's mean, and the lowest and highest of these."""
    by_subject = defaultdict[str, list[float]](list)
    for one, value in zip(results, values, strict=True):
        by_subject[one.subject].append(value)
    means = [float(np.mean(some)) for some in by_subject.values()]
    return f"{np.mean(means):.2f} ({min(means):.2f} to {max(means):.2f})"


def report_p(
    results: Sequence[Result],
    names: Sequence[str],
    *,
    subjects: Sequence[str],
    splits: Sequence[frozenset[str]],
    always: int,
) -> None:
    """One row per group and map: how often p is the smallest possible, and how far p is from uniform."""
    rng, rows = np.random.default_rng(0), []
    by_chance = simulated(subjects, splits, always=always, rng=rng)
    for group in (OASIS, IXI):
        for name in names:
            chosen = [one for one in results if (one.group, one.name, one.first) == (group, name, True)]
            p, n = np.array([one.p for one in chosen]), chosen[0].n
            test = stats.kstest(smoothed(p, n, rng=rng), "uniform")
            least = float(np.isclose(p, 1 / (n + 1)).mean())
            alike = f"{(by_chance >= test.statistic).mean():.3f}" if group == OASIS else ""
            rows.append(
                [group, name, str(len(p)), f"{least:.3f}", f"{test.statistic:.3f}", f"{test.pvalue:.2g}", alike]
            )
    console.out(f"\np with n = {n}: values k/{n + 1}, the smallest {1 / (n + 1):.3f}")
    console.table(["group", "map", "values", "share at the smallest", "D", "p of D", "simulated"], rows)


def smoothed(p: NDArray[np.float64], n: int, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Conformal p minus a uniform number between 0 and 1/(n + 1): uniform for exchangeable scans."""
    return p - rng.random(p.shape) / (n + 1)


def simulated(
    subjects: Sequence[str], splits: Sequence[frozenset[str]], *, always: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """D of exchangeable scores, one per subject, in the same splits, `(SIMULATIONS,)`; `always` more in all of them."""
    split = np.array([[one in chosen for one in subjects] for chosen in splits])
    held_out = ~np.pad(split, ((0, 0), (0, always)), constant_values=True)
    n, found = int((~held_out[0]).sum()), []
    for _ in range(SIMULATIONS):
        scores = rng.random(len(subjects) + always)
        higher = (scores >= scores[:, None]) & ~held_out[:, None]  # by split, subject, subject of the Reference
        p = (1 + higher.sum(axis=2)[held_out]) / (n + 1)
        found.append(stats.kstest(smoothed(p, n, rng=rng), "uniform").statistic)
    return np.array(found)


if __name__ == "__main__":
    main()
