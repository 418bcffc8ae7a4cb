"""The manifest of an output folder: how every scan ended, one line of JSON each; the last line of an id counts.

Several runs append to it, each under the folder's lock.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from medvae.io.files import atomic
from medvae.run.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Manifest:
    """The outcomes in a file that grows; what was read before is not read again.

    Args:
        path: of the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._outcomes = dict[str, Outcome]()
        self._keys = dict[str, set[str]]()
        self._read = 0
        self._inode = 0

    def outcomes(self) -> dict[str, Outcome]:
        """The last outcome of each id by now. The keys are ids in lower case: some file systems know no capitals."""
        try:
            with open(self.path, "rb") as file:
                self._catch_up(file)
        except FileNotFoundError:
            self._forget()
        return self._outcomes

    def of_source(self, source: str) -> list[Outcome]:
        """The last outcomes of the jobs whose files are in one place, whatever their ids."""
        there = self.outcomes()
        return [there[key] for key in sorted(self._keys.get(source, ())) if there[key].source == source]

    def _catch_up(self, file: BinaryIO) -> None:
        there = os.fstat(file.fileno())
        if there.st_ino != self._inode or there.st_size < self._read:  # begun anew by another run
            self._forget()
            self._inode = there.st_ino
        file.seek(self._read)
        new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line that is being written is read when it is whole
        self._read += len(whole)
        for line in whole.splitlines():
            outcome = _outcome(line)
            if outcome is not None:
                self._outcomes[outcome.id.lower()] = outcome
                self._keys.setdefault(outcome.source, set()).add(outcome.id.lower())

    def _forget(self) -> None:
        self._outcomes, self._keys, self._read, self._inode = {}, {}, 0, 0

    def append(self, outcome: Outcome) -> None:
        """Add a line; after one that a killed run left half written, on a line of its own.

        Raises:
            OSError: the file cannot be written.
        """
        line = _line(outcome)
        with open(self.path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                line = line if file.read() == b"\n" else b"\n" + line
            file.write(line)

    def rewrite(self, outcomes: Iterable[Outcome]) -> None:
        """Replace all lines, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        with atomic(self.path) as partial:
            partial.write_bytes(b"".join(map(_line, outcomes)))


def _line(outcome: Outcome) -> bytes:
    text = json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _outcome(line: bytes) -> Outcome | None:
    """The outcome of a line; None where a killed run left it half written, or it is something else."""
    try:
        return Outcome.from_json(json.loads(line))
    except (ValueError, KeyError, TypeError):
        return None
