"""Throughput of synthetic scans: files of `classical` in bounded memory, and its chain of changes versus TorchIO's.

    python benchmarks/samples.py --model MODEL [--count 1000] [--size 64]

Without `--model` only the chain is measured: affine and elastic warp, gamma, bias field, blur and noise, each with
probability 1, on one random volume with a label map. TorchIO runs the same steps with its own defaults of resampling
(linear, labels nearest); it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medvae.pipelines.augment import run
from medvae.settings import RandomizeSettings
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 10


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="throughput of synthetic scans")
    parser.add_argument("--model", type=Path, help="model folder; its training scans are altered")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64, help="voxels per side, for the chain")
    options = parser.parse_args()
    compare(options.size)
    if options.model is not None:
        write(options.model, options.count)


def compare(size: int) -> None:
    """The chain of changes, interleaved; medians."""
    tools: dict[str, Callable[[], Any]] = {"medvae": partial(_medvae, size)}
    try:
        tools["TorchIO"] = _torchio(size)
    except ImportError as problem:
        print(f"TorchIO is left out: {problem}")
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(ROUNDS + 1):
        for name, tool in tools.items():
            begun = time.perf_counter()
            tool()
            seconds[name].append(time.perf_counter() - begun)
    ours = median(seconds["medvae"][1:])
    for name, times in seconds.items():
        print(f"{name:<8} {1000 * median(times[1:]):7.1f} ms per {size}^3 volume, {median(times[1:]) / ours:.1f} x")


def write(model: Path, count: int) -> None:
    """Files on disk, audit included; the highest memory of the process after a tenth of them, and after all."""
    with TemporaryDirectory() as place:
        for number in (count // 10, count):
            begun = time.perf_counter()
            run(model, out=Path(place) / "set", count=number, overrides=("augment.sampler=classical",))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{number} scans: {time.perf_counter() - begun:.0f} s, peak {peak:.0f} MiB")


def _volume(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, size, size, size))).float() + 3
    return image, (image > 3).to(torch.int16)


def _medvae(size: int) -> None:
    image, labels = _volume(size)
    steps = RandomizeSettings(spatial=1, gamma=1, bias=1, blur=1, noise=1)
    chain = Randomize(steps, (1.0, 1.0, 1.0)).set_random_state(0)
    chain(image, torch.ones_like(image, dtype=torch.bool), label_map=labels, floor=3.0)


def _torchio(size: int) -> Callable[[], Any]:
    import torchio as tio

    steps = RandomizeSettings()
    chain = tio.Compose(
        [
            tio.RandomAffine(steps.scale, steps.rotate, steps.shift),
            tio.RandomElasticDeformation(steps.control, 3 * steps.elastic),
            tio.RandomGamma(),
            tio.RandomBiasField(0.1, order=3),
            tio.RandomBlur((0.25, 1.0)),
            tio.RandomNoise(std=0.1),
        ]
    )

    def alter() -> Any:
        image, labels = _volume(size)
        return chain(tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=labels)))

    return alter


if __name__ == "__main__":
    main()
