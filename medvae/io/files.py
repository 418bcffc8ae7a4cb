"""Writing files so that they are whole or absent: beside, flushed, renamed."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTIAL = ".partial-"  # prefix of a file that is still being written; the runner removes what a killed run left


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not.

    Raises:
        OSError: the folder cannot be written, the disk is full. `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Write JSON atomically, indented, keys in the given order; NaN is refused."""
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_partials(folder: Path) -> int:
    """Remove what killed runs left below `folder`; returns how many files."""
    left = [path for path in folder.rglob(f"{PARTIAL}*") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
