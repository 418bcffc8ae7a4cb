"""A named set of arrays in a checkpoint, with plain facts beside them: one safetensors file, complete in itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from medvae.errors import ModelError
from medvae.io.files import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ArraySet:
    """Arrays by name, and what is known of them. Whoever makes one knows what it means; a checkpoint only keeps it.

    Attributes:
        arrays: by name, any shape and type that safetensors holds.
        facts: JSON data.
        summary: what a `repr` of the model shows of it, e.g. "calibrated, n=25"; "" for nothing.
    """

    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    summary: str = ""

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, types, shapes and values of the arrays, and of the facts."""
        digest = sha256(json.dumps([self.facts, self.summary], sort_keys=True).encode())
        for name, values in sorted(self.arrays.items()):
            digest.update(repr((name, values.dtype.str, values.shape)).encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, facts: str | None = None) -> None:
    """Write a safetensors file atomically; `facts` is its metadata (one text: the order of several would vary)."""
    with atomic(path) as partial:
        plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        save_file(plain, partial, metadata=None if facts is None else {"facts": facts})


def save_set(folder: Path, name: str, kept: ArraySet) -> None:
    """Write the set `name` of a checkpoint folder, or replace it."""
    tree = {"facts": dict(kept.facts), "summary": kept.summary, "hash": kept.hash}
    save_arrays(folder / f"{name}.safetensors", kept.arrays, facts=json.dumps(tree, allow_nan=False))


def load_set(path: Path) -> ArraySet:
    """The set that was written to `path`.

    Raises:
        ModelError: it has changed since it was written.
        SafetensorError, OSError, LookupError, ValueError: it is not such a file, or damaged.
    """
    with safe_open(path, framework="numpy") as file:
        tree = json.loads((file.metadata() or {})["facts"])
    kept = ArraySet(load_file(path), tree["facts"], tree["summary"])
    if kept.hash != tree["hash"]:
        raise ModelError(f"{path.name} has changed since it was written", path=path)
    return kept
