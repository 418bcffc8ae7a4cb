"""One function over many scans: read ahead, compute, write behind; every scan ends in exactly one outcome.

`load` runs in worker processes, which import neither torch nor MONAI; `handle` runs in this process; what it returns to
be written is written by one thread while the next scan is computed. Memory is bounded by the scans in flight:
`workers + 1` read ahead, one computed, one written.
"""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
import traceback
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from medvae import __version__, console, io
from medvae.errors import CODES, InputError, MedVAEError, OutputError, ScanError
from medvae.io.files import remove_partials, write_json
from medvae.prepare import Preparation, Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from medvae.scan import Scan, ScanRef
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."


@dataclass(frozen=True)
class Outcome:
    """How one scan ended.

    Attributes:
        id: of the scan.
        status: ok, skipped (no image volume), rejected (it cannot be used), failed (our side).
        code: key of `medvae.errors.CODES`, None where ok.
        stage: "read" or "compute" or "write": where it ended.
        message: what was found, without identity.
        hint: what to do.
        outputs: files written, relative to the output folder.
        seconds: wall time in `handle` and writing.
        warnings: what a reader of the outputs should know.
        scores: numbers by name, for the tables.
        input: fingerprint of the input files (names, sizes, times of change): a changed input is done again.
    """

    id: str
    status: Literal["ok", "skipped", "rejected", "failed"]
    code: str | None = None
    stage: str = "write"
    message: str = ""
    hint: str = ""
    outputs: tuple[str, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    scores: dict[str, float | str | None] = field(default_factory=dict)
    input: str = ""


@dataclass(frozen=True)
class Done:
    """What `handle` gives back for one scan: its numbers, and how to write its files."""

    write: Callable[[], Sequence[str]] = tuple
    scores: dict[str, float | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """How a run ended: one outcome a scan, in the order of the refs, those done before included."""

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Scans by status."""
        return dict(Counter(outcome.status for outcome in self.outcomes))

    @property
    def exit_code(self) -> int:
        """0 all ok or skipped, 1 some rejected or failed, 2 nothing usable."""
        bad = any(outcome.status in ("rejected", "failed") for outcome in self.outcomes)
        if not any(outcome.status == "ok" for outcome in self.outcomes):
            return 2
        return 1 if bad else 0

    def report(self) -> None:
        """Say on stdout what did not end ok, grouped by code, and the counts."""
        by_code: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.status != "ok":
                by_code.setdefault(outcome.code or "internal", []).append(outcome)
        for code in sorted(by_code, key=list(CODES).index):
            first = by_code[code][0]
            more = f" and {len(by_code[code]) - 1} more" if len(by_code[code]) > 1 else ""
            console.out(f"{first.status} ({code}): {first.id}{more}: {first.message}\n  hint: {first.hint}")
        console.out(", ".join(f"{n} {status}" for status, n in sorted(self.counts.items())))


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
        scan = io.read(ref, self.read)
        mask = None if ref.mask is None else io.read_mask(ref.mask, scan.geometry, self.read)
        labels = None if ref.label_map is None else io.read_label_map(ref.label_map, scan.geometry, self.read)
        prepared = prepare(scan, self.preparation, id=ref.id, subject=ref.subject, mask=mask, label_map=labels)
        return Loaded(scan, prepared)


class OutputFolder:
    """The folder of a run: `run.json`, `manifest.jsonl`, and what was done before.

    Args:
        path: made if it is not there.
        command: name of the command.
        identity: what makes two runs the same run (settings, hash of the model): a folder of another one is refused.
        overwrite: begin anew; what an earlier run listed in the manifest is removed.

    Raises:
        OutputError: the folder belongs to another run, holds other files, or cannot be written.
    """

    def __init__(self, path: Path, *, command: str, identity: dict[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self._record = {"command": command, "medvae": __version__, "notice": RESEARCH_USE, "identity": identity}
        self._started = time.time()
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            remove_partials(path)
            self._open(overwrite=overwrite)

    def _open(self, *, overwrite: bool) -> None:
        run, manifest = self.path / "run.json", self.path / "manifest.jsonl"
        before = _read_outcomes(manifest)
        if overwrite:
            for outcome in before.values():
                for name in outcome.outputs:
                    (self.path / name).unlink(missing_ok=True)
            manifest.unlink(missing_ok=True)
            before = {}
        elif run.is_file():
            self._same_run(run)
        elif any(self.path.iterdir()):
            hint = "choose an empty folder, or pass --overwrite"
            raise OutputError("the output folder holds other files", path=self.path, hint=hint)
        self._before = before
        write_json(run, self._record)

    def _same_run(self, run: Path) -> None:
        try:
            there = json.loads(run.read_text("utf-8"))
        except (ValueError, OSError):
            there = {}
        mine = json.loads(json.dumps(self._record))
        if any(there.get(key) != mine[key] for key in ("command", "identity")):
            hint = "choose another folder, or pass --overwrite to begin anew"
            raise OutputError("the folder holds a run with other settings or another model", path=self.path, hint=hint)

    def done(self, ref: ScanRef) -> Outcome | None:
        """The outcome of a scan that ended ok before, with all its files still there and the input unchanged."""
        outcome = self._before.get(ref.id)
        if outcome is None or outcome.status != "ok" or outcome.input != _fingerprint(ref):
            return None
        return outcome if all((self.path / name).is_file() for name in outcome.outputs) else None

    def append(self, outcome: Outcome) -> None:
        """Add a line to the manifest."""
        line = json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False)
        with disk_errors(self.path), open(self.path / "manifest.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def finish(self, summary: Summary, **more: Any) -> None:
        """Complete `run.json` with counts, the time it took, and more facts of the command."""
        seconds = round(time.time() - self._started, 1)
        with disk_errors(self.path):
            write_json(self.path / "run.json", {**self._record, **more, "counts": summary.counts, "seconds": seconds})


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into an OutputError that says so."""
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        message = "the disk is full" if full else f"cannot write: {problem.strerror or problem}"
        hint = "free some space and run the same command again: it goes on where it stopped" if full else None
        raise OutputError(message, path=path, hint=hint) from problem


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
    if known:
        log.info("%d of %d scans were done before", len(known), len(refs))

    def end(outcome: Outcome) -> None:
        known[outcome.id] = outcome
        folder.append(outcome)
        bar.advance()

    with console.progress(len(todo), title) as bar, ThreadPoolExecutor(1) as writer:
        pending: tuple[Future[Sequence[str]], Outcome] | None = None
        for ref, loaded in _read_ahead(todo, load, workers=workers):
            bar.note(ref.id)
            start = time.perf_counter()
            result = _handled(ref, loaded, handle)
            if pending is not None:
                end(_written(*pending))
                pending = None
            if isinstance(result, Outcome):
                end(result)
                continue
            seconds = round(time.perf_counter() - start, 3)
            ok = Outcome(ref.id, "ok", scores=result.scores, warnings=result.warnings, seconds=seconds)
            pending = writer.submit(result.write), replace(ok, input=_fingerprint(ref))
        if pending is not None:
            end(_written(*pending))
    return Summary(tuple(known[ref.id] for ref in refs))


def check_memory(refs: Sequence[ScanRef], settings: ReadSettings, *, workers: int) -> int:
    """Warn where the scans in flight may need more memory than is free; returns a scan's mean size once read, bytes.

    Both are estimated from the headers of the first scans.
    """
    sizes = []
    for ref in refs[:50]:
        try:
            sizes.append(io.inspect(ref, settings).nbytes)
        except ScanError:
            continue
    if not sizes:
        return 0
    needed = 6 * max(sizes) * (workers + 2)  # the scan, its smoothed copy, maps; for each scan in flight
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    if needed > free:
        text = "may need %.1f GiB of memory, %.1f are free; --workers 0 needs least"
        log.warning(text, needed / 2**30, free / 2**30)
    return sum(sizes) // len(sizes)


def check_disk(out: Path, needed: float, *, hint: str) -> None:
    """Refuse a run whose output, `needed` bytes, the disk cannot hold.

    Raises:
        OutputError: so many bytes are not free.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        message = f"about {needed / 2**30:.1f} GiB will be written, {free / 2**30:.1f} are free"
        raise OutputError(message, path=out, hint=hint)


def default_workers() -> int:
    """Processes that read ahead: one on two cores, up to four on more."""
    return min(4, max(0, (os.cpu_count() or 1) - 1))


# ----------------------------------------------------------------------------------------------------- one scan


@dataclass(frozen=True)
class _Failed(Generic[T]):
    problem: ScanError


def _attempt(load: Callable[[ScanRef], T], ref: ScanRef) -> T | _Failed[T]:
    """Load; a problem comes back as a value, so that it crosses processes and never stops the others."""
    try:
        return load(ref)
    except ScanError as problem:
        return _Failed(problem)
    except MemoryError:
        return _Failed(ScanError("memory ran out while reading", code="out_of_memory", path=ref.path))
    except MedVAEError:
        raise
    except Exception as problem:  # a bug or an unforeseen file: this scan fails, the others go on
        log.debug("%s", traceback.format_exc())
        return _Failed(ScanError(f"{type(problem).__name__}: {problem}", code="internal", path=ref.path))


def _handled(ref: ScanRef, loaded: T | _Failed[T], handle: Callable[[ScanRef, T], Done]) -> Done | Outcome:
    if isinstance(loaded, _Failed):
        return _ended(ref, loaded.problem, stage="read")
    done = _attempt(lambda _: handle(ref, loaded), ref)
    return _ended(ref, done.problem, stage="compute") if isinstance(done, _Failed) else done


def _ended(ref: ScanRef, problem: ScanError, *, stage: str) -> Outcome:
    return Outcome(ref.id, problem.status, problem.code, stage, problem.message, problem.hint or "")


def _written(future: Future[Sequence[str]], outcome: Outcome) -> Outcome:
    start = time.perf_counter()
    with disk_errors(Path(outcome.id)):
        outputs = tuple(future.result())
    return replace(outcome, outputs=outputs, seconds=round(outcome.seconds + time.perf_counter() - start, 3))


def _fingerprint(ref: ScanRef) -> str:
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in ref.paths if path.exists()]
    return f"{len(stats)} files, {hash_of(stats)}"


def hash_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's JSON."""
    from hashlib import sha256

    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_outcomes(manifest: Path) -> dict[str, Outcome]:
    """The last outcome of each scan; a line that a killed run left half written is passed over."""
    outcomes = {}
    for line in manifest.read_text("utf-8").splitlines() if manifest.is_file() else ():
        try:
            tree = json.loads(line)
            known = {**tree, "outputs": tuple(tree["outputs"]), "warnings": tuple(tree["warnings"])}
            outcomes[tree["id"]] = Outcome(**known)
        except (ValueError, KeyError, TypeError):
            continue
    return outcomes


# -------------------------------------------------------------------------------------------------- reading ahead


def _read_ahead(
    refs: Iterable[ScanRef], load: Callable[[ScanRef], T], *, workers: int
) -> Iterator[tuple[ScanRef, T | _Failed[T]]]:
    """Pairs in the order of the refs, at most `workers + 1` of them loaded ahead."""
    if workers == 0:
        for ref in refs:
            yield ref, _attempt(load, ref)
        return
    waiting = iter(refs)
    ahead: deque[tuple[ScanRef, Future[T | _Failed[T]]]] = deque()
    pool = _pool(workers)
    try:
        while True:
            while len(ahead) <= workers and (ref := next(waiting, None)) is not None:
                ahead.append((ref, pool.submit(_attempt, load, ref)))
            if not ahead:
                return
            ref, future = ahead.popleft()
            try:
                yield ref, future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                yield ref, _alone(load, ref)
                pool = _pool(workers)
                ahead = deque((other, pool.submit(_attempt, load, other)) for other, _ in ahead)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((pool._processes or {}).values()):
            process.terminate()


def _alone(load: Callable[[ScanRef], T], ref: ScanRef) -> T | _Failed[T]:
    """After a worker died: load this scan in a process of its own, to know whether it was the one."""
    with _pool(1) as pool:
        try:
            return pool.submit(_attempt, load, ref).result()
        except BrokenProcessPool:
            return _Failed(ScanError("the process that read it died", code="out_of_memory", path=ref.path))


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker)


def _quiet_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which stops the workers


def require(refs: Sequence[ScanRef]) -> None:
    """Raise an InputError where there is nothing to do."""
    if not refs:
        raise InputError("nothing to do: no scans were found", hint="check the path, --include, --exclude and --split")
