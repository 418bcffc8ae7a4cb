"""The weights of the map `fused`: fitted to simulated anomalies, and what they are worth.

    python benchmarks/fusion.py --model MODEL [--data FOLDER] [--cache FOLDER] [--per K] [--maps NAME ...]

Anomalies of `medvae.simulate.anomalies` (tumours with swelling and displaced tissue; spots) are put into the subjects
of the split `calibrate` of `brains-t1`, on half of them with the intensities of another scanner (`simulate.scanners`).
Scans are then prepared as a file would be: receive field, intensities. No scan is compared with healthy statistics that
contain it. The features of a voxel are −ln P of each witness, smoothed at each scale of the map; the weights are those
of a logistic regression without negative weights, the same total weight for each scan with an anomaly.

Printed: the weights, to be copied into `medvae/anomaly/maps/fused.py`; pooled voxel AP per kind of anomaly with the
weights of the other subjects (leave one subject out), of the harmonic mean p-value and of each witness; the same for
brains of a second site, with the weights of all; and the share of voxels above the threshold that 0.5% of the healthy
voxels of the calibration subjects exceed.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from maps import DATA, Healthy, prepared_scans
from scipy.optimize import minimize

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import _fused, fused
from medvae.anomaly.maps._shared import smooth_inside
from medvae.checkpoint.folder import load
from medvae.cli import console
from medvae.evaluation.metrics import average_precision
from medvae.prepare import intensity
from medvae.prepare.field import receive_field
from medvae.simulate.anomalies import KINDS, add_anomaly
from medvae.simulate.scanners import CHANGES, changed_by_scanner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = NDArray[np.float32]

RATE = 0.005  # of healthy voxels
SEED, STEPS = 11, 60
VOXELS = (800, 2500)  # anomalous and healthy ones of a scan that the fit sees
PRIOR, PENALTY = 0.05, 1e-3  # total weight of anomalous voxels to that of healthy ones; of the squared weights
HEALTHY = "healthy"


@dataclass(frozen=True, eq=False)
class Case:
    """The foreground voxels of a scan: truth, and −ln P of each witness at each scale, `(n, witnesses × scales)`."""

    subject: str
    kind: str
    truth: NDArray[np.bool_] = field(repr=False)
    features: NDArray[np.float16] = field(repr=False)


def main() -> None:
    """Fit, and print the tables."""
    options = parse()
    console.configure(quiet=True)
    model = load(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        scans = prepared_scans(model, options.data, options.cache or Path(scratch))
    witnesses = Witnesses(model, scans["calibrate"], options.maps)
    own = list(witnesses.cases(scans["calibrate"], count=options.per))
    other = list(witnesses.cases(scans["site2"], count=options.per))
    names = [(name, mm) for name in options.maps for mm in fused.SCALES_MM]
    everyone = fitted(own)
    for name in options.maps:
        found = (f"{w:.3f}" for (one, _), w in zip(names, everyone, strict=True) if one == name)
        console.out(f"{name}: ({', '.join(found)})")
    without = {subject: fitted([one for one in own if one.subject != subject]) for subject in {c.subject for c in own}}
    report("calibration subjects, each with the weights of the others", own, own, options.maps, without)
    report("second site", other, own, options.maps, dict.fromkeys({one.subject for one in other}, everyone) | without)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="weights of the map fused, from simulated anomalies")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1 and brains-t1-site2")
    parser.add_argument("--cache", type=Path, help="folder that keeps the prepared scans for the next run")
    parser.add_argument("--per", type=int, default=10, help="anomalies per subject")
    parser.add_argument("--maps", nargs="+", default=list(fused.WEIGHTS), help="witnesses")
    return parser.parse_args()


class Witnesses:
    """What the witnesses of a model say of a scan, compared with the healthy subjects but itself."""

    def __init__(self, model: Model, healthy: Sequence[Prepared], names: Sequence[str]) -> None:
        self.model, self.names = model, names
        self.healthy = Healthy.from_scans(model, healthy, names=names, overrides=())
        self.tails = {name: self._tail(name) for name in names}

    def cases(self, scans: Sequence[Prepared], *, count: int) -> Iterator[Case]:
        """Each scan as it is, and with anomalies; every other one as by another scanner."""
        for place, scan in enumerate(scans):
            yield self._case(scan, np.zeros(scan.mask[0].shape, bool), HEALTHY)
            for number in range(count):
                rng = np.random.default_rng([SEED, place, number])
                kind = KINDS[int(rng.integers(len(KINDS)))]
                ill, truth = self._ill(scan, kind, CHANGES[int(rng.integers(len(CHANGES))) if number % 2 else 0], rng)
                yield self._case(replace(ill, source_hash=f"{scan.source_hash}-{number}"), truth, kind)

    def _ill(
        self, scan: Prepared, kind: str, change: str, rng: np.random.Generator
    ) -> tuple[Prepared, NDArray[np.bool_]]:
        """A scan with an anomaly, prepared as its file would be, and the truth."""
        inside, spacing = scan.mask[0], scan.grid.spacing
        made = add_anomaly(scan.image[0], inside, kind=kind, spacing=spacing, rng=rng)  # type: ignore[arg-type]
        image = changed_by_scanner(made.image, inside, change=change, spacing=spacing, rng=rng)  # type: ignore[arg-type]
        values = np.maximum(scan.intensity.invert(image), 0)
        factor = receive_field(values, inside, spacing=spacing)
        if factor is not None and self.model.preparation.settings.field == "n4":
            values = values / factor
        scale = intensity.fit(values, inside, settings=self.model.preparation.settings)
        image = np.where(inside, scale.apply(values), np.float32(scale.background))
        return replace(scan, image=image[None], intensity=scale), made.truth

    def _case(self, scan: Prepared, truth: NDArray[np.bool_], kind: str) -> Case:
        maps = ScanMaps(
            infer(self.model, scan),
            self.healthy.methods,
            arrays=self.healthy.without.get(scan.subject, self.healthy.arrays),
        )
        inside, ends = scan.mask[0], _fused._LOWEST + np.arange(_fused._STEPS) * _fused._STEP
        rows = []
        for name in self.names:
            surprise = np.zeros(inside.shape, np.float32)
            surprise[inside] = np.interp(maps[name].values[inside], ends, self.tails[name])
            rows += [smooth_inside(surprise, inside, spacing=scan.grid.spacing, mm=mm) for mm in fused.SCALES_MM]
        deep = _fused.within(inside, spacing=scan.grid.spacing)
        features = np.stack([row[deep] for row in rows], axis=1).astype(np.float16)
        return Case(scan.subject, kind, truth[deep], features)

    def _tail(self, name: str) -> NDArray[np.float64]:
        """−ln P of a witness, from the healthy maps of all subjects, each compared with the others."""
        counts = sum(_fused._counts(maps[name]) for maps in self.healthy.maps.values())
        return _fused._surprise(np.asarray(counts, np.float64))


def fitted(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Weights of a logistic regression, none negative, for features as they are."""
    rng, rows, truths, weights = np.random.default_rng(0), [], [], []
    for case in cases:
        for there, most in zip((case.truth, ~case.truth), VOXELS, strict=True):
            places = np.flatnonzero(there)
            chosen = rng.choice(places, min(most, len(places)), replace=False)
            rows.append(case.features[chosen].astype(np.float64))
            truths.append(case.truth[chosen])
            share = np.sqrt(len(places)) if there is case.truth else 1.0  # a large anomaly counts more, but not as much
            weights.append(np.full(len(chosen), share / max(len(chosen), 1)))
    x, truth, weight = np.concatenate(rows), np.concatenate(truths), np.concatenate(weights)
    weight[truth] *= PRIOR * weight[~truth].sum() / weight[truth].sum()
    weight /= weight.sum()
    spread = x.std(axis=0)
    x /= spread

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds, w = x @ parameters[1:] + parameters[0], parameters[1:]
        error = weight * (1 / (1 + np.exp(-odds)) - truth)
        value = (weight * (np.logaddexp(0, odds) - truth * odds)).sum() + PENALTY * (w**2).sum()
        return float(value), np.concatenate([[error.sum()], x.T @ error + 2 * PENALTY * w])

    start = np.concatenate([[-3.0], np.full(x.shape[1], 0.1)])
    bounds = [(None, None), *[(0, None)] * x.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return np.asarray(found.x[1:] / spread)


def report(
    title: str,
    cases: Sequence[Case],
    healthy: Sequence[Case],
    witnesses: Sequence[str],
    weights: Mapping[str, NDArray[np.float64]],
) -> None:
    """AP and share of anomalous voxels above the threshold, by kind; healthy voxels of these scans above it."""
    step, rows = len(fused.SCALES_MM), []
    maps = {"weighted": None, "harmonic mean p": None, **{name: i * step for i, name in enumerate(witnesses)}}
    for name, column in maps.items():
        usual = [score(one, name, column, weights) for one in healthy if one.kind == HEALTHY]
        limit = float(np.quantile(np.concatenate(usual), 1 - RATE))
        cells = []
        for kind in (*KINDS, HEALTHY):
            some = [one for one in cases if one.kind == kind]
            values = np.concatenate([score(one, name, column, weights) for one in some] or [np.zeros(1)])
            truth = np.concatenate([one.truth for one in some] or [np.zeros(1, bool)])
            above = values[~truth if kind == HEALTHY else truth] > limit
            cells.append(f"{above.mean():.4f}" if kind == HEALTHY else f"{_ap(truth, values)} {above.mean():.2f}")
        rows.append([name, *cells])
    console.out(f"\n{title}: AP, and share of anomalous voxels above the threshold of {RATE:.1%} of healthy voxels")
    console.table(["map", *(f"{kind} ({_prevalence(cases, kind):.3f})" for kind in KINDS), HEALTHY], rows)


def _ap(truth: NDArray[np.bool_], values: NDArray[np.float64]) -> str:
    return f"{average_precision(truth, values.astype(np.float32)):.3f}" if truth.any() else "-"


def _prevalence(cases: Sequence[Case], kind: str) -> float:
    some = [one.truth for one in cases if one.kind == kind]
    return float(np.concatenate(some).mean()) if some else 0.0


def score(case: Case, name: str, column: int | None, weights: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """One map of a scan, from its features."""
    features = case.features.astype(np.float64)
    if column is not None:
        return features[:, column]
    if name == "weighted":
        return features @ weights[case.subject]
    plain = features[:, :: len(fused.SCALES_MM)]
    highest = plain.max(axis=1)
    return highest + np.log(np.exp(plain - highest[:, None]).mean(axis=1))


if __name__ == "__main__":
    main()
