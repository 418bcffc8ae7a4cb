"""The runner: order and bytes whatever the number of workers, one bad scan, a dead worker, resumption, interruption."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medvae.errors import OutputError, RunError, ScanError
from medvae.io.files import PARTIAL, atomic, write_text
from medvae.run import engine
from medvae.run.engine import Done, OutputFolder, run_scans
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medvae.run.outcomes import Summary

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


def handle_text(ref: ScanRef, text: str, *, out: Path) -> Done:
    if text == "gpu":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    def write() -> Sequence[str]:
        if text == "unwritable":
            raise ValueError("no header for it")
        write_text(out / "scans" / f"{ref.id}.txt", text)
        return (f"scans/{ref.id}.txt",)

    return Done(write, {"length": len(text), "ratio": np.float32("nan")}, (f"warned of {ref.id}",))


def make(folder: Path, texts: dict[str, str]) -> list[ScanRef]:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [ScanRef(name, "text", (folder / name,)) for name in texts]


def run(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    workers: int = 0,
    handle: Callable[..., Done] = handle_text,
    **more: Any,
) -> Summary:
    folder = OutputFolder(out, command="test", identity={"seed": 0}, **more)
    return run_scans(refs, load_text, partial(handle, out=out), folder=folder, workers=workers, title="test")


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
    assert first.warnings == ("warned of a",)
    assert first.outputs == ("scans/a.txt",)
    assert first.seconds >= 0
    assert summary.exit_code == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_bytes_do_not_depend_on_the_workers(
    alone: tuple[list[ScanRef], Path, Summary], tmp_path: Path, workers: int
) -> None:
    refs, out, _ = alone
    run(refs, tmp_path / "out", workers=workers)
    assert manifest(tmp_path / "out") == manifest(out)
    for name, content in files(out).items():
        if name.startswith("scans"):
            assert (tmp_path / "out" / name).read_bytes() == content
    assert no_children()


def test_a_worker_that_dies_takes_only_its_scan_with_it(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "die", "c": "two", "d": "three"})
    summary = run(refs, tmp_path / "out", workers=2)
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
    pool = engine._pool(1)
    with pytest.raises(BrokenProcessPool):
        engine._submit(pool, load_text, dies).result()
    late = engine._submit(pool, load_text, whole)
    assert isinstance(late.exception(), BrokenProcessPool)
    assert not engine._is_whole(late)
    engine._stop(pool)


def test_again_does_only_what_is_missing(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "broken", "c": "two", "d": "three", "e": "four"})
    out, seen = tmp_path / "out", list[str]()

    def noting(ref: ScanRef, text: str, *, out: Path) -> Done:
        seen.append(ref.id)
        return handle_text(ref, text, out=out)

    run(refs, out)
    (out / "scans" / "c.txt").unlink()
    refs[1].path.write_text("repaired", "utf-8")
    refs[3].path.write_text("changed", "utf-8")
    summary = run(refs, out, handle=noting)
    assert seen == ["b", "c", "d"], "refused before, its file is gone, its input has changed"
    assert [one.id for one in summary.outcomes] == list("abcde")
    assert summary.counts == {"ok": 5}
    assert (out / "scans" / "d.txt").read_text("utf-8") == "changed"
    seen.clear()
    again = run(refs, out, handle=noting)
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

    def handle(ref: ScanRef, text: str, *, out: Path) -> Done:
        def write() -> Sequence[str]:
            with atomic(out / f"{ref.id}.txt") as partial_file:
                partial_file.write_text(text, "utf-8")
                if full[0] and ref.id == "c":
                    raise OSError(errno.ENOSPC, "No space left on device", str(partial_file))
            return (f"{ref.id}.txt",)

        return Done(write)

    with pytest.raises(OutputError) as caught:
        run(refs, out, workers=workers, handle=handle)
    assert str(caught.value) == "c.txt: the disk is full", "the name that the file would have got"
    assert "again" in (caught.value.hint or "")
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert [line["id"] for line in manifest(out)] == ["a", "b"]
    assert no_children()
    full[0] = False
    assert run(refs, out, handle=handle).counts == {"ok": 4}


def test_an_interrupted_run_leaves_no_partial_file_and_no_workers(tmp_path: Path) -> None:
    refs = make(tmp_path / "in", {"a": "one", "b": "two", "c": "three", "d": "slow"})

    def stop(ref: ScanRef, text: str, *, out: Path) -> Done:
        if ref.id == "c":
            _wait_for(refs[3].path.with_suffix(".begun").exists)
            raise KeyboardInterrupt
        return handle_text(ref, text, out=out)

    out = tmp_path / "out"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(refs, out, workers=2, handle=stop)
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
        "import test_runner as t\n"
        "if __name__ == '__main__':\n"
        "    t.run(t.make(Path(sys.argv[2]), dict(a='slow', b='slow')), Path(sys.argv[3]), workers=2)\n"
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
    with engine._held_back(signal.SIGINT):
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.delattr(signal, "pthread_sigmask")
    with engine._held_back(signal.SIGINT):
        pass
