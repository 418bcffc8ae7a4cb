"""The copy screen on real scans: what it flags among samples, and among people that the model has not seen.

    python benchmarks/copies.py --model MODEL --samplers density,classical --scans LIST.csv [--split test] [--seed 5]

For each sampler: how many samples each of the three comparisons of the screen flags (as they are, after registration,
by region), whether registration finds the donor, the ratio after registration, how many first draws are implausible by
their ELBO, and seconds per sample. The same for scans of people that are not among the training scans, which no rule
should flag; those are compared as they are, with limits measured on training scans.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.prepare.load import ReadAndPrepare
from medvae.scan import Selection
from medvae.settings import AugmentSettings
from medvae.synthesis import copies, generate, plausible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.synthesis.copies import CopyCheck, CopyScreen

    Image = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32] | None]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="rates of the copy screen")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--samplers", required=True, help="separated by commas")
    parser.add_argument("--scans", type=Path, required=True, help="list with a column split")
    parser.add_argument("--split", default="test", help="split whose scans the model has not seen")
    parser.add_argument("--count", type=int, default=10, help="samples")
    parser.add_argument("--seed", type=int, default=5, help="seed of the samples")
    options = parser.parse_args()
    model = load(options.model)
    read = ReadAndPrepare(model.settings.read, model.preparation)
    refs = find(Selection((options.scans,), split=options.split), model.settings.read).refs
    unseen = [read(ref).prepared for ref in refs]
    scans: list[Image] = [(one.image, one.mask, None) for one in unseen]
    _show("unseen people", _timed(_fitted("screen", model), scans), sources=None)
    for name in options.samplers.split(","):
        _sampler(model, name, count=options.count, seed=options.seed)


def _sampler(model: Model, name: str, *, count: int, seed: int) -> None:
    synthesizer = generate.fit(model, AugmentSettings(sampler=name), seed=seed)
    samples = [synthesizer.sample(index) for index in range(count)]
    limits = plausible.fit(model)
    faults = [[fault.kind for fault in limits.faults(one)] for one in samples]
    print(f"\n{name}: first draws that are implausible: {[one for one in faults if one]}")
    screen = _fitted(name, model, synthesizer.copies())
    images: list[Image] = [(one.image, one.mask, one.z) for one in samples]
    _show(name, _timed(screen, images), sources=[one.sources for one in samples])


def _fitted(name: str, model: Model, decoded: Iterable[NDArray[np.float32]] | None = None) -> CopyScreen:
    start = time.perf_counter()
    screen = copies.fit(model, copies=decoded)
    limits = screen.limits
    print(f"{name}: fitted in {time.perf_counter() - start:.0f} s; real scans flagged {screen.real_copies}; ", end="")
    blocks = f"{len(limits.blocks)} blocks {limits.blocks.min():.2f} to {limits.blocks.max():.2f}"
    print(f"limits: registered {limits.registered:.3f}, {blocks}, share {limits.share:.3f}", flush=True)
    return screen


def _timed(screen: CopyScreen, images: Sequence[Image]) -> list[CopyCheck]:
    start = time.perf_counter()
    found = [screen.check(*one) for one in images]
    print(f"{(time.perf_counter() - start) / len(images):.1f} s per scan")
    return found


def _show(name: str, checks: Sequence[CopyCheck], *, sources: Sequence[tuple[str, ...]] | None) -> None:
    for rule in ("image", "registered", "region"):
        print(f"{name}: flagged by {rule}: {sum(rule in one.found_by for one in checks)} of {len(checks)}")
    print(f"{name}: flagged at all: {sum(bool(one.copy) for one in checks)} of {len(checks)}")
    _range("ratio", [one.image.ratio for one in checks if one.image])
    _range("ratio after registration", [one.registered.ratio for one in checks if one.registered])
    _range("share of the blocks that copy one scan", [one.region.share for one in checks if one.region])
    if sources is not None:
        pairs = zip(checks, sources, strict=True)
        found = [one.registered is not None and one.registered.id in donors for one, donors in pairs]
        print(f"donor is nearest after registration: {sum(found)} of {len(found)}")


def _range(name: str, values: list[float]) -> None:
    print(f"{name}: {min(values):.2f} to {max(values):.2f}, median {np.median(values):.2f}", flush=True)


if __name__ == "__main__":
    main()
