"""What a person sees in the terminal: text, tables, progress, one line an error. The only file that imports rich."""

from __future__ import annotations

import io
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.progress import Progress, TaskID

    from medvae.errors import MedVAEError

_PLAIN_EVERY_S = 5.0
_quiet = False


class Bar(Protocol):
    """A progress bar, drawn or plain.

    - `advance(steps)` moves it on.
    - `note(text)` shows the latest numbers beside it.
    - `total(count)` corrects the length.
    """

    def advance(self, steps: int = 1) -> None: ...  # noqa: D102

    def note(self, text: str) -> None: ...  # noqa: D102

    def total(self, count: int) -> None: ...  # noqa: D102


def configure(*, verbose: bool = False, quiet: bool = False) -> None:
    """Set up logging once, at the start of a command: warnings, or everything with `verbose`, nothing with `quiet`."""
    import logging  # here, because a plain --help should not pay for it

    global _quiet
    _quiet = quiet
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if not verbose else "%(name)s: %(message)s"))
    ours = logging.getLogger("medvae")
    ours.handlers[:] = [handler]
    ours.setLevel(level)
    ours.propagate = False


def out(text: str = "") -> None:
    """Print a result to stdout."""
    sys.stdout.write(text + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns to stdout; the last column is not padded."""
    lines = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        out("  ".join(cells).rstrip())


def error(problem: MedVAEError) -> None:
    """Print an error as one line, and its hint, to stderr."""
    sys.stderr.write(f"medvae: {problem}\n")
    if problem.hint:
        sys.stderr.write(f"  hint: {problem.hint}\n")


@contextmanager
def progress(total: int, title: str) -> Iterator[Bar]:
    """A progress bar on stderr; a line now and then where there is no terminal; nothing when quiet."""
    if _quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        with _rich_progress() as drawn:
            yield _Drawn(drawn, drawn.add_task(title, total=total, note=""))
    else:
        yield _Plain(total, title)


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


class _Silent:
    def advance(self, steps: int = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def total(self, count: int) -> None:
        """Nothing."""


class _Drawn:
    def __init__(self, drawn: Progress, task: TaskID) -> None:
        self._drawn, self._task = drawn, task

    def advance(self, steps: int = 1) -> None:
        self._drawn.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._drawn.update(self._task, note=text)

    def total(self, count: int) -> None:
        self._drawn.update(self._task, total=count)


class _Plain:
    def __init__(self, total: int, title: str) -> None:
        self._total, self._title = total, title
        self._done, self._text, self._last = 0, "", 0.0

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._done >= self._total or time.monotonic() - self._last > _PLAIN_EVERY_S:
            self._last = time.monotonic()
            sys.stderr.write(f"{self._title}: {self._done}/{self._total} {self._text}".rstrip() + "\n")

    def note(self, text: str) -> None:
        self._text = text

    def total(self, count: int) -> None:
        self._total = count
