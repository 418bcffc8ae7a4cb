"""Utility of synthetic crops of the hippocampus: a small 3D U-Net from few real cases, with and without them.

    python benchmarks/utility.py --out RESULTS.jsonl [--sizes 5 10] [--draws 10] [--minutes 3] [--stop-after 60]
    python benchmarks/utility.py --out RESULTS.jsonl --report
    python benchmarks/utility.py --out TUNING.jsonl --tune

The crops are sorted by name: the first half is the pool of training cases, the second half the test cases (60). Who was
scanned is not published, so that neighbours in the list, which may be the two sides of one person, stay together.

One draw: n cases of the pool are drawn; a model is trained on these alone (`--config`, `--minutes`) and gives
synthetic cases (`--sampler`, `--count`); the network is trained with real + classical, and with real + classical +
synthetic, from the same weights, with the same steps; both are tested on the 60. A model that had seen other cases of
the pool would leak them into the synthetic arm. Draws that are in RESULTS already are not done again, so that a run can
be interrupted; seconds and scores of each are kept. `--report` prints means and paired differences with intervals
(nested bootstrap over draws and test cases).

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
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import medvae
from medvae.errors import ScanError
from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.nested import nested_difference, nested_mean
from medvae.evaluation.plan import ARMS, HEADLINE, Plan
from medvae.evaluation.tasks import Measure, Segmentation
from medvae.evaluation.utility import Experiment
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import load_settings
from medvae.synthesis.synthesize import whole_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.scan import ScanRef
    from medvae.settings import Settings

DATA = Path(__file__).parents[2] / "shared" / "data" / "hippocampus"
PLAN = Plan(steps=500, batch=2, lr=3e-3, mirror=False)  # of `--tune`
BASE = "classical"
TRIED = (*product((1e-3, 3e-3, 1e-2), (250,), (False, True)), (3e-3, 500, False), (3e-3, 500, True))


@dataclass(frozen=True)
class Crops:
    """All crops: as files, and prepared; the first `pool` of them may be trained on."""

    refs: Sequence[ScanRef]
    scans: ImageSet
    pool: int
    spacing: tuple[float, float, float]

    def experiment(self, chosen: Sequence[int], test: Sequence[int], plan: Plan, **extras: ImageSet) -> Experiment:
        """Some crops to train on, others to test on."""
        real, others = self.scans.take(chosen), self.scans.take(test)
        task = Segmentation.of(self.scans, list(extras.values()), spacing=self.spacing)
        return Experiment(task, real, others, extras, plan)


def main() -> None:
    """Run what is missing, or print what is there."""
    parser = argparse.ArgumentParser(description="utility of synthetic crops of the hippocampus")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with images and labels")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40], help="real cases")
    parser.add_argument("--draws", type=int, default=10, help="draws of real cases per size")
    parser.add_argument("--arms", nargs="+", default=[BASE, HEADLINE], help=f"of {', '.join(ARMS)}")
    parser.add_argument("--config", default="hippocampus-mri-shape", help="preset of the model")
    parser.add_argument("--sampler", default="anatomy")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the model's training, per draw")
    parser.add_argument("--steps", type=int, help="of the model's training, instead of minutes: on a busy machine")
    parser.add_argument("--count", type=int, default=100, help="synthetic cases per draw")
    parser.add_argument("--device", default="auto", help="of the model; the network is trained on the CPU")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes: no draw is begun later")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    if options.report:
        report(options.out)
    elif options.tune:
        tune(crops(options.data, load_settings(options.config)), options)
    else:
        run(crops(options.data, load_settings(options.config)), options)


def crops(data: Path, settings: Settings) -> Crops:
    """All crops with their label maps, on the model's grid."""
    found = medvae.find(Selection((data / "images",)), settings)
    refs = [replace(ref, label_map=data / "labels" / ref.path.name) for ref in sorted(found, key=lambda ref: ref.id)]
    read = ReadAndPrepare(settings.read, Preparation(settings.prepare))
    scans = ImageSet.from_prepared([read(ref).prepared for ref in refs], classes=[None] * len(refs))
    return Crops(refs, scans, len(refs) // 2, settings.prepare.spacing)


def run(known: Crops, options: argparse.Namespace) -> None:
    """All draws that are missing, those of all sizes in turn."""
    how = {name: getattr(options, name) for name in ("config", "sampler", "minutes", "steps", "count")}
    test, start = range(known.pool, len(known.refs)), time.monotonic()
    for draw in range(options.draws):
        for size in options.sizes:
            here = {"size": size, "draw": draw, **how}
            done = {one["arm"] for one in lines(options.out) if here.items() <= one.items()}
            arms = [ARMS[name] for name in options.arms if name not in done]
            if not arms or time.monotonic() - start > 60 * options.stop_after:
                continue
            chosen = drawn(known.pool, size, draw)
            begun = time.perf_counter()
            extras = {"synthetic": synthetic([known.refs[at] for at in chosen], options)}
            here["model_seconds"] = round(time.perf_counter() - begun)
            one = known.experiment(chosen, test, PLAN, **extras)
            for arm in arms:
                begun = time.perf_counter()
                measures = one.run([arm], draws=[draw])[0].measures
                keep(options.out, {**here, "arm": arm.name, "seconds": round(time.perf_counter() - begun)}, measures)


def drawn(pool: int, size: int, draw: int) -> list[int]:
    """The real cases of a draw, as places in the pool."""
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(size, draw)))
    return sorted(int(at) for at in rng.choice(pool, size, replace=False))


def synthetic(refs: Sequence[ScanRef], options: argparse.Namespace) -> ImageSet:
    """Cases from a model that was trained on these alone."""
    length = "null" if options.steps else options.minutes
    changes = (f"train.minutes={length}", f"train.steps={options.steps or 1}", "train.validation=0", "detector.steps=0")
    with TemporaryDirectory() as place:
        settings = load_settings(options.config, changes)
        model = medvae.train(refs, config=settings, out=Path(place) / "model", device=options.device)
        whole = whole_set(model, {"sampler": options.sampler}, seed=0, device=options.device)
        samples = []
        for index in range(options.count):
            try:
                samples.append(whole.accepted(index).sample)
            except ScanError as problem:  # all of its draws were rejected
                print(f"sample {index}: {problem}", flush=True)
    return ImageSet.from_samples(samples)


def tune(known: Crops, options: argparse.Namespace) -> None:
    """Mean Dice of real + classical on cases of the pool, per learning rate, steps and flips."""
    inner = known.pool * 2 // 3
    for draw, size, (lr, steps, mirror) in product(range(options.draws), options.sizes, TRIED):
        here = {"size": size, "draw": draw, "lr": lr, "mirror": mirror, "steps": steps}
        if any(here.items() <= one.items() for one in lines(options.out)):
            continue
        plan = replace(PLAN, lr=lr, steps=steps, mirror=mirror)
        one = known.experiment(drawn(inner, size, draw), range(inner, known.pool), plan)
        begun = time.perf_counter()
        measures = one.run([ARMS[BASE]], draws=[draw])[0].measures
        keep(options.out, {**here, "seconds": round(time.perf_counter() - begun)}, measures)


def keep(path: Path, here: dict[str, Any], measures: dict[str, Measure]) -> None:
    """Append one line, and print it without the scores of single cases."""
    values = {name: [round(float(value), 5) for value in one.values] for name, one in measures.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**here, **values}) + "\n")
    print(here, {name: round(float(np.nanmean(one)), 4) for name, one in values.items()}, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def report(path: Path) -> None:
    """Means per arm, and each arm minus real + classical, as Markdown."""
    found = lines(path)
    names = [name for name in found[0] if name.startswith(("dice", "surface"))]
    print(f"| real cases | draws | arm | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}")
    for size in sorted({one["size"] for one in found}):
        here = {(one["draw"], one["arm"]): one for one in found if one["size"] == size}
        for arm in dict.fromkeys(one["arm"] for one in found):
            draws = sorted(draw for draw, name in here if name == arm and (draw, BASE) in here)
            if draws:
                ours, theirs = ([here[draw, name] for draw in draws] for name in (arm, BASE))
                cells = [str(nested_mean(_of(ours, name), subjects=_cases(ours[0]))) for name in names]
                print(f"| {size} | {len(draws)} | {arm} | {' | '.join(cells)} |")
                if arm != BASE:
                    gains = [
                        nested_difference(_of(ours, name), _of(theirs, name), subjects=_cases(ours[0]))
                        for name in names
                    ]
                    print(f"| {size} | {len(draws)} | {arm} − {BASE} | {' | '.join(map(_signed, gains))} |")


def _of(rows: Sequence[dict[str, Any]], name: str) -> list[Measure]:
    return [Measure(np.array(row[name], np.float64), np.zeros(len(row[name]), np.intp)) for row in rows]


def _cases(row: dict[str, Any]) -> list[str]:
    return [str(at) for at in range(len(row["dice"]))]


def _signed(gain: Any) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


if __name__ == "__main__":
    main()
