"""Writing files so that they are whole or absent: beside, flushed, renamed."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvae.io.owner import PATTERN, Owner, has_ended, me

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PARTIAL = ".partial-"  # prefix of a file that is still being written; the name goes on with its writer


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not.

    Raises:
        OSError: the folder cannot be written, the disk is full. `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{me()}-{path.name}")
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


def final_name(path: str) -> str:
    """The path that a file which is still being written will get; any other path as it is."""
    return re.sub(rf"{re.escape(PARTIAL)}{PATTERN}-", "", path)


def remove_partials(folder: Path) -> int:
    """Remove what processes that have ended left half written below `folder`; returns how many files."""
    left = [path for path in files_below(folder) if path.name.startswith(PARTIAL) and has_ended(_writer(path), path)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def remove_matching(folder: Path, patterns: Iterable[str]) -> None:
    """Remove the files below `folder` that match, and the folders that are empty then; other files stay.

    Raises:
        OSError: a file cannot be removed.
    """
    places = {folder}
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        path.unlink(missing_ok=True)
        places.add(path.parent)
    for place in sorted(places, reverse=True):  # those within others first
        with suppress(OSError):  # not empty, or not there
            place.rmdir()


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder. Folders that another process removes meanwhile are passed over."""
    for place, _, names in os.walk(folder):
        for name in names:
            yield Path(place, name)


def _writer(path: Path) -> Owner | None:
    """The process that a partial file belongs to; None where its name does not say."""
    match = re.match(rf"{re.escape(PARTIAL)}({PATTERN})-", path.name)
    return None if match is None else Owner.parse(match.group(1))
