"""Utility of synthetic crops of the hippocampus: a small 3D U-Net from few real cases, with and without them.

    python benchmarks/utility.py --out RESULTS.jsonl [--sizes 5 10] [--draws 10] [--steps 300] [--stop-after 60]
                                 [--generators anatomy joint torchio ...] [--device cuda] [--part 1/8]
    python benchmarks/utility.py --out RESULTS.jsonl [MORE.jsonl ...] --report
    python benchmarks/utility.py --out TUNING.jsonl --tune
    python benchmarks/utility.py --out TABLE.md --fidelity --sizes 20 --draws 1 --generators anatomy torchio ...

The crops are sorted by name: the first half is the pool of training cases, the second half the test cases (60). Who was
scanned is not published, so that neighbours in the list, which may be the two sides of one person, stay together.

One draw: n cases of the pool are drawn; a generator is trained on these alone and gives synthetic cases (`--count`);
the network is trained with real + classical, and with real + classical + synthetic of each generator, from the same
weights, with the same steps; all are tested on the 60. A model that had seen other cases of the pool would leak them
into the synthetic arm. Networks of medvae are trained for `--steps`; other packages (`generators.py`) for as many
seconds as `anatomy` took in the same draw, or for `--seconds`. Draws that are already in RESULTS are skipped, so that a
run can be interrupted, and divided among processes (`--part K/N`, each with its own RESULTS); seconds and scores of
each are kept. `--report` prints means and paired differences with intervals (nested bootstrap over draws and test
cases).

`--fidelity` compares the samples of each generator with the 60 test cases, beside the real cases of the draw, by the
metrics of `medvae evaluate augment`; no network is trained on them.

`--tune` compares learning rates, steps and flips for real + classical on pool cases alone: n of the first 40, tested on
the other 20.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from generators import OTHERS, How, of_medvae, sampled

import medvae
from medvae.evaluation.comparison import Sets, diversity, fidelity
from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.nested import nested_difference, nested_mean
from medvae.evaluation.plan import ARMS, HEADLINE, Plan
from medvae.evaluation.tasks import Measure, Segmentation
from medvae.evaluation.utility import Experiment
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

DATA = Path(__file__).parents[2] / "shared" / "data" / "hippocampus"
PLAN = Plan(steps=500, batch=2, lr=3e-3, mirror=False)  # of `--tune`
BASE = "classical"
TRIED = (*product((1e-3, 3e-3, 1e-2), (250,), (False, True)), (3e-3, 500, False), (3e-3, 500, True))
OURS = {  # preset and sampler by name
    "anatomy": ("hippocampus-mri-shape", "anatomy"),
    "anatomy, mix": ("hippocampus-mri-shape", "mix"),
    "joint": ("hippocampus-mri-joint", "density"),
    "joint, mix": ("hippocampus-mri-joint", "mix"),
}


@dataclass(frozen=True)
class Crops:
    """All crops, prepared; the first `pool` of them may be trained on."""

    cases: Sequence[Prepared]
    scans: ImageSet
    pool: int
    spacing: tuple[float, float, float]
    device: torch.device

    def experiment(self, chosen: Sequence[int], test: Sequence[int], plan: Plan, **extras: ImageSet) -> Experiment:
        """Some crops to train on, others to test on."""
        real, others = self.scans.take(chosen), self.scans.take(test)
        task = Segmentation.of(self.scans, list(extras.values()), spacing=self.spacing)
        return Experiment(task, real, others, extras, plan, self.device)


def main() -> None:
    """Run what is missing, or print what is there."""
    parser = argparse.ArgumentParser(description="utility of synthetic crops of the hippocampus")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with images and labels")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40], help="real cases")
    parser.add_argument("--draws", type=int, default=10, help="draws of real cases per size")
    parser.add_argument("--generators", nargs="+", default=["anatomy"], choices=[*OURS, *OTHERS])
    parser.add_argument(
        "--seconds", type=float, help="training time of other packages; by default as long as `anatomy` took"
    )
    parser.add_argument("--fidelity", action="store_true")
    options = parsed(parser)
    if options.fidelity:
        compare(crops(options.data, options.device), options)
    elif options.report:
        report([line for path in options.out for line in lines(path)])
    elif options.tune:
        tune(crops(options.data, options.device), options)
    else:
        run(crops(options.data, options.device), options)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with the options of all benchmarks of utility; torch takes as many threads as it may."""
    parser.add_argument(
        "--out", type=Path, nargs="+", default=[Path("results.jsonl")], help="JSON lines; the first is appended to"
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps of the networks of medvae, per draw")
    parser.add_argument("--count", type=int, default=100, help="synthetic cases per draw")
    parser.add_argument("--device", default="cpu", help="device for all networks")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th draw, from the K-th")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes: no draw is begun later")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--report", action="store_true")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    return parser.parse_args()


def crops(data: Path, device: str) -> Crops:
    """All crops with their label maps, on the model's grid."""
    settings = load_settings(OURS["anatomy"][0])
    found = medvae.find(Selection((data / "images",)), settings)
    refs = [replace(ref, label_map=data / "labels" / ref.path.name) for ref in sorted(found, key=lambda ref: ref.id)]
    read = ReadAndPrepare(settings.read, Preparation(settings.prepare))
    cases = [read(ref).prepared for ref in refs]
    scans = ImageSet.from_prepared(cases, classes=[None] * len(cases))
    return Crops(cases, scans, len(cases) // 2, settings.prepare.spacing, torch.device(device))


def run(known: Crops, options: argparse.Namespace) -> None:
    """All draws that are missing, those of all sizes in turn."""
    part, parts = (int(text) for text in options.part.split("/"))
    every = list(product(range(options.draws), options.sizes))
    start = time.monotonic()
    for draw, size in every[part - 1 :: parts]:
        if time.monotonic() - start < 60 * options.stop_after:
            one_draw(known, options, size=size, draw=draw)


def one_draw(known: Crops, options: argparse.Namespace, *, size: int, draw: int) -> None:
    """The real cases of a draw alone, then with the synthetic ones of each generator."""
    chosen = drawn(known.pool, size, draw)
    cases, test = [known.cases[at] for at in chosen], range(known.pool, len(known.cases))
    how = How(options.count, options.steps, options.seconds or 0.0, options.device)
    done = {one["generator"] for one in lines(options.out[0]) if (one["size"], one["draw"]) == (size, draw)}
    models: dict[str, Model] = {}
    for name in ("", *options.generators):
        if name in done:
            continue
        here = {"size": size, "draw": draw, "generator": name, "arm": HEADLINE if name else BASE}
        begun = time.perf_counter()
        extras = {"synthetic": synthetic(name, cases, how, models)} if name else {}
        made = time.perf_counter() - begun
        if name and not extras["synthetic"]:
            print(f"{name}, {size} cases, draw {draw}: no sample was accepted", flush=True)
            continue
        if name == "anatomy" and not options.seconds:
            how = replace(how, seconds=made)
        begun = time.perf_counter()
        one = known.experiment(chosen, test, PLAN, **extras)
        measures = one.run([ARMS[here["arm"]]], draws=[draw])[0].measures
        here |= {"generator_seconds": round(made, 1), "seconds": round(time.perf_counter() - begun, 1)}
        keep(options.out[0], here, measures)


def compare(known: Crops, options: argparse.Namespace) -> None:
    """Fidelity and diversity of the samples of each generator, as Markdown: the values, not their intervals."""
    test = known.scans.take(range(known.pool, len(known.cases)))
    for draw, size in product(range(options.draws), options.sizes):
        chosen = drawn(known.pool, size, draw)
        cases, real = [known.cases[at] for at in chosen], known.scans.take(chosen)
        how = How(options.count, options.steps, options.seconds or 0.0, options.device)
        models: dict[str, Model] = {}
        head: list[str] = []
        rows: dict[str, list[str]] = {}
        for name in options.generators:
            begun = time.perf_counter()
            made = synthetic(name, cases, how, models)
            seconds = time.perf_counter() - begun
            if name == "anatomy" and not options.seconds:
                how = replace(how, seconds=seconds)
            if not len(made):
                rows[name] = ["no sample"]
                continue
            sets = Sets(real, test, made)
            found, alike = fidelity(sets), diversity(sets)
            head = [f"{size} cases, draw {draw}", "s", *found["metrics"], "MS-SSIM", "power by band"]
            rows["real to real"] = ["", *_figures(found, alike, "real")]
            rows[name] = [f"{seconds:.0f}", *_figures(found, alike, "samples")]
        table = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
        text = "".join(f"| {' | '.join(row)} |\n" for row in table)
        print(text, flush=True)
        with options.out[0].open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _figures(found: dict[str, Any], alike: dict[str, Any], side: str) -> list[str]:
    """The cells of one row."""
    values = [one[side][0] for one in found["metrics"].values()] + [alike[side][0]]
    return [*(f"{value:.3f}" for value in values), " ".join(f"{one[side][0]:.2f}" for one in found["spectrum"])]


def synthetic(name: str, cases: Sequence[Prepared], how: How, models: dict[str, Model]) -> ImageSet:
    """Cases of a generator; a model serves all of its samplers."""
    if name in OTHERS:
        try:
            return OTHERS[name](cases, how)
        except (RuntimeError, ValueError) as problem:  # a training that diverged
            print(f"{name}: {problem}", flush=True)
            return ImageSet.from_prepared(cases[:1], classes=[None]).take([])
    config, sampler = OURS[name]
    if config not in models:
        models[config] = of_medvae(config, cases, how)
    return sampled(models[config], sampler, how)


def drawn(pool: int, size: int, draw: int) -> list[int]:
    """The real cases of a draw, as places in the pool."""
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(size, draw)))
    return sorted(int(at) for at in rng.choice(pool, size, replace=False))


def tune(known: Crops, options: argparse.Namespace) -> None:
    """Mean Dice of real + classical on cases of the pool, per learning rate, steps and flips."""
    inner = known.pool * 2 // 3
    for draw, size, (lr, steps, mirror) in product(range(options.draws), options.sizes, TRIED):
        here = {"size": size, "draw": draw, "lr": lr, "mirror": mirror, "steps": steps}
        if any(here.items() <= one.items() for one in lines(options.out[0])):
            continue
        plan = replace(PLAN, lr=lr, steps=steps, mirror=mirror)
        one = known.experiment(drawn(inner, size, draw), range(inner, known.pool), plan)
        begun = time.perf_counter()
        measures = one.run([ARMS[BASE]], draws=[draw])[0].measures
        keep(options.out[0], {**here, "seconds": round(time.perf_counter() - begun)}, measures)


def keep(path: Path, here: dict[str, Any], measures: dict[str, Measure]) -> None:
    """Append one line, and print it without the scores of single cases."""
    values = {name: [round(float(value), 5) for value in one.values] for name, one in measures.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**here, **values}) + "\n")
    print(here, {name: round(float(np.nanmean(one)), 4) for name, one in values.items()}, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def report(found: Sequence[dict[str, Any]]) -> None:
    """Means per generator, and each one's minus real + classical, as Markdown."""
    names = [name for name in found[0] if name.startswith(("dice", "surface"))]
    print(f"| real cases | draws | synthetic cases | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}")
    for size in sorted({one["size"] for one in found}):
        here = {(one["draw"], one["generator"]): one for one in found if one["size"] == size}
        for generator in dict.fromkeys(one["generator"] for one in found):
            draws = sorted(draw for draw, name in here if name == generator and (draw, "") in here)
            if draws:
                ours, theirs = ([here[draw, name] for draw in draws] for name in (generator, ""))
                cells = [str(nested_mean(_of(ours, name), subjects=_cases(ours[0]))) for name in names]
                print(f"| {size} | {len(draws)} | {generator or 'none'} | {' | '.join(cells)} |")
                if generator:
                    pairs = [(_of(ours, name), _of(theirs, name)) for name in names]
                    gains = [nested_difference(*pair, subjects=_cases(ours[0])) for pair in pairs]
                    print(f"| {size} | {len(draws)} | {generator} − none | {' | '.join(map(_signed, gains))} |")


def _of(rows: Sequence[dict[str, Any]], name: str) -> list[Measure]:
    return [Measure(np.array(row[name], np.float64), np.zeros(len(row[name]), np.intp)) for row in rows]


def _cases(row: dict[str, Any]) -> list[str]:
    return [str(at) for at in range(len(row["dice"]))]


def _signed(gain: Any) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


if __name__ == "__main__":
    main()
