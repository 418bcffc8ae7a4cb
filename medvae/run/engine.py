"""One function over many scans: read ahead, compute, write behind; every scan ends in exactly one outcome.

`load` runs in worker processes, which import neither torch nor MONAI; `handle` runs in this process; what it returns to
be written is written by one thread while the next scan is computed. Memory is bounded by the scans in flight:
`workers + 1` read ahead, one computed, one written.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medvae import console
from medvae.errors import InputError, OutputError, ScanError
from medvae.io import reading
from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.run.folder import RESEARCH_USE, OutputFolder, disk_errors, fingerprint, hash_of
from medvae.run.outcomes import Failed, Outcome, Summary, attempt, plain, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from medvae.scan import Scan, ScanRef
    from medvae.settings import ReadSettings

__all__ = [
    "RESEARCH_USE",
    "Done",
    "Loaded",
    "Outcome",
    "OutputFolder",
    "ReadAndPrepare",
    "Summary",
    "check_disk",
    "check_memory",
    "default_workers",
    "disk_errors",
    "hash_of",
    "require",
    "run_scans",
]

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """What `handle` gives back for one scan: its numbers, and how to write its files."""

    write: Callable[[], Sequence[str]] = tuple
    scores: dict[str, float | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A scan as read, and on the model's grid."""

    scan: Scan
    prepared: Prepared


@dataclass(frozen=True)
class ReadAndPrepare:
    """The usual `load`: read a scan with its mask and label map, and prepare it. Picklable, light to import."""

    read: ReadSettings
    preparation: Preparation

    def __call__(self, ref: ScanRef) -> Loaded:
        """Raises ScanError where the scan cannot be used."""
        scan = reading.read(ref, self.read)
        mask = None if ref.mask is None else reading.read_mask(ref.mask, scan.geometry, self.read)
        labels = None if ref.label_map is None else reading.read_label_map(ref.label_map, scan.geometry, self.read)
        prepared = prepare(
            scan,
            self.preparation,
            id=ref.id,
            subject=ref.subject,
            mask=mask,
            label_map=labels,
            conditions=ref.conditions,
        )
        return Loaded(scan, prepared)


def run_scans(
    refs: Sequence[ScanRef],
    load: Callable[[ScanRef], T],
    handle: Callable[[ScanRef, T], Done],
    *,
    folder: OutputFolder,
    workers: int,
    title: str,
) -> Summary:
    """Run `handle(ref, load(ref))` for every scan that is not done yet.

    Args:
        refs: in the order in which they are handled, whatever the number of workers.
        load: picklable; runs in a worker process (in this one if `workers` is 0).
        handle: computes; what it returns to be written is written while the next scan is computed.
        folder: keeps the manifest and knows what was done before.
        workers: processes that read ahead.
        title: of the progress bar.

    Raises:
        OutputError: the disk is full; the scans before it are done.
        KeyboardInterrupt: passed on after the workers were stopped; no partial file is left.
    """
    known = {ref.id: outcome for ref in refs if (outcome := folder.done(ref)) is not None}
    todo = [ref for ref in refs if ref.id not in known]
    inputs = {ref.id: fingerprint(ref) for ref in todo}  # before reading: a file that changes meanwhile is done again
    if known:
        log.info("%d of %d scans were done before", len(known), len(refs))

    def end(outcome: Outcome) -> None:
        known[outcome.id] = outcome
        folder.append(outcome)
        bar.advance()

    with (
        console.progress(len(todo), title) as bar,
        ThreadPoolExecutor(1) as writer,
        closing(_read_ahead(todo, load, workers=workers)) as ahead,
    ):
        pending: Callable[[], Outcome] | None = None
        for ref, loaded in ahead:
            bar.note(ref.id)
            begun = time.perf_counter()
            done = _handled(ref, loaded, handle)
            seconds = time.perf_counter() - begun
            if pending is not None:
                end(pending())
                pending = None
            if isinstance(done, Outcome):
                end(done)
                continue
            ok = Outcome(
                ref.id,
                "ok",
                scores=plain(done.scores),
                warnings=done.warnings,
                seconds=seconds,
                input=inputs[ref.id],
            )
            pending = partial(_written, writer.submit(_write, done, ref, folder.path), ok, ref=ref)
        if pending is not None:
            end(pending())
    return Summary(tuple(known[ref.id] for ref in refs))


def check_memory(refs: Sequence[ScanRef], settings: ReadSettings, *, workers: int) -> int:
    """Warn where the scans in flight may need more memory than is free; returns a scan's mean size once read, bytes.

    Both are estimated from the headers of the first scans.
    """
    sizes = []
    for ref in refs[:50]:
        try:
            sizes.append(reading.inspect(ref, settings).nbytes)
        except ScanError:
            continue
    if not sizes:
        return 0
    needed = 6 * max(sizes) * (workers + 2)  # the scan, its smoothed copy, maps; for each scan in flight
    free = _free_memory()
    if free is not None and needed > free:
        log.warning("may need %s of memory, %s are free; --workers 0 needs least", _size(needed), _size(free))
    return sum(sizes) // len(sizes)


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


def check_disk(out: Path, needed: float, *, hint: str) -> None:
    """Refuse a run whose output the disk cannot hold.

    Args:
        out: the output folder, made if it is not there; what it holds from an earlier run need not be written again.
        needed: bytes of the whole output.
        hint: how to need less.

    Raises:
        OutputError: so many bytes are not free.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        free = shutil.disk_usage(out).free
    if needed - there > free:
        message = f"about {_size(needed)} will be written, {_size(free)} are free"
        raise OutputError(message, path=out, hint=hint)


def default_workers() -> int:
    """Processes that read ahead: one on two cores, up to four on more."""
    return min(4, max(0, (os.cpu_count() or 1) - 1))


def require(refs: Sequence[ScanRef]) -> None:
    """Raise an InputError where there is nothing to do."""
    if not refs:
        raise InputError("nothing to do: no scans were found", hint="check the path, --include, --exclude and --split")


# ----------------------------------------------------------------------------------------------------- one scan


def _handled(ref: ScanRef, loaded: T | Failed, handle: Callable[[ScanRef, T], Done]) -> Done | Outcome:
    found = settled(loaded, ref, stage="read")
    if isinstance(found, Outcome):
        return found
    return settled(attempt(lambda _: handle(ref, found), ref), ref, stage="compute")


def _write(done: Done, ref: ScanRef, folder: Path) -> tuple[tuple[str, ...] | Failed, float]:
    """In the writing thread: the names of the files written, and the seconds it took."""
    begun = time.perf_counter()

    def write(_: ScanRef) -> tuple[str, ...]:
        with disk_errors(folder):
            return tuple(done.write())

    return attempt(write, ref), time.perf_counter() - begun


def _written(future: Future[tuple[tuple[str, ...] | Failed, float]], ok: Outcome, *, ref: ScanRef) -> Outcome:
    result, seconds = future.result()
    outputs = settled(result, ref, stage="write")
    if isinstance(outputs, Outcome):
        return outputs
    return replace(ok, outputs=outputs, seconds=round(ok.seconds + seconds, 3))


# -------------------------------------------------------------------------------------------------- reading ahead


def _read_ahead(
    refs: Iterable[ScanRef], load: Callable[[ScanRef], T], *, workers: int
) -> Generator[tuple[ScanRef, T | Failed], None, None]:
    """Pairs in the order of the refs, at most `workers + 1` of them loaded ahead."""
    if workers == 0:
        for ref in refs:
            yield ref, attempt(load, ref)
        return
    waiting = iter(refs)
    ahead: deque[tuple[ScanRef, Future[T | Failed]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            while len(ahead) <= workers and (coming := next(waiting, None)) is not None:
                ahead.append((coming, _submit(pool, load, coming)))
            if not ahead:
                return
            ref, future = ahead.popleft()
            try:
                yield ref, future.result()
            except BrokenProcessPool:
                _stop(pool)
                yield ref, _alone(load, ref)
                pool = _pool(workers)
                ahead = deque((other, one if _is_whole(one) else _submit(pool, load, other)) for other, one in ahead)
    finally:
        _stop(pool)


def _alone(load: Callable[[ScanRef], T], ref: ScanRef) -> T | Failed:
    """After a worker died: load this scan in a process of its own, to know whether it was the one."""
    pool = _pool(1)
    try:
        return _submit(pool, load, ref).result()
    except BrokenProcessPool:
        return Failed(ScanError("the process that read it died", code="out_of_memory", path=ref.path))
    finally:
        _stop(pool)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _submit(pool: ProcessPoolExecutor, load: Callable[[ScanRef], T], ref: ScanRef) -> Future[T | Failed]:
    """Submit with Ctrl-C held back: a worker started here never sees it, not even while it imports."""
    try:
        with _held_back(signal.SIGINT):
            return pool.submit(attempt, load, ref)
    except BrokenProcessPool as problem:  # a worker died since: said when it is this scan's turn
        broken: Future[T | Failed] = Future()
        broken.set_exception(problem)
        return broken


def _is_whole(future: Future[T | Failed]) -> bool:
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
    """Stop the workers at once, whatever they are doing: an interrupted run must not wait."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _start_worker() -> None:
    """Ctrl-C is for the main process, which stops the workers; where that one is killed, they end by themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
