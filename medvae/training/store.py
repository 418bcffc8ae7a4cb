"""Prepared scans on disk, one safetensors file each, and in memory while they fit.

Training keeps them in `OUT/cache/`, named by the scans' ids: a run that was interrupted need not prepare again.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from medvae.io.files import atomic
from medvae.prepare.preparation import Intensity, Prepared
from medvae.scan import Geometry
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_IN_MEMORY_GIB = 6.0
_FACTS = ("id", "subject", "modality", "units", "source_hash", "warnings", "conditions")


@dataclass(frozen=True, eq=False)
class StoredScan:
    """A prepared scan as a file to be written (`medvae.run.work.File`)."""

    name: str
    prepared: Prepared = field(repr=False)

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        store(self.prepared, folder / self.name)


def store(prepared: Prepared, path: Path) -> None:
    """Write a prepared scan, the image as float16 (robust z within ±10: a step of 0.008 at most)."""
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
    facts = {name: getattr(prepared, name) for name in _FACTS}
    facts["input_shape"] = prepared.input.shape
    facts["intensity"] = {k: repr(v) for k, v in asdict(prepared.intensity).items()}
    with atomic(path) as partial:
        save_file(arrays, partial, metadata={"facts": json.dumps(facts)})


def fetch(path: Path) -> Prepared:
    """A prepared scan as it was stored."""
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    image = arrays["image"].astype(np.float32)
    shape = facts.pop("input_shape")
    intensity = {k: float(v) for k, v in facts.pop("intensity").items()}
    return Prepared(
        **{**facts, "warnings": tuple(facts["warnings"])},
        image=image,
        mask=arrays["mask"].astype(bool),
        fov=arrays["fov"].astype(bool),
        to_input=arrays["to_input"],
        grid=Geometry(image.shape[1:], arrays["grid"]),
        input=Geometry(tuple(shape), arrays["input"]),
        intensity=Intensity(**intensity),
        label_map=arrays.get("label_map"),
    )


def tell_of_copies(files: Iterable[Path]) -> None:
    """Warn where stored scans of different subjects have the same voxels: they are held apart by subject alone."""
    same: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in files:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["facts"])
        same[facts["source_hash"]].append((facts["id"], facts["subject"]))
    copies = [found for found in same.values() if len({subject for _, subject in found}) > 1]
    if copies:
        more = f" (and of {len(copies) - 1} more scans)" if len(copies) > 1 else ""
        names = " and ".join(sorted(name for name, _ in copies[0])[:2])
        log.warning("%s are copies of one scan under different subjects%s: leave one out", names, more)


@dataclass(eq=False)
class Scans:
    """Stored scans of one role (training or validation); in memory while they fit, else read when asked for.

    Attributes:
        files: of the scans, in a fixed order.
        conditions: how their conditions become numbers.
    """

    files: Sequence[Path]
    conditions: Conditions = field(default_factory=Conditions)
    _kept: dict[int, Prepared] = field(default_factory=dict, repr=False)
    _room: float = field(default=_IN_MEMORY_GIB * 2**30, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Prepared:
        """The prepared scan number `index`. A condition that the training scans do not have is missing."""
        if index in self._kept:
            return self._kept[index]
        prepared = fetch(self.files[index])
        prepared = replace(prepared, conditions=self.conditions.known(prepared.conditions))
        self._room -= (6 if prepared.label_map is None else 8) * prepared.image.size
        if self._room > 0:
            self._kept[index] = prepared
        return prepared
