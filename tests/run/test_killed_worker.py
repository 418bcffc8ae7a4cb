"""A worker that is killed while it sends a result: the pool itself would wait for the rest of the message for ever."""

from __future__ import annotations

import os
import signal
import struct
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import pytest

from medvae.run import processes
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.processes import Processes
from medvae.run.work import Result, TextFile
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 2**18  # letters: more than a pipe holds

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def load_text(ref: ScanRef) -> str:
    """A large text; a scan called "once" or "always" kills the worker in the middle of sending it."""
    killed_before = ref.path.with_suffix(".killed")
    if ref.id == "always" or (ref.id == "once" and not killed_before.exists()):
        killed_before.touch()
        Connection._send_bytes = _half  # type: ignore[attr-defined]
    return ref.id * LARGE


def _half(self: Any, buffer: memoryview) -> None:
    os.write(self.fileno(), struct.pack("!i", len(buffer)) + bytes(buffer[:1000]))
    os.kill(os.getpid(), signal.SIGKILL)


def compute_text(ref: ScanRef, text: str) -> Result:
    return Result((TextFile(f"scans/{ref.id}.txt", text),))


@pytest.mark.parametrize(("killer", "status"), [("once", "ok"), ("always", "failed")])
def test_its_scan_is_read_again_or_ends_as_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killer: str, status: str
) -> None:
    monkeypatch.setattr(processes, "_LOOK_EVERY_S", 0.05)
    names = ("a", killer, "b")
    for name in names:
        (tmp_path / name).write_text("scan", "utf-8")
    refs = [ScanRef(name, "text", (tmp_path / name,)) for name in names]
    with OutputFolder(tmp_path / "out", command="test", identity={}) as folder:
        summary = run_jobs(refs, load_text, compute_text, folder=folder, engine=Processes(2), stage="test")
    assert [(one.id, one.status) for one in summary.outcomes] == [("a", "ok"), (killer, status), ("b", "ok")]
    if status == "failed":
        assert "died" in summary.outcomes[1].message
        assert summary.outcomes[1].input == refs[1].fingerprint(), "by which `train --resume` knows its scans again"
    else:
        assert (tmp_path / "out" / "scans" / "once.txt").read_text("utf-8") == "once" * LARGE
