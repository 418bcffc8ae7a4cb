"""Which process wrote something, and whether it still lives: for files that several machines see.

A process is known by its machine, its number and the time of its start, so that neither a number that was given out
again nor two containers with a process 1 each are mistaken for it.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Self

SILENCE_S = 600.0  # a process elsewhere that has not touched its files for so long counts as ended
PATTERN = r"[0-9a-f]{8}-\d+-\d+"  # of `str(owner)`


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        machine: hash of the host's name, its start, and the process namespace (of a container).
        pid: number of the process there.
        start: when it started, in ticks since the machine's start; 0 where the system does not say.
    """

    machine: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.machine}-{self.pid}-{self.start}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The process that `str` wrote; None where the text is something else."""
        if not re.fullmatch(PATTERN, text):
            return None
        machine, pid, start = text.split("-")
        return cls(machine, int(pid), int(start))


def me() -> Owner:
    """This process."""
    return _owner(os.getpid())


def has_ended(owner: Owner | None, path: Path) -> bool:
    """Whether the process that keeps `path` has ended.

    On this machine the system knows. Elsewhere, and where it is not known who it was, a file that was not touched for
    `SILENCE_S` belongs to nobody; the clock is that of the file system.

    Raises:
        OSError: the folder of `path` cannot be written.
    """
    here = None if owner is None or owner.machine != me().machine else _lives(owner)
    if here is not None:
        return not here
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return True
    return _clock(path.parent) - touched > SILENCE_S


@cache
def _owner(pid: int) -> Owner:
    names = [platform.node(), _text("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid")]
    return Owner(sha256("\n".join(names).encode()).hexdigest()[:8], pid, _start(pid) or 0)


def _lives(owner: Owner) -> bool | None:
    """Whether a process of this machine runs; None where the system does not say."""
    if os.name != "posix":
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, whose start the system may hide
        if _start(owner.pid) is None:
            return None
    return _start(owner.pid) == owner.start if owner.start else None


def _start(pid: int) -> int | None:
    """When a process started; None where it does not run, or where the system does not say."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def _clock(folder: Path) -> float:
    """The time of the file system, which may differ from this machine's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
