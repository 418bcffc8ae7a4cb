"""The runner as it was before jobs, until all pipelines have moved to `run_jobs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from medvae import console
from medvae.run.engine import run_jobs
from medvae.run.processes import Processes
from medvae.run.work import Progress, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from medvae.run.folder import OutputFolder
    from medvae.run.outcomes import Summary
    from medvae.scan import ScanRef

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """What `handle` gives back for one scan: its numbers, and how to write its files."""

    write: Callable[[], Sequence[str]] = tuple
    scores: dict[str, float | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _AsResult(Result):
    done: Done = field(default_factory=Done)

    def write(self, folder: Path) -> tuple[str, ...]:
        return tuple(self.done.write())


def run_scans(
    refs: Sequence[ScanRef],
    load: Callable[[ScanRef], T],
    handle: Callable[[ScanRef, T], Done],
    *,
    folder: OutputFolder,
    workers: int,
    title: str,
) -> Summary:
    """The former `run_jobs`."""

    def compute(ref: ScanRef, loaded: T) -> Result:
        done = handle(ref, loaded)
        return _AsResult(scores=done.scores, warnings=done.warnings, done=done)  # type: ignore[arg-type]

    with console.progress(len(refs), title) as bar:
        return run_jobs(
            refs,
            load,
            compute,
            folder=folder,
            engine=Processes(workers),
            stage=title,
            on_progress=_moves(bar),
        )


def _moves(bar: console.Bar) -> Callable[[Progress], None]:
    done = 0

    def move(progress: Progress) -> None:
        nonlocal done
        bar.note(progress.note)
        if progress.done > done:
            bar.advance(progress.done - done)
        done = progress.done

    return move
