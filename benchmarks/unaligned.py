"""Anomaly maps of a model whose scans are not aligned: simulated lesions in crops around the hippocampus.

    python benchmarks/unaligned.py --model MODEL --list LIST [--cache FOLDER] [--maps NAME ...] [--set KEY=VALUE ...]
                                   [--choose]

LIST has the columns `scan`, `subject` and `split` (`calibrate`, `test`); the model was trained on others. For
development: no files are written except the cache of prepared scans. The healthy statistics of all maps are those of
the split `calibrate`; no scan is among those that it is compared with.

`--choose` evaluates the split `calibrate` with lesions that are ellipsoids: for choosing options and what the presets
use. The default evaluates the split `test` with lesions of real shapes, the largest pieces of masks of MS lesions. Each
scan gets one lesion of each kind (dark, bright, iso-intense) at a random place; the intensities are fitted again.

Per map: pooled voxel AP with its 95% bootstrap interval over subjects, and that of the paired difference to the first
map; the share of lesion voxels above the threshold that 0.5% of healthy voxels exceed; for the evaluated scans without
lesions the share of voxels above the thresholds of 0.5%, 1% and 5%; the seconds that it takes alone.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, get_args

import numpy as np
from maps import DATA, RATES, Healthy, prepared_scan, print_table, seconds
from scipy import ndimage

from medvae.checkpoint.folder import load
from medvae.cli import console
from medvae.cohort.find import find
from medvae.evaluation.metrics import ScanVoxels, compare
from medvae.io.formats import nifti
from medvae.prepare import intensity
from medvae.scan import Selection
from medvae.settings import ReadSettings
from medvae.simulate.lesions import Kind, implant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.scan import Shape

SHAPES = DATA / "ms-lesion-masks"
LEAST_ML, MOST_ML = 0.1, 3.0  # volumes of a lesion; a crop has about 130 mL


def main() -> None:
    """Print the tables."""
    options = parse()
    console.configure(quiet=True)
    model = load(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        place = options.cache or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        refs = find(Selection((options.list,)), model.settings.read).refs
        scans = [(one.split, prepared_scan(one, model, place / f"{one.id}.safetensors")) for one in refs]
    by_split = {split: [scan for own, scan in scans if own == split] for split in ("calibrate", "test")}
    healthy = Healthy.from_scans(model, by_split["calibrate"], names=options.maps, overrides=tuple(options.set))
    evaluated = by_split["calibrate" if options.choose else "test"]
    report_lesions(healthy, evaluated, real=not options.choose)
    report_healthy(healthy, evaluated)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="anomaly maps of a model whose scans are not aligned")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--list", type=Path, required=True, help="list of the scans with their split")
    parser.add_argument("--cache", type=Path, help="folder that keeps the prepared scans for the next run")
    parser.add_argument("--maps", nargs="+", help="names of the maps; all by default")
    parser.add_argument("--set", nargs="+", default=[], help="detect.options.MAP.OPTION=VALUE")
    parser.add_argument("--choose", action="store_true", help="calibration subjects and ellipsoids")
    return parser.parse_args()


def report_lesions(healthy: Healthy, scans: Sequence[Prepared], *, real: bool) -> None:
    """Tables of AP, of the first map's AP minus that of the others, and of lesion voxels above the threshold."""
    titles, aps, gains, shares = [], [], [], []
    first, *others = healthy.names
    limits = {
        (scan.subject, n): healthy.threshold(n, RATES[0], but=scan.subject) for scan in scans for n in healthy.names
    }
    for kind in get_args(Kind):
        made = list(lesions(healthy, scans, kind=kind, real=real))
        compared = compare(made, first)
        titles.append(f"{kind} ({compared.prevalence:.4f})")
        aps.append({name: str(one) for name, one in compared.ap.items()})
        gains.append({name: str(one) for name, one in compared.gain.items()})
        above = {n: [one.maps[n][one.truth] > limits[one.subject, n] for one in made] for n in healthy.names}
        shares.append({n: f"{np.concatenate(found).mean():.3f}" for n, found in above.items()})
    console.out(f"\nvoxel AP with 95% interval over {len(scans)} subjects, one lesion each; in brackets: prevalence")
    print_table(healthy.names, titles, aps)
    console.out(f"\nvoxel AP of {first} less that of each map, paired")
    print_table(others, titles, gains)
    console.out("\nshare of lesion voxels above the threshold of 0.5% of healthy voxels")
    print_table(healthy.names, titles, shares)


def lesions(healthy: Healthy, scans: Sequence[Prepared], *, kind: Kind, real: bool) -> Iterator[ScanVoxels]:
    """Truth and maps of each scan with a lesion."""
    pieces = list(real_pieces()) if real else []
    for number, scan in enumerate(scans):
        rng = np.random.default_rng(number)
        piece = pieces[number % len(pieces)] if real else ellipsoid(rng)
        ill, truth = with_lesion(scan, placed(piece, scan.grid.shape, rng=rng), healthy.model, kind=kind)
        yield ScanVoxels(scan.subject, truth[scan.mask[0]], healthy.of(ill))


def real_pieces() -> Iterator[NDArray[np.bool_]]:
    """The largest piece of each mask that has a volume in the range, on voxels of 1 mm."""
    for path in sorted(SHAPES.glob("*.nii.gz")):
        data, geometry = nifti.read_values(path, ReadSettings())
        fine = ndimage.zoom((data > 0).astype(np.float32), geometry.spacing, order=1) >= 0.5
        labels, _ = ndimage.label(fine)
        sizes = np.bincount(labels.ravel())[1:] / 1000
        sizes[(sizes < LEAST_ML) | (sizes > MOST_ML)] = 0
        if sizes.any():
            largest = labels == 1 + sizes.argmax()
            yield largest[ndimage.find_objects(largest.astype(int))[0]]


def ellipsoid(rng: np.random.Generator) -> NDArray[np.bool_]:
    """With half axes of 3 to 9 mm."""
    half = rng.uniform(3, 9, size=3)
    axes = np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij")
    inside: NDArray[np.bool_] = sum((x / h) ** 2 for x, h in zip(axes, half, strict=True)) <= 1
    return inside[ndimage.find_objects(inside.astype(int))[0]]


def placed(piece: NDArray[np.bool_], shape: Shape, *, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A piece at a random place of a grid, in its middle half."""
    result = np.zeros(shape, bool)
    cut = piece[tuple(slice(0, n // 2) for n in shape)]
    at = [int(rng.integers(n // 4, max(n // 4 + 1, 3 * n // 4 - m))) for n, m in zip(shape, cut.shape, strict=True)]
    result[tuple(slice(i, i + m) for i, m in zip(at, cut.shape, strict=True))] = cut
    return result


def with_lesion(
    scan: Prepared, shape: NDArray[np.bool_], model: Model, *, kind: Kind
) -> tuple[Prepared, NDArray[np.bool_]]:
    """A prepared scan with a lesion, as it would be prepared with it, and the truth."""
    inside = scan.mask[0]
    made = implant(scan.image[0], shape, foreground=inside, spacing=scan.grid.spacing, kind=kind)
    scale = intensity.fit(made.image, inside, settings=model.preparation.settings)
    return replace(scan, image=scale.apply(made.image)[None], source_hash=f"{scan.source_hash}-{kind}"), made.truth


def report_healthy(healthy: Healthy, scans: Sequence[Prepared]) -> None:
    """Healthy voxels of the evaluated scans above each threshold, and seconds per map."""
    columns = []
    found = {scan.subject: healthy.of(scan) for scan in scans}
    for rate in RATES:
        above = {
            n: np.mean([(one[n] > healthy.threshold(n, rate, but=who)).mean() for who, one in found.items()])
            for n in healthy.names
        }
        columns.append({n: f"{100 * one:.2f}%" for n, one in above.items()})
    times = {name: median(seconds(healthy, name, scan) for scan in scans[:3]) for name in healthy.methods}
    columns.append({name: f"{times[name]:.2f}" if name in times else "" for name in healthy.names})
    console.out("\nshare of voxels of the scans without lesions above each threshold; seconds of the map alone")
    print_table(healthy.names, [*(f"{rate:.1%}" for rate in RATES), "s"], columns)


if __name__ == "__main__":
    main()
