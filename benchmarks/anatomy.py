"""Synthetic scans of the sampler `anatomy`: as sharp as real ones, unfolded, new, with label volumes as real ones have.

    python benchmarks/anatomy.py --model MODEL --scans LIST.csv [--split test] [--beside MODEL] [--count 20]

For scans of a split that the model has not seen: squared error of the reconstruction (prepared intensities), compared
with that of the mean of the kept training scans, where scans are registered. For samples: the ratio of their power
spectrum to that of real scans, per band up to half the Nyquist frequency; folded voxels; the distance to the nearest
training scan, compared with that of real scans to each other; volumes of the labels, compared with those of real scans;
seconds for one scan, sampled and written. `--beside` does the same for the sampler of another model, without its
volumes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.evaluation.spectrum import radial_power
from medvae.prepare.load import ReadAndPrepare
from medvae.scan import Selection
from medvae.synthesis import generate
from medvae.synthesis.synthesize import with_screen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.synthesis.generate import Sample
    from medvae.synthesis.synthetic import SyntheticSet


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="sharpness, folds, novelty and labels of synthetic scans")
    parser.add_argument("--model", type=Path, required=True, help="model folder of the network deform")
    parser.add_argument("--scans", type=Path, required=True, help="list with a column split")
    parser.add_argument("--split", default="test", help="split whose scans the model has not seen")
    parser.add_argument("--beside", type=Path, help="model of another network on the same grid, for its own sampler")
    parser.add_argument("--count", type=int, default=20, help="samples")
    options = parser.parse_args()
    model = load(options.model)
    read = ReadAndPrepare(model.settings.read, model.preparation)
    refs = find(Selection((options.scans,), split=options.split), model.settings.read).refs
    unseen = [read(ref).prepared for ref in refs]
    _errors(model, unseen)
    for one in [model] if options.beside is None else [model, load(options.beside)]:
        _samples(one, unseen, count=options.count)


def _errors(model: Model, unseen: list[Prepared]) -> None:
    training, aligned = model.training, model.preparation.aligned
    weight = np.maximum(training.masks.sum(0), 1)
    mean = (training.images.astype(np.float32) * training.masks).sum(0) / weight
    ours = [_error(one.image, model.reconstruct_prepared(one), one.mask) for one in unseen]
    print(f"{len(unseen)} unseen scans: squared error {np.mean(ours):.3f} ({min(ours):.3f} to {max(ours):.3f})", end="")
    theirs = [_error(one.image, mean, one.mask) for one in unseen]
    print(f", mean {'image' if aligned else 'of the unregistered scans'} {np.mean(theirs):.3f}")


def _samples(model: Model, unseen: list[Prepared], *, count: int) -> None:
    settings = model.settings.augment
    print(f"\n{model.settings.model.name}, sampler {settings.sampler}, {count} samples")
    synthetic = with_screen(generate.fit(model, settings, seed=1))
    samples = [synthetic.synthesizer.sample(index) for index in range(count)]
    real = np.mean([radial_power(one.image, one.mask) for one in unseen], axis=0)
    ratios = np.mean([radial_power(one.image, one.mask) for one in samples], axis=0) / real
    print("spectrum, ratio to unseen scans per band:", " ".join(f"{value:.2f}" for value in ratios))
    _novelty(synthetic, samples)
    if "jacobian" in samples[0].parameters:
        _folds(samples)
        _volumes(model, samples)
    print(f"sampled and written: {_seconds(synthetic):.2f} s per scan")


def _novelty(synthetic: SyntheticSet, samples: list[Sample]) -> None:
    checks = [synthetic.screen.check(one.image, one.mask, one.z) for one in samples]
    near = [check.image for check in checks if check.image is not None]
    others = [one.distance for one in synthetic.screen.real if one is not None]
    own = [one.id in sample.sources for one, sample in zip(near, samples, strict=True)]
    _range("nearest training scan, distance", [one.distance for one in near])
    _range("nearest training scan, ratio to the second", [one.ratio for one in near])
    _range("real training scans, distance to the nearest other subject", others)
    print(f"nearest is a donor: {sum(own)} of {len(own)}; flagged as copies: {sum(bool(c.copy) for c in checks)}")


def _folds(samples: list[Sample]) -> None:
    extremes = np.array([pair for one in samples for pair in one.parameters["jacobian"]])
    redrawn = sum(one.parameters["redrawn"] for one in samples)
    print(f"Jacobian determinant {extremes.min():.3f} to {extremes.max():.3f}; drawn again: {redrawn}", end="; ")
    print(f"samples with a fold: {int((extremes[:, 0] <= 0).sum())} of {len(samples)}")


def _volumes(model: Model, samples: list[Sample]) -> None:
    """Volumes of each label, mL, of samples and training scans."""
    known = model.training.label_maps
    made = [one.label_map for one in samples if one.label_map is not None]
    if known is None or not made:
        return
    voxel = model.preparation.grid.voxel_volume / 1000
    for label in sorted(set(np.unique(known)) - {0}):
        real = [float((one == label).sum()) * voxel for one in known]
        ours = [float((one == label).sum()) * voxel for one in made]
        inside = np.mean([min(real) <= value <= max(real) for value in ours])
        text = (
            f"label {label}, mL: samples {np.mean(ours):.2f} ± {np.std(ours):.2f} ({min(ours):.2f} to {max(ours):.2f})"
        )
        print(
            f"{text}, training scans {np.mean(real):.2f} ± {np.std(real):.2f} ({min(real):.2f} to {max(real):.2f})",
            end="",
        )
        print(f"; {100 * inside:.0f}% of the samples within their range")


def _seconds(synthetic: SyntheticSet, count: int = 3) -> float:
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        for index in range(count):
            synthetic.scan(index).save(folder)
        return (time.perf_counter() - start) / count


def _error(image: NDArray[np.float32], other: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    return float(np.square(image[mask] - other[mask]).mean())


def _range(name: str, values: list[float]) -> None:
    print(f"{name}: {min(values):.3f} to {max(values):.3f}, median {np.median(values):.3f}")


if __name__ == "__main__":
    main()
