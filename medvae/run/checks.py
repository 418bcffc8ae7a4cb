"""Before the first scan: whether memory and disk will do, and how many processes read ahead."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from medvae.errors import OutputError, ScanError
from medvae.io import reading
from medvae.io.files import files_below
from medvae.run.record import disk_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.scan import ScanRef
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)

_LOOKED_AT = 50  # headers that are read to estimate the size of all scans


def check_memory(refs: Sequence[ScanRef], settings: ReadSettings, *, workers: int) -> int:
    """Warn where the scans in flight may need more memory than is free.

    Returns:
        Mean size of a scan once read, in bytes; 0 where no header could be read. Estimated from the first scans.
    """
    sizes = []
    for ref in refs[:_LOOKED_AT]:
        try:
            sizes.append(reading.inspect(ref, settings).nbytes)
        except ScanError:
            continue
    if not sizes:
        return 0
    needed = 6 * max(sizes) * (workers + 2)  # the scan, its smoothed copy, maps; for each scan in flight
    free = _free_memory()
    if free is not None and needed > free:
        log.warning("may need %s of memory, %s are free; workers=0 needs the least", _size(needed), _size(free))
    return sum(sizes) // len(sizes)


def check_disk(out: Path, needed: float, *, hint: str) -> None:
    """Refuse a run whose output the disk cannot hold. Nothing is created.

    Args:
        out: the output folder, which need not exist yet; what it holds already need not be written again.
        needed: bytes of the whole output.
        hint: how to need less.

    Raises:
        OutputError: this many bytes are not free.
    """
    with disk_errors(out):
        there = sum(_size_of(path) for path in files_below(out))
        free = shutil.disk_usage(_existing(out)).free
    if needed - there > free:
        message = f"about {_size(needed)} will be written, {_size(free)} are free"
        raise OutputError(message, path=out, hint=hint)


def default_workers() -> int:
    """Processes that read ahead: one on two cores, up to four on more."""
    return min(4, max(0, (os.cpu_count() or 1) - 1))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another run has renamed or removed it
        return 0


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _free_memory() -> int | None:
    """Bytes that can be had without swapping, in this container if there is one; None where that is not known."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
