"""What is done to every job of a run: known from before, or read, computed and written; it always ends in one outcome.

All of it can be pickled where `load` and `compute` can, so that an engine may do the three steps in one place or in
several, in other processes or on other machines that see the output folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from medvae.run.outcomes import Failed, Outcome, as_outcome, attempt, plain
from medvae.run.record import disk_errors
from medvae.run.work import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from medvae.run.work import Result

J = TypeVar("J", bound=Job)
T = TypeVar("T")


@dataclass(frozen=True)
class Todo(Generic[J]):
    """A job that this run may do.

    Attributes:
        job: with the id that its results get.
        source: hash of the place of its files; "" for a job without files.
        known: results that are there already, by fingerprint: where the job has one of these, it was done before.
    """

    job: J
    source: str = ""
    known: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Read(Generic[T]):
    """A job after reading.

    Attributes:
        input: its fingerprint, taken before reading; "" where that failed.
        found: what `load` gave, what is wrong with it, or the outcome from before.
    """

    input: str
    found: T | Failed | Outcome = field(repr=False)


def read(todo: Todo[J], load: Callable[[J], T]) -> Read[T]:
    """Load a job, unless its fingerprint says that it was done before. The step that runs in other processes."""
    mark = attempt(fingerprint_of, todo.job)
    if isinstance(mark, Failed):
        return Read("", mark)
    before = todo.known.get(mark)
    return Read(mark, attempt(load, todo.job) if before is None else before)


@dataclass(frozen=True)
class Computed:
    """A job after computing: its result, and the outcome that it will have once its files are written."""

    result: Result = field(repr=False)
    outcome: Outcome


@dataclass(frozen=True)
class Task(Generic[J, T]):
    """The steps of every job after reading.

    Attributes:
        load: reads a job's files; light and picklable, because it may run in other processes.
        compute: needs the model.
        folder: where the files of the results are written.
    """

    load: Callable[[J], T]
    compute: Callable[[J, T], Result]
    folder: Path

    def calculate(self, todo: Todo[J], read: Read[T]) -> Computed | Outcome:
        """The result of what was read, or the outcome of a job that ends here."""
        begun = time.perf_counter()
        found: T | Outcome = as_outcome(read.found, todo.job, stage="read")
        result = found if isinstance(found, Outcome) else self._result(todo.job, found)
        if isinstance(result, Outcome):
            return result if result.input else replace(result, input=read.input, source=todo.source)
        ok = Outcome(
            todo.job.id,
            "ok",
            seconds=time.perf_counter() - begun,
            warnings=result.warnings,
            scores=plain(result.scores),
            facts=dict(result.facts),
            input=read.input,
            source=todo.source,
        )
        return Computed(result, ok)

    def _result(self, job: J, loaded: T) -> Result | Outcome:
        return as_outcome(attempt(lambda job: self.compute(job, loaded), job), job, stage="compute")

    def write(self, todo: Todo[J], computed: Computed) -> Outcome:
        """Write the files of a result."""
        begun, ok = time.perf_counter(), computed.outcome

        def write(_: J) -> tuple[str, ...]:
            with disk_errors(self.folder):
                return computed.result.write(self.folder)

        outputs = as_outcome(attempt(write, todo.job), todo.job, stage="write")
        if isinstance(outputs, Outcome):
            return replace(outputs, input=ok.input, source=ok.source)
        return replace(ok, outputs=outputs, seconds=round(ok.seconds + time.perf_counter() - begun, 3))

    def whole(self, todo: Todo[J]) -> Outcome:
        """All steps in one place, reading included."""
        computed = self.calculate(todo, read(todo, self.load))
        return computed if isinstance(computed, Outcome) else self.write(todo, computed)


class Engine(Protocol):
    """Where jobs run.

    - `run` yields every job it took from `todos` once, with its outcome; in which order is its own affair.
    - It takes the next job only when there is room for it: a job that was taken is closed to other runs.
    - An error that is about the whole run, and KeyboardInterrupt, are passed on.
    - When the generator is closed, all that it has started is stopped at once, whatever it was doing.
    """

    def run(  # noqa: D102
        self, todos: Iterable[Todo[J]], task: Task[J, T]
    ) -> Generator[tuple[Todo[J], Outcome], None, None]: ...


def fingerprint_of(job: Job) -> str:
    """The job's fingerprint; "" where a file cannot be opened: `load` says what is wrong with it."""
    try:
        return job.fingerprint()
    except OSError:
        return ""
