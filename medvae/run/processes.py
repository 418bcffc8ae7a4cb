"""The engine of this machine: reads ahead in other processes, computes in this one, writes behind in a thread.

The reading processes import neither torch nor MONAI. Memory is bounded by the jobs in flight: `workers + 1` read ahead,
one computed, one written.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from medvae.errors import RunError, ScanError
from medvae.run.outcomes import Failed, Outcome, attempt
from medvae.run.task import Computed, Read, Task, Todo, fingerprint_of, read
from medvae.run.work import Job

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from multiprocessing.process import BaseProcess

_LOOK_EVERY_S = 1.0  # whether the workers are alive
_ERROR = 1  # exit code of a process that ended with a traceback
_GUARD = 'put what the script does below `if __name__ == "__main__":`, or pass workers=0'
J = TypeVar("J", bound=Job)
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Jobs in the given order, and the same bytes, whatever the number of workers.

    Attributes:
        workers: processes that read ahead; with 0 this process reads, too.
    """

    workers: int = 0

    def run(self, todos: Iterable[Todo[J]], task: Task[J, T]) -> Generator[tuple[Todo[J], Outcome], None, None]:
        """See `Engine`."""
        with (
            ThreadPoolExecutor(1) as writer,
            closing(_read_ahead(todos, task, workers=self.workers)) as ahead,
        ):
            written: tuple[Todo[J], Future[Outcome]] | None = None
            for todo, loaded in ahead:
                found = task.calculate(todo, loaded)
                if written is not None:
                    yield written[0], written[1].result()
                    written = None
                if isinstance(found, Computed):
                    written = todo, writer.submit(task.write, todo, found)
                else:
                    yield todo, found
            if written is not None:
                yield written[0], written[1].result()


def _read_ahead(
    todos: Iterable[Todo[J]], task: Task[J, T], *, workers: int
) -> Generator[tuple[Todo[J], Read[T]], None, None]:
    """What was read, in the order of the jobs, at most `workers + 1` of them ahead."""
    if workers == 0:
        for todo in todos:
            yield todo, read(todo, task.load)
        return
    waiting = iter(todos)
    ahead: deque[tuple[Todo[J], Future[Read[T]]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            while len(ahead) <= workers and (coming := next(waiting, None)) is not None:
                ahead.append((coming, _submit(pool, task, coming)))
            if not ahead:
                return
            todo, future = ahead.popleft()
            try:
                yield todo, _result_of(future, pool)
            except BrokenProcessPool:
                _stop(pool)
                yield todo, _alone(task, todo)
                pool = _pool(workers)
                ahead = deque((other, one if _is_whole(one) else _submit(pool, task, other)) for other, one in ahead)
    finally:
        _stop(pool)


def _alone(task: Task[J, T], todo: Todo[J]) -> Read[T]:
    """After a worker died: read this job in a process of its own, to know whether it was the one.

    Raises:
        RunError: the worker has died of an error of Python, not by a signal: while it started, before it read anything.
    """
    pool = _pool(1)
    future = _submit(pool, task, todo)
    workers = tuple((pool._processes or {}).values())
    try:
        return _result_of(future, pool)
    except BrokenProcessPool:
        if any(_exit_code(one) == _ERROR for one in workers):
            message = "the processes that read ahead cannot start: each of them runs the script that was started first"
            raise RunError(message, hint=_GUARD) from None
        mark = attempt(fingerprint_of, todo.job)  # in this process: by it a training knows its scans again
        died = Failed(ScanError("the process that read it died", code="out_of_memory"))
        return Read("" if isinstance(mark, Failed) else mark, died)
    finally:
        _stop(pool)


def _exit_code(worker: BaseProcess) -> int | None:
    """Of a worker whose end the pool has seen: the system may know its code a little later."""
    end = time.monotonic() + _LOOK_EVERY_S
    while worker.exitcode is None and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S / 100)
    return worker.exitcode


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _submit(pool: ProcessPoolExecutor, task: Task[J, T], todo: Todo[J]) -> Future[Read[T]]:
    """Submit with Ctrl-C held back: a worker started here never sees it, not even while it imports."""
    try:
        with _held_back(signal.SIGINT):
            return pool.submit(read, todo, task.load)
    except BrokenProcessPool as problem:  # a worker died since: reported when it is this job's turn
        broken: Future[Read[T]] = Future()
        broken.set_exception(problem)
        return broken


def _result_of(future: Future[Read[T]], pool: ProcessPoolExecutor) -> Read[T]:
    """The result, or BrokenProcessPool where a worker has died.

    A worker that is killed while it sends a result leaves half a message. The pool waits for the rest, and so would
    every result after it: the pool does not look whether its workers are alive then, so this does.
    """
    while not wait([future], timeout=_LOOK_EVERY_S).done:
        dead = any(process.exitcode is not None for process in tuple((pool._processes or {}).values()))
        if dead and not wait([future], timeout=_LOOK_EVERY_S).done:  # time for a pool that has seen it itself
            raise BrokenProcessPool
    return future.result()


def _is_whole(future: Future[Read[T]]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Stop the workers at once, whatever they are doing: an interrupted run must not wait.

    A worker that is stopped while it sends a result leaves half a message. The pool's thread waits for the rest as
    long as anyone could write it, and Python waits for that thread at exit: so our own end of the pipe is closed, too.
    """
    processes = list((pool._processes or {}).values())
    results: Any = pool._result_queue
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    if results is not None:
        results._writer.close()


def _start_worker() -> None:
    """Ctrl-C is for the main process, which stops the workers; where that one is killed, they end by themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
