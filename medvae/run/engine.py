"""Many jobs: those done before are known, the others are done; every job ends in exactly one outcome."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from medvae.errors import ScanError
from medvae.run.outcomes import Outcome, Summary
from medvae.run.task import Engine, Task, Todo
from medvae.run.work import Job, Progress, Result, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from medvae.run.folder import OutputFolder

log = logging.getLogger(__name__)
J = TypeVar("J", bound=Job)
T = TypeVar("T")


def run_jobs(
    jobs: Sequence[J],
    load: Callable[[J], T],
    compute: Callable[[J, T], Result],
    *,
    folder: OutputFolder,
    engine: Engine,
    stage: str,
    on_progress: Callable[[Progress], None] = ignore,
) -> Summary:
    """Do every job that is not done yet: `compute(job, load(job))`, and write the files of the result.

    What was done before is known by content: a job whose `id` and `fingerprint()` have a whole result in the folder is
    not done again. Several runs may share a folder: a job that another one holds ends as `skipped` with the code
    `claimed`, unless it is done by the end of this run.

    Args:
        jobs: their ids differ.
        load: reads a job; light and picklable, because it may run in another process.
        compute: turns what was read into a `Result`, where the model is.
        folder: where files, manifest and tables are.
        engine: where the jobs run, e.g. `Processes(workers=2)`.
        stage: what is being done, for `on_progress`.
        on_progress: called at the start and after every job.

    Returns:
        One outcome per job, in the order of the jobs, those done before included. Take the files of a result from its
        outcome, not from the id of the job.

    Raises:
        OutputError: the disk is full; the jobs before it are done.
        KeyboardInterrupt: passed on after everything was stopped; no partial file is left.
    """
    run = _Run(Task(load, compute, folder.path), folder, engine)
    ended = dict[int, Outcome]()
    on_progress(Progress(stage, 0, len(jobs)))
    for _ in range(2):  # what another run holds is looked at again at the end: by then it may be done
        waiting = [(index, job) for index, job in enumerate(jobs) if index not in ended]
        for index, outcome in run.outcomes(waiting) if waiting else ():
            ended[index] = outcome
            on_progress(Progress(stage, len(ended), len(jobs), note=outcome.id))
    if run.before:
        log.info("%d of %d were done before", run.before, len(jobs))
    return Summary(tuple(ended.get(index) or _claimed(job) for index, job in enumerate(jobs)))


@dataclass
class _Run:
    """Jobs on their way through an engine, each closed to other runs meanwhile."""

    task: Task[Any, Any]
    folder: OutputFolder
    engine: Engine
    before: int = 0
    in_flight: dict[str, tuple[int, Todo[Any]]] = field(default_factory=dict)

    def outcomes(self, jobs: Sequence[tuple[int, Job]]) -> Iterator[tuple[int, Outcome]]:
        """The outcomes of those jobs that no other run holds, with their indices."""
        try:
            with closing(self.engine.run(self._taken(jobs), self.task)) as ended:
                for todo, outcome in ended:
                    if outcome.input in todo.known:
                        self.before += 1
                    else:
                        self.folder.append(outcome)
                    index, _ = self.in_flight.pop(todo.job.id)
                    self.folder.release(todo)
                    yield index, outcome
        finally:
            for _, todo in self.in_flight.values():
                self.folder.release(todo)

    def _taken(self, jobs: Sequence[tuple[int, Job]]) -> Iterator[Todo[Any]]:
        for index, job in jobs:
            todo = self.folder.take(job)
            if todo is not None:
                self.in_flight[todo.job.id] = index, todo
                yield todo


def _claimed(job: Job) -> Outcome:
    return Outcome.from_error(job, ScanError("another run is working on it", code="claimed"), stage="read")
