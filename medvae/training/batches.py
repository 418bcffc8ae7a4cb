"""Prepared scans on disk and in memory, and the batches that are drawn from them.

The cache is `OUT/cache/`, one safetensors file a scan, named by the scan's id; the run folder's manifest says which
input (files, sizes, times) it was made from. It lets `--resume` start without preparing again, and goes when training
has ended well.
"""

from __future__ import annotations

import json
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from medvae.io.files import atomic
from medvae.prepare.preparation import Intensity, Prepared
from medvae.scan import Geometry
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.settings import Settings

_IN_MEMORY_GIB = 6.0


def store(prepared: Prepared, path: Path, *, label: str | None = None) -> None:
    """Write a prepared scan, images as float16 (robust z within ±10: a step of 0.008 at most)."""
    arrays: dict[str, NDArray[Any]] = {
        "image": prepared.image.astype(np.float16),
        "mask": prepared.mask.astype(np.uint8),
        "fov": prepared.fov.astype(np.uint8),
        "to_input": prepared.to_input,
        "grid": prepared.grid.affine.copy(),
        "input": prepared.input.affine.copy(),
    }
    if prepared.label_map is not None:
        arrays["label_map"] = prepared.label_map
    facts = {
        "id": prepared.id,
        "subject": prepared.subject,
        "input_shape": prepared.input.shape,
        "intensity": {k: repr(v) for k, v in asdict(prepared.intensity).items()},
        "modality": prepared.modality,
        "units": prepared.units,
        "source_hash": prepared.source_hash,
        "warnings": prepared.warnings,
        "label": label,
    }
    with atomic(path) as partial:
        save_file(arrays, partial, metadata={"facts": json.dumps(facts)})


def fetch(path: Path) -> tuple[Prepared, str | None]:
    """A prepared scan as it was stored, and its label."""
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    image = arrays["image"].astype(np.float32)
    prepared = Prepared(
        id=facts["id"],
        subject=facts["subject"],
        image=image,
        mask=arrays["mask"].astype(bool),
        fov=arrays["fov"].astype(bool),
        to_input=arrays["to_input"],
        grid=Geometry(image.shape[1:], arrays["grid"]),
        input=Geometry(tuple(facts["input_shape"]), arrays["input"]),
        intensity=Intensity(**{k: float(v) for k, v in facts["intensity"].items()}),
        label_map=arrays.get("label_map"),
        modality=facts["modality"],
        units=facts["units"],
        source_hash=facts["source_hash"],
        warnings=tuple(facts["warnings"]),
    )
    return prepared, facts["label"]


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of examples, float32 and bool, `(B, 1, X, Y, Z)`."""

    inputs: Tensor
    image: Tensor
    mask: Tensor


@dataclass(eq=False)
class Scans:
    """Cached scans of one role (training or validation); in memory while they fit, else read when asked for.

    Attributes:
        files: cache files, in a fixed order.
    """

    files: Sequence[Path]
    _kept: dict[int, Prepared] = field(default_factory=dict, repr=False)
    _room: float = field(default=_IN_MEMORY_GIB * 2**30, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Prepared:
        """The prepared scan number `index`."""
        if index in self._kept:
            return self._kept[index]
        prepared, _ = fetch(self.files[index])
        self._room -= 6 * prepared.image.size
        if self._room > 0:
            self._kept[index] = prepared
        return prepared


def training_batch(scans: Scans, *, step: int, rank: int, world: int, settings: Settings) -> Batch:
    """The batch of a step: which scans and which random changes depend on (seed, step, slot) alone."""
    randomize = Randomize(settings.train.randomize, settings.prepare.spacing)
    examples = []
    for slot in range(rank * settings.train.batch, (rank + 1) * settings.train.batch):
        place = step * settings.train.batch * world + slot
        prepared = scans[_shuffled(place, len(scans), seed=settings.seed)]
        draw = np.random.SeedSequence([settings.seed, 1, place]).generate_state(1)[0]
        randomize.set_random_state(int(draw))
        floor = prepared.intensity.offset / prepared.intensity.scale
        image, mask = torch.from_numpy(prepared.image), torch.from_numpy(prepared.mask)
        examples.append(randomize(image, mask, floor=floor))
    return Batch(*(torch.stack([getattr(e, name) for e in examples]) for name in ("input", "image", "mask")))


def made_ahead(make: Callable[[int], Batch], steps: range) -> Generator[Batch]:
    """`make(step)` of each step in order, made by threads while the steps before are computed."""
    threads = min(8, max(1, (os.cpu_count() or 1) // 2))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def plain_batch(scans: Scans, index: int) -> Batch:
    """One scan as it is."""
    image = torch.from_numpy(scans[index].image)[None]
    return Batch(image, image, torch.from_numpy(scans[index].mask)[None])


def _shuffled(place: int, count: int, *, seed: int) -> int:
    """Number `place` of an endless sequence that runs through all scans in a new order each time."""
    order = np.random.default_rng([seed, 2, place // count]).permutation(count)
    return int(order[place % count])
