"""Work as plain data: a job, what it returns, and the files to be written. All of it can be pickled.

`load(job)` reads, `compute(job, loaded)` gives a `Result`, whose files are then written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from medvae.io.files import atomic, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


class Job(Protocol):
    """One piece of work, e.g. a scan (`ScanRef`) or the number of a sample.

    - `id` is safe as a file name and unique within a run.
    - `fingerprint()` is a hash of everything that the result depends on besides the run's settings: the contents of the
      files that the job reads, and what a list says about it. It may take as long as reading does.
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    def fingerprint(self) -> str: ...  # noqa: D102


@runtime_checkable
class Placed(Protocol):
    """What a job with files has besides, e.g. a scan: two of them may have one id where they lie in different places.

    - `paths` are its files, at least one.
    - `with_id(name)` is the same job under another id.
    """

    @property
    def paths(self) -> tuple[Path, ...]: ...  # noqa: D102

    def with_id(self, name: str) -> Self: ...  # noqa: D102


def source_of(job: object) -> str:
    """Hash of where a job's files are, without identity; "" for a job without files.

    Of a file, or of two that differ in their suffix alone (a header and its image), the place is their path; of a
    series it is the common folder, for files may be added to it.
    """
    if not isinstance(job, Placed):
        return ""
    paths = [os.path.abspath(path) for path in job.paths]
    pair = len(paths) == 2 and len({_stem(path) for path in paths}) == 1
    place = _stem(paths[0]) if pair else os.path.commonpath(paths)
    return sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _stem(path: str) -> str:
    return os.path.splitext(path.removesuffix(".gz"))[0]


class File(Protocol):
    """A file to be written: plain data until `write` is called.

    - `name` is the path below the output folder, with "/" between its parts.
    - `write(folder)` writes it atomically.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def write(self, folder: Path) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class TextFile:
    """A text in UTF-8."""

    name: str
    text: str = field(repr=False)

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        write_text(folder / self.name, self.text)


@dataclass(frozen=True)
class BytesFile:
    """The content of a binary file, whole."""

    name: str
    content: bytes = field(repr=False)

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        with atomic(folder / self.name) as partial:
            partial.write_bytes(self.content)


@dataclass(frozen=True)
class JsonFile:
    """JSON, indented, keys in the given order."""

    name: str
    tree: Any = field(repr=False)

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        write_json(folder / self.name, self.tree)


@dataclass(frozen=True)
class Result:
    """What a job returns.

    Attributes:
        files: to be written.
        scores: numbers by name; None where one is not known.
        facts: words by name, e.g. the class of a sample or the path of its label map.
        warnings: what a reader of the outputs should know.
    """

    files: tuple[File, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def write(self, folder: Path) -> tuple[str, ...]:
        """Write all files below `folder`; returns their names."""
        for file in self.files:
            file.write(folder)
        return tuple(file.name for file in self.files)


@dataclass(frozen=True)
class Progress:
    """How far a run is: what a callback is given. The library never draws it.

    Attributes:
        stage: what is being done, e.g. "prepare", "train".
        done: steps or scans done.
        total: of how many.
        note: the latest numbers, in words.
    """

    stage: str
    done: int
    total: int
    note: str = ""


def ignore(progress: Progress) -> None:
    """A callback for those who do not want to know."""
