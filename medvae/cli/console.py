"""What a person sees in the terminal: text, tables, progress, one line per error. The only file that imports rich."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from medvae.cli.words import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from logging import LogRecord

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from medvae.errors import MedVAEError
    from medvae.run.work import Progress

_PLAIN_EVERY_S = 5.0
_quiet = False


def configure(*, verbose: bool = False, quiet: bool = False) -> None:
    """Set up logging once, at the start of a command: warnings, or everything with `verbose`, nothing with `quiet`."""
    import logging  # here, because a plain --help should not pay for it

    class Formatter(logging.Formatter):
        def format(self, record: LogRecord) -> str:
            return translated(super().format(record))

    class Handler(logging.StreamHandler[TextIO]):
        def emit(self, record: LogRecord) -> None:
            _write(self.stream, self.format(record) + self.terminator, flush=True)

    global _quiet
    _quiet = quiet
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = Handler(sys.stderr)
    handler.setFormatter(Formatter("%(message)s" if not verbose else "%(name)s: %(message)s"))
    ours = logging.getLogger("medvae")
    ours.handlers[:] = [handler]
    ours.setLevel(level)
    ours.propagate = False


def out(text: str = "") -> None:
    """Print a result to stdout."""
    _write(sys.stdout, text + "\n")


def flush() -> None:
    """Write what stdout still holds."""
    _write(sys.stdout, "", flush=True)


def _write(stream: TextIO, text: str, *, flush: bool = False) -> None:
    """Write; where the reader, e.g. `head`, has what it wanted, the command goes on and what it says is dropped."""
    try:
        stream.write(text)
        if flush:
            stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # also for what Python itself writes at the end
        os.close(nowhere)


def say(lines: Iterable[str]) -> None:
    """Print texts of the library to stdout, in the words of the command line."""
    for line in lines:
        out(translated(line))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns to stdout; the last column is not padded."""
    lines = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        out("  ".join(cells).rstrip())


def error(problem: MedVAEError) -> None:
    """Print an error as one line, and its hint, to stderr."""
    _write(sys.stderr, f"medvae: {translated(str(problem))}\n")
    if problem.hint:
        _write(sys.stderr, f"  hint: {translated(problem.hint)}\n")


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A callback that shows how far a run is: a bar per stage on stderr; plain lines without a terminal; or nothing."""
    if _quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _rich_progress() as drawn:
            yield _Drawn(drawn)
    else:
        yield _Plain()


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


class _Drawn:
    """One bar per stage."""

    def __init__(self, drawn: RichProgress) -> None:
        self._drawn = drawn
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._tasks[progress.stage] = self._drawn.add_task(progress.stage, total=progress.total, note="")
        self._drawn.update(task, completed=progress.done, total=progress.total, note=progress.note)


class _Plain:
    """A line now and then, and one at the end of each stage."""

    def __init__(self) -> None:
        self._stage, self._last = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now, begins = time.monotonic(), progress.stage != self._stage
        ended = progress.done >= progress.total
        if begins or ended or now - self._last > _PLAIN_EVERY_S:
            self._stage, self._last = progress.stage, now
            text = f"{progress.stage}: {progress.done}/{progress.total} {progress.note}"
            _write(sys.stderr, text.rstrip() + "\n")
