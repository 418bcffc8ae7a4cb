"""The batches that are drawn from prepared scans: a function of seed and step alone, made ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared
    from medvae.settings import Settings
    from medvae.training.randomize import Example
    from medvae.training.store import Scans
    from medvae.vae.conditions import Conditions

T = TypeVar("T")

_ORDER, _RANDOMIZE, _DROP = 2, 1, 5  # streams of the seed, beside those of the noise in `fit`


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of examples.

    Attributes:
        inputs: what the encoder sees, float32 `(B, 1, X, Y, Z)`.
        image: what is to be reconstructed, the same type and shape.
        mask: bool, foreground.
        c: conditions, float32 `(B, n)`; None for a model without.
        label_map: int16 `(B, 1, X, Y, Z)`, −1 where a scan has none; None where no scan of the batch has one.
    """

    inputs: Tensor
    image: Tensor
    mask: Tensor
    c: Tensor | None = None
    label_map: Tensor | None = None


def training_batch(scans: Scans, *, step: int, rank: int, world: int, settings: Settings) -> Batch:
    """The batch of a step: which scans and which random changes depend on (seed, step, slot) alone."""
    randomize = Randomize(settings.train.randomize, settings.prepare.spacing)
    examples, vectors = [], []
    for slot in range(rank * settings.train.batch, (rank + 1) * settings.train.batch):
        place = step * settings.train.batch * world + slot
        prepared = scans[_shuffled(place, len(scans), seed=settings.seed)]
        examples.append(_example(prepared, randomize, seed=settings.seed, place=place))
        vectors.append(_vector(prepared, scans.conditions, settings, place=place))
    return Batch(
        inputs=torch.stack([one.input for one in examples]),
        image=torch.stack([one.image for one in examples]),
        mask=torch.stack([one.mask for one in examples]),
        c=_stacked(vectors, scans.conditions),
        label_map=_label_maps(examples),
    )


def plain_batch(scans: Scans, index: int) -> Batch:
    """One scan as it is."""
    prepared = scans[index]
    image, mask = torch.from_numpy(prepared.image)[None], torch.from_numpy(prepared.mask)[None]
    labels = None if prepared.label_map is None else torch.from_numpy(prepared.label_map)[None]
    vector = scans.conditions.vector(prepared.conditions)
    return Batch(image, image, mask, c=_stacked([vector], scans.conditions), label_map=labels)


def ahead(make: Callable[[int], T], steps: range) -> Generator[T]:
    """`make(step)` of each step in order, computed by threads while the steps before are trained on."""
    threads = min(8, max(1, (os.cpu_count() or 1) // 2))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    waiting: deque[Future[T]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _example(prepared: Prepared, randomize: Randomize, *, seed: int, place: int) -> Example:
    draw = np.random.SeedSequence([seed, _RANDOMIZE, place]).generate_state(1)[0]
    randomize.set_random_state(int(draw))
    labels = None if prepared.label_map is None else torch.from_numpy(prepared.label_map)
    floor = prepared.intensity.offset / prepared.intensity.scale
    image, mask = torch.from_numpy(prepared.image), torch.from_numpy(prepared.mask)
    return randomize(image, mask, label_map=labels, floor=floor)


def _vector(prepared: Prepared, conditions: Conditions, settings: Settings, *, place: int) -> NDArray[np.float32]:
    """The conditions of a scan as numbers, some of them missing at random."""
    generator, drop = np.random.default_rng([settings.seed, _DROP, place]), settings.train.drop_conditions
    return conditions.vector(_some(prepared.conditions, conditions.names, drop=drop, generator=generator))


def _some(
    given: Mapping[str, float | str], names: Sequence[str], *, drop: float, generator: np.random.Generator
) -> dict[str, float | str]:
    """Each condition is dropped with this probability, and all of them together with the same one.

    A network that has seen scans without a condition knows what a missing one means (Ho and Salimans, 2021).
    """
    if generator.random() < drop:
        return {}
    draws = generator.random(len(names))
    return {name: given[name] for name, draw in zip(names, draws, strict=True) if name in given and draw >= drop}


def _stacked(vectors: Sequence[NDArray[np.float32]], conditions: Conditions) -> Tensor | None:
    return torch.from_numpy(np.stack(vectors)) if conditions.columns else None


def _label_maps(examples: Sequence[Example]) -> Tensor | None:
    known = [one.label_map for one in examples]
    if all(one is None for one in known):
        return None
    nothing = torch.full(examples[0].mask.shape, -1, dtype=torch.int16)
    return torch.stack([nothing if one is None else one for one in known])


def _shuffled(place: int, count: int, *, seed: int) -> int:
    """Number `place` of an endless sequence that runs through all scans in a new order each time."""
    order = np.random.default_rng([seed, _ORDER, place // count]).permutation(count)
    return int(order[place % count])
