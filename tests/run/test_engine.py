"""Engines: order and bytes whatever the engine, one bad job, a dead worker, what was done before, interruption."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medvae.errors import OutputError, RunError, ScanError
from medvae.io.files import PARTIAL, atomic
from medvae.run import processes
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Outcome
from medvae.run.processes import Processes
from medvae.run.task import Task, Todo
from medvae.run.work import Progress, Result, TextFile
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from medvae.run.outcomes import Summary
    from medvae.run.task import Engine

TEXTS = {
    "a": "one",
    "b": "broken",
    "c": "two",
    "d": "memory",
    "e": "odd",
    "f": "gpu",
    "g": "three",
    "h": "unwritable",
    "i": "four",
}


def load_text(ref: ScanRef) -> str:
    """A scan of these tests is a text; some texts say what goes wrong."""
    text = ref.path.read_text("utf-8")
    if text == "die":
        os._exit(9)
    if text == "broken":
        raise ScanError("ends early", code="truncated", path=ref.path)
    if text == "memory":
        raise MemoryError
    if text == "odd":
        raise ZeroDivisionError("division\nby zero")
    if text == "run":
        raise RunError("the whole run is wrong")
    if text == "slow":
        ref.path.with_suffix(".begun").touch()
        time.sleep(100)
    return text


@dataclass(frozen=True)
class Unwritable:
    """A file whose writing fails."""

    name: str

    def write(self, folder: Path) -> None:
        raise ValueError("no header for it")


def compute_text(ref: ScanRef, text: str) -> Result:
    if text == "gpu":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    name = f"scans/{ref.id}.txt"
    file = Unwritable(name) if text == "unwritable" else TextFile(name, text)
    scores = {"length": len(text), "ratio": float(np.float32("nan"))}
    return Result((file,), scores, facts={"first": text[:1]}, warnings=(f"warned of {ref.id}",))


@dataclass(frozen=True)
class Elsewhere:
    """A second engine: every job wholly in another process, as on another machine; answers in reverse order."""

    def run(self, todos: Iterable[Todo[Any]], task: Task[Any, Any]) -> Generator[tuple[Todo[Any], Outcome], None, None]:
        waiting = list(todos)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [(todo, pool.submit(task.whole, todo)) for todo in waiting]
            for todo, future in reversed(futures):
                yield todo, future.result()


def make(folder: Path, texts: dict[str, str]) -> list[ScanRef]:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [ScanRef(name, "text", (folder / name,)) for name in texts]


def run(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    engine: Engine | None = None,
    compute: Callable[..., Result] = compute_text,
    **more: Any,
) -> Summary:
    with OutputFolder(out, command="test", identity={"seed": 0}, **more) as folder:
        return run_jobs(refs, load_text, compute, folder=folder, engine=engine or Processes(), stage="test")


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def manifest(out: Path) -> list[dict[str, Any]]:
    lines = (out / "manifest.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def no_children() -> bool:
    end = time.monotonic() + 30
    while multiprocessing.active_children():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ScanRef], Path, Summary]:
    """All kinds of scans, run in one process."""
    place = tmp_path_factory.mktemp("alone")
    refs = make(place / "in", TEXTS)
    return refs, place / "out", run(refs, place / "out")


def test_one_bad_scan_never_stops_the_others(alone: tuple[list[ScanRef], Path, Summary]) -> None:
    _, out, summary = alone
    ends = {one.id: (one.status, one.code, one.stage) for one in summary.outcomes}
    ok = ("ok", None, "write")
    assert ends == {
        "a": ok,
        "b": ("rejected", "truncated", "read"),
        "c": ok,
        "d": ("failed", "out_of_memory", "read"),
        "e": ("failed", "internal", "read"),
        "f": ("failed", "out_of_memory", "compute"),
        "g": ok,
        "h": ("failed", "internal", "write"),
        "i": ok,
    }
    assert list(ends) == list(TEXTS)
    assert [line["id"] for line in manifest(out)] == list(TEXTS), "the manifest is in the order of the scans"
    assert {name for name in files(out) if name.startswith("scans")} == {f"scans/{n}.txt" for n in "acgi"}
    odd = summary.outcomes[4]
    assert odd.message == "ZeroDivisionError: division by zero", "one line"
    first = summary.outcomes[0]
    assert first.scores == {"length": 3, "ratio": None}
    assert first.facts == {"first": "o"}
    assert first.warnings == ("warned of a",)
    assert first.outputs == ("scans/a.txt",)
    assert first.seconds >= 0
    assert summary.exit_code == 1


@pytest.mark.parametrize("engine", [Processes(1), Processes(2), Elsewhere()], ids=repr)
def test_every_engine_gives_the_same(
    alone: tuple[list[ScanRef], Path, Summary], tmp_path: Path, engine: Engine
) -> None:
    refs, out, expected = alone
    summary = run(refs, tmp_path / "out", engine=engine)
    assert [without_seconds(one) for one in summary.outcomes] == [without_seconds(one) for one in expected.outcomes]
    if isinstance(engine, Processes):
        assert manifest(tmp_path / "out") == manifest(out), "in the order of the jobs"
    assert sorted(manifest(tmp_path / "out"), key=lambda line: line["id"]) == manifest(out)
    for name, content in files(out).items():
        if name.startswith("scans"):
            assert (tmp_path / "out" / name).read_bytes() == content
    assert no_children()
    again = run(refs[:1], tmp_path / "out", engine=engine, compute=None)  # type: ignore[arg-type]
    assert again.outcomes == summary.outcomes[:1], "done before"


def without_seconds(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0)


def test_work_is_data() -> None:
    """What an engine on another machine has to send there and back."""
    task: Task[ScanRef, str] = Task(load_text, compute_text, Path("out"))
    todo = Todo(ScanRef("a", "text", (Path("a"),)), "place", {"mark": Outcome("a", "ok")})
    result = Result((TextFile("a.txt", "one"),), {"length": 3.0}, {"first": "o"}, ("warning",))
    for value in (task, todo, result, Processes(2)):
        assert pickle.loads(pickle.dumps(value)) == value


def test_progress_is_reported_from_the_start_to_the_end(tmp_path: Path) -> None:
    refs, seen = make(tmp_path / "in", {"a": "one", "b": "broken"}), list[Progress]()
    with OutputFolder(tmp_path / "out", command="test", identity={}) as folder:
        run_jobs(
            refs, load_text, compute_text, folder=folder, engine=Processes(), stage="test", on_progress=seen.append
        )
    assert seen == [Progress("test", 0, 2), Progress("test", 1, 2, "a"), Progress("test", 2, 2, "b")]


def test_a_worker_that_dies_takes_only_its_scan_with_it(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "die", "c": "two", "d": "three"})
    summary = run(refs, tmp_path / "out", engine=Processes(2))
    assert [(one.id, one.status, one.code) for one in summary.outcomes] == [
        ("a", "ok", None),
        ("b", "failed", "out_of_memory"),
        ("c", "ok", None),
        ("d", "ok", None),
    ]
    assert "died" in summary.outcomes[1].message
    assert no_children()


def test_a_scan_given_to_a_dead_pool_says_so_when_it_is_its_turn(tmp_path: Path) -> None:
    dies, whole = make(tmp_path / "in", {"a": "die", "b": "one"})
    pool, task = processes._pool(1), Task(load_text, compute_text, tmp_path)
    with pytest.raises(BrokenProcessPool):
        processes._submit(pool, task, Todo(dies)).result()
    late = processes._submit(pool, task, Todo(whole))
    assert isinstance(late.exception(), BrokenProcessPool)
    assert not processes._is_whole(late)
    processes._stop(pool)


def test_a_pool_ends_though_its_worker_was_stopped_while_it_sent_a_result(tmp_path: Path) -> None:
    (whole,) = make(tmp_path / "in", {"a": "one"})
    pool, task = processes._pool(1), Task(load_text, compute_text, tmp_path)
    processes._submit(pool, task, Todo(whole)).result()
    thread: Any = pool._executor_manager_thread
    results: Any = pool._result_queue
    os.write(results._writer.fileno(), struct.pack("!i", 1000) + b"half")
    processes._stop(pool)
    thread.join(60)
    assert not thread.is_alive(), "Python would wait for it at exit, for ever"


def test_again_does_only_what_is_missing(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "broken", "c": "two", "d": "three", "e": "four"})
    out, seen = tmp_path / "out", list[str]()

    def noting(ref: ScanRef, text: str) -> Result:
        seen.append(ref.id)
        return compute_text(ref, text)

    run(refs, out)
    (out / "scans" / "c.txt").unlink()
    refs[1].path.write_text("repaired", "utf-8")
    refs[3].path.write_text("changed", "utf-8")
    summary = run(refs, out, compute=noting)
    assert seen == ["b", "c", "d"], "refused before, its file is gone, its input has changed"
    assert [one.id for one in summary.outcomes] == list("abcde")
    assert summary.counts == {"ok": 5}
    assert (out / "scans" / "d.txt").read_text("utf-8") == "changed"
    seen.clear()
    again = run(refs, out, compute=noting)
    assert seen == []
    assert again == summary


def test_what_concerns_the_whole_run_ends_it(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "run", "c": "two"})
    with pytest.raises(RunError, match="whole run"):
        run(refs, tmp_path / "out")
    assert not (tmp_path / "out" / "scans" / "c.txt").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_error_and_what_was_done_is_kept(tmp_path: Path, workers: int) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "two", "c": "three", "d": "four"})
    out, full = tmp_path / "out", [True]

    @dataclass(frozen=True)
    class Filling:
        name: str

        def write(self, folder: Path) -> None:
            with atomic(folder / self.name) as partial_file:
                partial_file.write_text("half", "utf-8")
                if full[0] and self.name == "c.txt":
                    raise OSError(errno.ENOSPC, "No space left on device", str(partial_file))

    def compute(ref: ScanRef, text: str) -> Result:
        return Result((Filling(f"{ref.id}.txt"),))

    with pytest.raises(OutputError) as caught:
        run(refs, out, engine=Processes(workers), compute=compute)
    assert str(caught.value) == "c.txt: the disk is full", "the name that the file would have got"
    assert "again" in (caught.value.hint or "")
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert [line["id"] for line in manifest(out)] == ["a", "b"]
    assert no_children()
    full[0] = False
    assert run(refs, out, compute=compute).counts == {"ok": 4}


def test_an_interrupted_run_leaves_no_partial_file_and_no_workers(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "two", "c": "three", "d": "slow"})

    def stop(ref: ScanRef, text: str) -> Result:
        if ref.id == "c":
            _wait_for(refs[3].path.with_suffix(".begun").exists)
            raise KeyboardInterrupt
        return compute_text(ref, text)

    out = tmp_path / "out"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(refs, out, engine=Processes(2), compute=stop)
    assert time.monotonic() - begun < 90, "it does not wait for the slow scan"
    assert no_children()
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert "a" in [line["id"] for line in manifest(out)]
    refs[3].path.write_text("quick", "utf-8")
    assert run(refs, out).counts == {"ok": 4}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "slow", "b": "slow"})
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_engine as t\n"
        "if __name__ == '__main__':\n"
        "    t.run(t.make(Path(sys.argv[2]), dict(a='slow', b='slow')), Path(sys.argv[3]), engine=t.Processes(2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code, "utf-8")
    process = subprocess.Popen([sys.executable, script, Path(__file__).parent, refs[0].path.parent, tmp_path / "out"])
    try:
        _wait_for(lambda: all(ref.path.with_suffix(".begun").exists() for ref in refs))
        children = _workers_of(process.pid)
        assert len(children) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _wait_for(lambda: not any(_alive(child) for child in children))


def _wait_for(found: Callable[[], Any], seconds: float = 80.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value


def _workers_of(pid: int) -> list[int]:
    """Spawned processes of a process, but for the one that tracks resources."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_is_held_back_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with processes._held_back(signal.SIGINT):
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.delattr(signal, "pthread_sigmask")
    with processes._held_back(signal.SIGINT):
        pass
