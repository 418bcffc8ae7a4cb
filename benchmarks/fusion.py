"""The weights of the map `fused`: chosen on simulated anomalies, and how well they do.

    python benchmarks/fusion.py --model MODEL [--data FOLDER] [--cache FOLDER] [--per K] [--maps NAME ...]

Anomalies of `medvae.simulate.anomalies` (tumours with swelling and displaced tissue; spots, dark and bright; darker
white matter on both sides) are put into the subjects of the split `calibrate` of `brains-t1`, half of them with the
intensities of another scanner (`simulate.scanners`). Scans are then prepared as a file would be: receive field,
intensities. No scan is compared with a healthy mean and spread that contain it; how rare a value is, and the threshold,
come from the healthy maps of all subjects, its own included.

Weights are chosen among 0, 1/4, 1/2 and 1 by coordinate ascent from those of `fused`; the maps that count alone in it
stay. The criterion is the mean over kinds of ln AP + ½ ln (s + 0.01), each minus that of `asymmetry` alone: pooled
voxel AP, and the share s of anomalous voxels above the threshold that 0.5% of healthy voxels exceed.

Printed: the weights, and for `fused`, for `fused` with these weights, the harmonic mean p-value and each witness: AP
and s per kind of anomaly, for the subjects that the choice has seen, and for brains of a second site with anomalies.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from maps import DATA, Healthy, prepared_scans
from sklearn.metrics import average_precision_score

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import _fused, fused
from medvae.checkpoint.folder import load
from medvae.cli import console
from medvae.prepare import intensity
from medvae.prepare.field import receive_field
from medvae.simulate.anomalies import KINDS, add_anomaly
from medvae.simulate.scanners import CHANGES, changed_by_scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.simulate.anomalies import Kind
    from medvae.simulate.scanners import Change

    Values = NDArray[np.float32]
    Combine = Callable[["Case"], Values]

RATE = 0.005  # of healthy voxels
SEED = 11
TRIED, GAIN = (0.0, 0.25, 0.5, 1.0), 0.004  # weights, and the least gain that a change needs
THIN = 16  # one in this many healthy voxels is used while weights are chosen
FIRST = "asymmetry"  # the best one alone, with weight 1
HEALTHY = "healthy"


@dataclass(frozen=True, eq=False)
class Case:
    """The foreground voxels of a scan: truth, and −ln P of each witness, `(n, witnesses)`.

    Attributes:
        stands_for: how many healthy voxels each healthy one stands for.
    """

    subject: str
    kind: str
    truth: NDArray[np.bool_] = field(repr=False)
    features: NDArray[np.float16] = field(repr=False)
    stands_for: int = 1

    def thinned(self) -> Case:
        """All anomalous voxels, and one in `THIN` healthy ones, which stands for as many."""
        kept = self.truth | (np.arange(self.truth.size) % THIN == 0)
        return replace(self, truth=self.truth[kept], features=self.features[kept], stands_for=THIN)


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
    alone = [options.maps.index(name) for name in fused.ALONE]
    weights = chosen([one.thinned() for one in own], options.maps, alone)
    console.out(", ".join(f"{name} {weight:g}" for name, weight in zip(options.maps, weights, strict=True)))
    kept = np.array([fused.WEIGHTS.get(name, 0.0) for name in options.maps])
    maps = {"fused": soft(kept, alone), "fused, these weights": soft(weights, alone), "harmonic mean p": harmonic}
    maps |= {name: weighted(one) for name, one in zip(options.maps, np.eye(len(options.maps)), strict=True)}
    report("calibration subjects, on which the weights were chosen", own, own, maps)
    report("second site", other, own, maps)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="weights of the map fused, from simulated anomalies")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1 and brains-t1-site2")
    parser.add_argument("--cache", type=Path, help="folder that keeps the prepared scans for the next run")
    parser.add_argument("--per", type=int, default=8, help="anomalies per subject")
    parser.add_argument("--maps", nargs="+", default=[*fused.Map.USES, "atlas", "residual_z"], help="witnesses")
    return parser.parse_args()


class Witnesses:
    """The witnesses of a model for a scan, compared with all healthy subjects but its own."""

    def __init__(self, model: Model, healthy: Sequence[Prepared], names: Sequence[str]) -> None:
        self.model, self.names = model, names
        self.healthy = Healthy.from_scans(model, healthy, names=names, overrides=())
        self.tails = {name: self._tail(name) for name in names}

    def cases(self, scans: Sequence[Prepared], *, count: int) -> Iterator[Case]:
        """Each scan as it is, and with anomalies: all kinds as they are, then all as by another scanner, and so on."""
        for place, scan in enumerate(scans):
            yield self._case(scan, np.zeros(scan.mask[0].shape, bool), HEALTHY)
            for number in range(count):
                rng = np.random.default_rng([SEED, place, number])
                kind = KINDS[number % len(KINDS)]
                ill, truth = self._ill(
                    scan, kind, CHANGES[int(rng.integers(1, len(CHANGES))) if number // len(KINDS) % 2 else 0], rng
                )
                yield self._case(replace(ill, source_hash=f"{scan.source_hash}-{number}"), truth, kind)

    def _ill(
        self, scan: Prepared, kind: Kind, change: Change, rng: np.random.Generator
    ) -> tuple[Prepared, NDArray[np.bool_]]:
        """A scan with an anomaly, prepared as its file would be, and the truth."""
        inside, spacing = scan.mask[0], scan.grid.spacing
        made = add_anomaly(scan.image[0], inside, kind=kind, spacing=spacing, rng=rng)
        image = changed_by_scanner(made.image, inside, change=change, spacing=spacing, rng=rng)
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
        deep = _fused.within(inside, spacing=scan.grid.spacing)
        rows = [np.interp(maps[name].values[deep], ends, self.tails[name]) for name in self.names]
        return Case(scan.subject, kind, truth[deep], np.stack(rows, axis=1).astype(np.float16))

    def _tail(self, name: str) -> NDArray[np.float64]:
        """−ln P of a witness, from the healthy maps of all subjects, each compared with the others."""
        counts = sum(_fused._counts(maps[name]) for maps in self.healthy.maps.values())
        return _fused._surprise(np.asarray(counts, np.float64))


def chosen(cases: Sequence[Case], names: Sequence[str], alone: Sequence[int]) -> NDArray[np.float64]:
    """Weights by coordinate ascent; the maps in the columns `alone` count alone, too."""
    weights = np.array([fused.WEIGHTS.get(name, 0.0) for name in names])
    plain = weighted(np.array([float(name == FIRST) for name in names]))
    best, improved = worth(cases, soft(weights, alone), plain), True
    while improved:
        improved = False
        for place, name in enumerate(names):
            for weight in TRIED if name != FIRST else ():
                changed = np.where(np.arange(len(names)) == place, weight, weights)
                value = worth(cases, soft(changed, alone), plain)
                if value > best + GAIN:
                    weights, best, improved = changed, value, True
    return weights


def worth(cases: Sequence[Case], combine: Combine, first: Combine) -> float:
    """The criterion that the choice of weights maximises."""
    gains = []
    for kind in KINDS:
        ours, plain = (figures(cases, cases, kind, one) for one in (combine, first))
        gains.append(np.log(ours[0] / plain[0]) + np.log((ours[1] + 0.01) / (plain[1] + 0.01)) / 2)
    return float(np.mean(gains))


def figures(cases: Sequence[Case], healthy: Sequence[Case], kind: str, combine: Combine) -> tuple[float, float]:
    """Pooled AP of a kind, and the share of its voxels above the healthy threshold; 0 where there is none of it."""
    some = [one for one in cases if one.kind == kind]
    if not some:
        return 0.0, 0.0
    values, truth = np.concatenate([combine(one) for one in some]), np.concatenate([one.truth for one in some])
    counted = np.concatenate([np.where(one.truth, 1, one.stands_for) for one in some])
    ap = float(average_precision_score(truth, values, sample_weight=counted))
    return ap, float((values[truth] > limit_of(healthy, combine)).mean())


def limit_of(cases: Sequence[Case], combine: Combine) -> float:
    """The threshold that 0.5% of healthy voxels exceed."""
    return float(np.quantile(np.concatenate([combine(one) for one in cases if one.kind == HEALTHY]), 1 - RATE))


def weighted(weights: NDArray[np.float64]) -> Combine:
    """The weighted sum of the witnesses."""
    return lambda case: case.features.astype(np.float32) @ weights.astype(np.float32)


def harmonic(case: Case) -> Values:
    """−ln of the harmonic mean of all P."""
    return _fused.soft_maximum(list(case.features.astype(np.float32).T))


def soft(weights: NDArray[np.float64], alone: Sequence[int]) -> Combine:
    """The soft maximum of a weighted sum and of the witnesses in some columns."""
    total = weighted(weights)
    return lambda case: _fused.soft_maximum(
        [total(case), *(case.features[:, column].astype(np.float32) for column in alone)]
    )


def report(title: str, cases: Sequence[Case], healthy: Sequence[Case], maps: Mapping[str, Combine]) -> None:
    """A row per map, a column per kind; healthy voxels of these scans above the threshold."""
    rows = []
    for name, combine in maps.items():
        usual = np.concatenate([combine(one) for one in cases if one.kind == HEALTHY])
        cells = ("{:.3f} {:.2f}".format(*figures(cases, healthy, kind, combine)) for kind in KINDS)
        rows.append([name, *cells, f"{(usual > limit_of(healthy, combine)).mean():.4f}"])
    console.out(f"\n{title}: AP, and share of anomalous voxels above the threshold of {RATE:.1%} of healthy voxels")
    console.table(["map", *(f"{kind} ({_prevalence(cases, kind):.3f})" for kind in KINDS), HEALTHY], rows)


def _prevalence(cases: Sequence[Case], kind: str) -> float:
    some = [one.truth for one in cases if one.kind == kind]
    return float(np.concatenate(some).mean()) if some else 0.0


if __name__ == "__main__":
    main()
