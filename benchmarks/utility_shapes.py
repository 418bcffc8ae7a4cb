"""Utility of synthetic binary shapes: a small classifier from few vessels or adrenal glands, with and without them.

    python benchmarks/utility_shapes.py --out RESULTS.jsonl [--sets vessel adrenal] [--sizes 20 50 100] [--draws 5]
                                        [--samplers density ...] [--steps 300] [--device cuda] [--part 1/4]
    python benchmarks/utility_shapes.py --out RESULTS.jsonl [MORE.jsonl ...] --report
    python benchmarks/utility_shapes.py --out TUNING.jsonl --tune

VesselMNIST3D and AdrenalMNIST3D (MedMNIST v2, Yang et al. 2023), 28³. One draw: n shapes of each class of the training
split; a VAE (preset `vessel-shape`) is trained on these alone and gives synthetic shapes of both classes (`--count`); a
classifier is trained with real + classical, and with half of its draws from the synthetic shapes, from the same
weights, with the same steps. Both are tested on the official test split: balanced accuracy, AUROC. Classical
augmentation is spatial (rotation, scaling), by nearest neighbour. `--tune` compares learning rates and steps of real +
classical on the validation split: where `PLAN` comes from.

Also measured, of real and of synthetic shapes: pieces (26 neighbours), the share of the largest one, voxels, and
thickness: twice the distance to the border, in voxels, the mean over the voxels of a shape where it is a local maximum.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from generators import How, of_medvae, sampled
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from utility import lines, parsed

from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.plan import ARMS, HEADLINE, Plan
from medvae.evaluation.tasks import Classification
from medvae.evaluation.utility import Experiment
from medvae.prepare.preparation import Preparation, prepare
from medvae.scan import Geometry, Scan
from medvae.settings import load_settings
from medvae.synthesis.pieces import share_of_largest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared

DATA = Path(__file__).parents[2] / "shared" / "data" / "medmnist"
PRESET = "vessel-shape"
PLAN = Plan(steps=400, batch=16, lr=3e-3, mirror=False, binary=True)  # of `--tune`, where all six are nearly level
TRIED = tuple(product((1e-3, 3e-3, 1e-2), (200, 400)))
BASE = "classical"
TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Shapes:
    """The shapes of a split, prepared, and their classes."""

    cases: Sequence[Prepared]
    classes: Sequence[str]

    def take(self, rows: Sequence[int]) -> Shapes:
        """Some of them."""
        return Shapes([self.cases[at] for at in rows], [self.classes[at] for at in rows])

    def images(self) -> ImageSet:
        """As arrays."""
        return ImageSet.from_prepared(self.cases, classes=list(self.classes))


def main() -> None:
    """Run what is missing, or print what is there."""
    parser = argparse.ArgumentParser(description="utility of synthetic binary shapes")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with vesselmnist3d.npz, adrenalmnist3d.npz")
    parser.add_argument("--sets", nargs="+", default=["vessel", "adrenal"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 100], help="real shapes of each class")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--samplers", nargs="+", default=["density"])
    options = parsed(parser)
    if options.report:
        report([line for path in options.out for line in lines(path)])
        return
    part, parts = (int(text) for text in options.part.split("/"))
    every = list(product(range(options.draws), options.sets, options.sizes))
    splits = {
        name: [load_split(options.data, name, split) for split in ("train", "val", "test")] for name in options.sets
    }
    start = time.monotonic()
    for draw, name, size in every[part - 1 :: parts]:
        if time.monotonic() - start < 60 * options.stop_after:
            training, validation, test = splits[name]
            real = training.take(drawn(training, size, draw))
            here = {"set": name, "size": size, "draw": draw}
            if options.tune:
                tune(here, real, validation, options)
            else:
                one_draw(here, real, test, options)


def load_split(data: Path, name: str, split: str) -> Shapes:
    """All shapes of a split on the model's grid, 0 and 1."""
    arrays = np.load(data / f"{name}mnist3d.npz")
    volumes, labels = (arrays[f"{split}_{what}"] for what in ("images", "labels"))
    preparation = Preparation(load_settings(PRESET).prepare)
    cases = []
    for number, volume in enumerate(volumes):
        shape = (volume > 127).astype(np.float32)
        scan = Scan(shape, Geometry(shape.shape, np.eye(4)), modality="SHAPE")
        cases.append(prepare(scan, preparation, id=f"{split}-{number:04d}", subject=f"{split}-{number:04d}"))
    return Shapes(cases, [str(one) for one in labels.ravel()])


def drawn(shapes: Shapes, size: int, draw: int) -> list[int]:
    """Rows of `size` shapes of each class."""
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(size, draw)))
    rows = {one: np.flatnonzero(np.array(shapes.classes) == one) for one in sorted(set(shapes.classes))}
    return sorted(int(at) for every in rows.values() for at in rng.choice(every, size, replace=False))


def one_draw(here: dict[str, Any], real: Shapes, test: Shapes, options: argparse.Namespace) -> None:
    """Real shapes alone, then with the samples of each sampler of one model."""
    how, begun = How(options.count, options.steps, 0.0, options.device), time.perf_counter()
    model = of_medvae(PRESET, real.cases, how, labels=real.classes)
    made = time.perf_counter() - begun
    keep(options.out[0], {**here, "sampler": "", **scored(real, test, {}, PLAN, options, draw=here["draw"])})
    for sampler in options.samplers:
        found = sampled(model, sampler, how)
        facts = {**here, "sampler": sampler, "model_seconds": round(made, 1), **forms(found.images, "synthetic")}
        facts |= forms(real.images().images, "real")
        keep(options.out[0], {**facts, **scored(real, test, {"synthetic": found}, PLAN, options, draw=here["draw"])})


def tune(here: dict[str, Any], real: Shapes, validation: Shapes, options: argparse.Namespace) -> None:
    """Real + classical on the validation split, per learning rate and steps."""
    for lr, steps in TRIED:
        plan = replace(PLAN, lr=lr, steps=steps)
        found = scored(real, validation, {}, plan, options, draw=here["draw"])
        keep(options.out[0], {**here, "lr": lr, "steps": steps, **found})


def scored(
    real: Shapes,
    test: Shapes,
    extras: dict[str, ImageSet],
    plan: Plan,
    options: argparse.Namespace,
    *,
    draw: int,
) -> dict[str, float]:
    """Balanced accuracy and AUROC of a classifier on the test shapes."""
    task = Classification.of(real.images(), list(extras.values()))
    one = Experiment(task, real.images(), test.images(), extras, plan, torch.device(options.device))
    measures = one.run([ARMS[HEADLINE if extras else BASE]], draws=[draw])[0].measures
    truth = np.array([task.classes.index(one) for one in test.classes])
    of_truth = measures["probability_of_truth"].values
    positive = np.where(truth == 1, of_truth, 1 - of_truth)  # two classes
    right = measures["balanced_accuracy"].values
    balanced = float(np.mean([right[truth == one].mean() for one in (0, 1)]))
    return {"balanced_accuracy": round(balanced, 4), "auroc": round(float(roc_auc_score(truth, positive)), 4)}


def forms(images: NDArray[np.float16], whose: str) -> dict[str, float]:
    """Means over shapes: connected pieces, share of the largest one, voxels, thickness."""
    shapes = [one > 0.5 for one in images[:, 0]]
    measures = {
        "pieces": [ndimage.label(one, TOUCHING)[1] for one in shapes],
        "largest": [share_of_largest(one) for one in shapes],
        "voxels": [one.sum() for one in shapes],
        "thickness": [thickness(one) for one in shapes],
    }
    return {f"{whose}_{name}": round(float(np.mean(values)), 4) for name, values in measures.items()}


def thickness(shape: NDArray[np.bool_]) -> float:
    """Mean diameter of the largest balls that fit into it, voxels; 0 for an empty shape."""
    depth = ndimage.distance_transform_edt(np.pad(shape, 1))
    middle = (depth > 0) & (depth == ndimage.maximum_filter(depth, footprint=TOUCHING))
    return float(2 * depth[middle].mean() - 1) if middle.any() else 0.0


def keep(path: Path, line: dict[str, Any]) -> None:
    """Append a line, and print it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def report(found: Sequence[dict[str, Any]]) -> None:
    """Means over draws, and paired differences with the standard error over draws."""
    groups = defaultdict[tuple[Any, ...], dict[int, dict[str, Any]]](dict)
    for one in found:
        groups[one["set"], one["size"], one.get("sampler", (one.get("lr"), one.get("steps")))][one["draw"]] = one
    for (name, size, sampler), draws in sorted(groups.items(), key=str):
        base = groups.get((name, size, ""), {})
        cells = []
        for measure in ("balanced_accuracy", "auroc"):
            cells.append(f"{measure} {np.mean([one[measure] for one in draws.values()]):.3f}")
            gains = [one[measure] - base[draw][measure] for draw, one in draws.items() if draw in base]
            if sampler and len(gains) > 1:
                cells.append(f"{np.mean(gains):+.3f} ± {np.std(gains, ddof=1) / len(gains) ** 0.5:.3f}")
        kept = [key for key in next(iter(draws.values())) if key.startswith(("real_", "synthetic_"))]
        cells += [f"{key} {np.mean([one[key] for one in draws.values()]):.3f}" for key in kept]
        print(name, size, sampler or "none", len(draws), *cells)


if __name__ == "__main__":
    main()
