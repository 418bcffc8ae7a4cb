"""All anomaly maps side by side, on prepared scans: simulated lesions in held-out brains, and healthy brains of a
second site.

    python benchmarks/maps.py --model MODEL [--beside MODEL ...] [--data FOLDER] [--cache FOLDER] [--maps NAME ...]
                              [--set KEY=VALUE ...] [--choose] [--shapes K]

For development: no files are written except the cache of prepared scans. Lesions (stroke and MS shapes; dark, bright,
iso-intense) are implanted on the model's grid, and the intensities are fitted again. Maps are computed by the functions
of `detect`. A scan is never compared with statistics that contain it: the healthy statistics of its maps are those of
all other held-out subjects (cross-fitting).

`--choose` evaluates the subjects of the split `calibrate`, each with the healthy statistics of the other four, and the
shapes of odd rank by volume: for choosing options. The default evaluates the subjects of the split `test`, each with
those of the other nine, and the shapes of even rank.

`--beside` adds the maps of other models, each with its own healthy statistics, on the same lesions: every difference to
the first map is paired. The models must prepare scans alike.

With `fused` come the same map without each of its witnesses, and with `atlas` the same map smoothed by 6 mm. Per map:
pooled voxel AP with its 95% bootstrap interval over subjects, and that of the paired difference to the first map; the
share of lesion voxels above the threshold that 0.5% of the voxels of the other healthy scans exceed; for five healthy
brains of a second site the share of voxels above the thresholds of 0.5%, 1% and 5%; the seconds that it takes alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, get_args

import numpy as np

from medvae.anomaly.anomaly_map import ScanMaps
from medvae.anomaly.calibrate import Statistics
from medvae.anomaly.configured import configured, usable
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import _fused
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.options import check_options, training_statistics
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli import console
from medvae.cohort.find import find
from medvae.evaluation.metrics import ScanVoxels, compare
from medvae.prepare import intensity
from medvae.prepare.load import ReadAndPrepare
from medvae.scan import Selection
from medvae.settings import adjust
from medvae.simulate.lesions import Kind, implant, shape_on, spread_by_volume
from medvae.training.store import fetch, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, BaseMap
    from medvae.anomaly.inference import Inference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.scan import ScanRef
    from medvae.settings import PrepareSettings

    Values = Mapping[str, NDArray[np.float32]]  # of the foreground voxels of a scan, by map

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPES = {"stroke": "stroke-lesion-masks", "MS": "ms-lesion-masks"}
RATES = (0.005, 0.01, 0.05)  # of healthy voxels
GATHERED, GATHERED_MM = "atlas, 6 mm", 6.0  # the largest of the scales of residual_z


def main() -> None:
    """Print the tables."""
    options = parse()
    console.configure(quiet=True)
    begun = time.monotonic()
    models = {"": load(options.model), **{f", {path}": load(path) for path in options.beside}}
    first, *others = models.values()
    if any(other.preparation.hash != first.preparation.hash for other in others):
        raise SystemExit("the models prepare scans in different ways")
    with tempfile.TemporaryDirectory() as scratch:
        scans = prepared_scans(first, options.data, options.cache or Path(scratch))
    held_out = scans["calibrate"] if options.choose else [*scans["calibrate"], *scans["test"]]
    asked = {"names": options.maps, "overrides": tuple(options.set)}
    healthy = [Healthy.from_scans(model, held_out, suffix=suffix, **asked) for suffix, model in models.items()]
    evaluated = scans["calibrate" if options.choose else "test"]
    report_lesions(healthy, evaluated, options.data, count=options.shapes, rank=0 if options.choose else 1)
    report_site(healthy, scans["site2"])
    console.out(f"\n{time.monotonic() - begun:.0f} s")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="anomaly maps side by side: simulated lesions, a second site")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="other model folders")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1 and the folders of masks")
    parser.add_argument("--cache", type=Path, help="folder that keeps the prepared scans for the next run")
    parser.add_argument("--maps", nargs="+", help="names of the maps; all by default")
    parser.add_argument("--set", nargs="+", default=[], help="detect.options.MAP.OPTION=VALUE")
    parser.add_argument("--choose", action="store_true", help="calibration subjects and the other half of the shapes")
    parser.add_argument("--shapes", type=int, default=3, help="shapes of each set per subject")
    return parser.parse_args()


def prepared_scans(model: Model, data: Path, cache: Path) -> dict[str, list[Prepared]]:
    """The held-out scans by split, and the second site's, prepared for the model; kept in the cache."""
    place = cache / model.preparation.hash[:16]
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Prepared]] = {"calibrate": [], "test": [], "site2": []}
    rows = find(Selection((data / "brains-t1" / "split.csv",)), model.settings.read).refs
    other = find(Selection((data / "brains-t1-site2",), include=("*_t1_mni2mm.nii.gz", "*-t1_mni2mm.nii.gz")))
    for ref in (*rows, *other.refs):
        split = ref.split or "site2"
        if split in found:
            found[split].append(prepared_scan(ref, model, place / f"{ref.id}.safetensors"))
    return found


def prepared_scan(ref: ScanRef, model: Model, file: Path) -> Prepared:
    """A prepared scan, from the cache where it is there."""
    if not file.is_file():
        store(ReadAndPrepare(model.settings.read, model.preparation)(ref).prepared, file)
    return fetch(file)


@dataclass(frozen=True, eq=False)
class Healthy:
    """The healthy statistics of all maps of a model, each subject left out in turn.

    Attributes:
        model: with the statistics of its training scans.
        methods: the maps; used ones before those that use them.
        arrays: of all healthy scans, by map.
        without: by subject, those of all others.
        maps: by subject, its own healthy maps compared with all others.
        asked: the maps to report, the first one first.
        draws: of the posterior, as for the maps of `maps`.
        suffix: after the names of its maps in `maps`, `of` and the tables.
    """

    model: Model
    methods: Mapping[str, BaseMap]
    arrays: Mapping[str, Arrays] = field(repr=False)
    without: Mapping[str, Mapping[str, Arrays]] = field(repr=False)
    maps: Mapping[str, Values] = field(repr=False)
    asked: Sequence[str]
    draws: int
    suffix: str

    @classmethod
    def from_scans(
        cls,
        model: Model,
        scans: Sequence[Prepared],
        *,
        names: Sequence[str] | None,
        overrides: tuple[str, ...],
        suffix: str = "",
    ) -> Healthy:
        """Sum up the scans, and take each of them out again."""
        detect = adjust(model.settings, None, overrides, uses=("detect",)).detect
        first = model.settings.detect.maps[0]
        names = names or sorted(usable(model), key=lambda name: name != first)
        methods = configured(names, detect.options)
        check_options(model, detect, names=list(methods))
        before, kept = model.settings.detect, reference_of(model).training
        training = training_statistics(kept, methods, detect=detect, before=before)
        statistics = Statistics(methods, model.preparation.grid.spacing, training)
        inferences = {one.subject: infer(model, one, draws=detect.draws) for one in scans}
        for some in statistics.passes():
            for inference in inferences.values():
                statistics.add(inference, some)
            statistics.fit(some)
        without = {subject: statistics.without(inference) for subject, inference in inferences.items()}
        self = cls(model, methods, statistics.arrays, without, {}, names, detect.draws, suffix)
        return replace(self, maps={subject: self._values(one, without[subject]) for subject, one in inferences.items()})

    @property
    def names(self) -> list[str]:
        """Of the maps to report, with the suffix."""
        return list(next(iter(self.maps.values())))

    def of(self, scan: Prepared) -> Values:
        """The maps of a scan, compared with all healthy subjects but its own."""
        return self._values(infer(self.model, scan, draws=self.draws), self.without.get(scan.subject, self.arrays))

    def _values(self, inference: Inference, arrays: Mapping[str, Arrays]) -> Values:
        found = values_of(self.asked, inference, self.methods, arrays)
        return {name + self.suffix: values for name, values in found.items()}

    def threshold(self, name: str, rate: float, *, but: str = "") -> float:
        """The value that this share of the voxels of the healthy scans exceed, those of one subject left out."""
        values = [maps[name] for subject, maps in self.maps.items() if subject != but]
        return float(np.quantile(np.concatenate(values), 1 - rate))


def values_of(
    names: Sequence[str], inference: Inference, methods: Mapping[str, BaseMap], arrays: Mapping[str, Arrays]
) -> Values:
    """The foreground values of the maps of one scan; not divided by their scale, which is one number per map."""
    maps = ScanMaps(inference, methods, arrays=arrays)
    inside, spacing = inference.foreground, inference.prepared.grid.spacing
    found = {name: maps[name].values[inside] for name in names if name in methods}
    if "atlas" in names:
        found[GATHERED] = smooth_inside(maps["atlas"].values, inside, spacing=spacing, mm=GATHERED_MM)[inside]
    for name in names:
        if isinstance(methods.get(name), _fused.Fused):
            found |= without_each(name, inference, methods, maps)
    return found


def without_each(name: str, inference: Inference, methods: Mapping[str, BaseMap], maps: ScanMaps) -> Values:
    """A fused map without each of its witnesses."""
    method, arrays = methods[name], maps.arrays[name]
    assert isinstance(method, _fused.Fused)
    surprises = method.surprises(inference, arrays)
    inside = inference.foreground
    deep = _fused.within(inside, spacing=inference.prepared.grid.spacing)[inside]
    rest = {left: {other: one for other, one in surprises.items() if other != left} for left in surprises}
    return {f"{name} without {left}": deep * method.combine(some, inference)[inside] for left, some in rest.items()}


def report_lesions(healthy: Sequence[Healthy], scans: Sequence[Prepared], data: Path, *, count: int, rank: int) -> None:
    """Tables of AP, of the first map's AP minus that of the others, and of lesion voxels above the threshold.

    A row per map of each model, a column per set of shapes and kind of filling.
    """
    titles, aps, gains, shares = [], [], [], []
    limits = {(s.subject, n): h.threshold(n, RATES[0], but=s.subject) for s in scans for h in healthy for n in h.names}
    names = [name for one in healthy for name in one.names]
    first, *others = names
    for shapes, folder in SHAPES.items():
        chosen = chosen_shapes(data / folder, count * len(scans), rank=rank)
        for kind in get_args(Kind):
            made = list(lesions(healthy, scans, chosen, kind=kind))
            compared = compare(made, first)
            titles.append(f"{shapes} {kind} ({compared.prevalence:.4f})")
            aps.append({name: str(one) for name, one in compared.ap.items()})
            gains.append({name: str(one) for name, one in compared.gain.items()})
            above = {n: [one.maps[n][one.truth] > limits[one.subject, n] for one in made] for n in names}
            shares.append({n: f"{np.concatenate(found).mean():.4f}" for n, found in above.items()})
    many = f"{count * len(scans)} lesions in {len(scans)} subjects; in brackets: prevalence"
    console.out(f"\nvoxel AP with 95% interval over subjects ({many})")
    print_table(names, titles, aps)
    console.out(f"\nvoxel AP of {first} less that of each map, paired")
    print_table(others, titles, gains)
    console.out("\nshare of lesion voxels above the threshold of 0.5% of healthy voxels")
    print_table(names, titles, shares)


def chosen_shapes(folder: Path, count: int, *, rank: int) -> list[Path]:
    """This many of the shapes of odd (`rank` 0) or even (1) rank by volume, evenly spread."""
    every = sorted(folder.glob("*.nii.gz"))
    ranked = spread_by_volume(every, len(every))[rank::2]
    return [ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count)]


def lesions(
    healthy: Sequence[Healthy], scans: Sequence[Prepared], shapes: Sequence[Path], *, kind: Kind
) -> Iterator[ScanVoxels]:
    """Truth and maps of each scan with a lesion; the shapes are dealt out to the subjects in turn."""
    settings = healthy[0].model.preparation.settings
    for place, scan in enumerate(scans):
        for path in shapes[place :: len(scans)]:
            ill, truth = with_lesion(scan, path, settings, kind=kind)
            yield ScanVoxels(scan.subject, truth[scan.mask[0]], of_all(healthy, ill))


def with_lesion(
    scan: Prepared, shape: Path, settings: PrepareSettings, *, kind: Kind
) -> tuple[Prepared, NDArray[np.bool_]]:
    """A prepared scan with a lesion, as it would be prepared with it, and the truth."""
    inside, grid = scan.mask[0], scan.grid
    made = implant(scan.image[0], shape_on(shape, grid), foreground=inside, spacing=grid.spacing, kind=kind)
    scale = intensity.fit(made.image, inside, settings=settings)
    image = np.where(inside, scale.apply(made.image), np.float32(scale.background))
    return replace(scan, image=image[None], source_hash=f"{scan.source_hash}-{shape.name}-{kind}"), made.truth


def of_all(healthy: Sequence[Healthy], scan: Prepared) -> Values:
    """The maps of a scan by all models."""
    return {name: values for one in healthy for name, values in one.of(scan).items()}


def report_site(healthy: Sequence[Healthy], scans: Sequence[Prepared]) -> None:
    """Healthy voxels of the second site above the thresholds of the first one, and seconds per map."""
    found = [of_all(healthy, scan) for scan in scans]
    columns, names = [], list(found[0])
    for rate in RATES:
        limits = {name: one.threshold(name, rate) for one in healthy for name in one.names}
        above = {n: np.concatenate([one[n] for one in found]) > limit for n, limit in limits.items()}
        columns.append({n: f"{one.mean():.4f}" for n, one in above.items()})
    times = {n + h.suffix: median(seconds(h, n, scan) for scan in scans) for h in healthy for n in h.methods}
    columns.append({name: f"{times[name]:.2f}" if name in times else "" for name in names})
    console.out("\nshare of healthy voxels of the second site above each threshold; seconds of the map alone")
    print_table(names, [*(f"{rate:.1%}" for rate in RATES), "s"], columns)


def seconds(healthy: Healthy, name: str, scan: Prepared) -> float:
    """How long one map of one scan takes, network included."""
    begun = time.perf_counter()
    values_of([name], infer(healthy.model, scan, draws=healthy.draws), healthy.methods, healthy.arrays)
    return time.perf_counter() - begun


def print_table(names: Sequence[str], titles: Sequence[str], columns: Sequence[Mapping[str, str]]) -> None:
    """A row per map."""
    console.table(["map", *titles], [[name, *(column[name] for column in columns)] for name in names])


if __name__ == "__main__":
    main()
