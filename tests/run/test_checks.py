"""Before the first scan: memory, disk, workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvae.errors import OutputError
from medvae.io.formats import nifti
from medvae.run import checks
from medvae.scan import Geometry, ScanRef
from medvae.settings import ReadSettings


def image(path: Path) -> Path:
    data = np.ones((12, 12, 12), np.float32)
    nifti.write(path, data, Geometry(data.shape, np.eye(4)), description="block")
    return path


def test_memory_is_estimated_from_the_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.nii").write_bytes(b"no scan")
    refs = [ScanRef(n, "nifti", (p,)) for n, p in {"s": image(tmp_path / "s.nii"), "bad": tmp_path / "bad.nii"}.items()]
    assert checks.check_memory(refs, ReadSettings(), workers=2) == 4 * 12**3
    assert not caplog.records
    monkeypatch.setattr(checks, "_free_memory", lambda: 1000)
    checks.check_memory(refs, ReadSettings(), workers=2)
    assert "workers=0" in caplog.text
    caplog.clear()
    monkeypatch.setattr(checks, "_free_memory", lambda: None)
    checks.check_memory(refs, ReadSettings(), workers=2)
    assert not caplog.records, "nothing is said where nothing is known"
    assert checks.check_memory(refs[1:], ReadSettings(), workers=2) == 0


def test_free_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"}

    def read(path: Path, *_: Any) -> str:
        if path.as_posix() not in texts:
            raise FileNotFoundError(path)
        return texts[path.as_posix()]

    monkeypatch.setattr(Path, "read_text", read)
    assert checks._free_memory() == 1_000_000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert checks._free_memory() == 8000 * 1024
    texts["/proc/meminfo"] = "MemTotal: 9000 kB\n"
    assert checks._free_memory() is None
    del texts["/proc/meminfo"]
    assert checks._free_memory() is None, "another system"


def test_a_disk_that_cannot_hold_the_output_is_refused_before(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    checks.check_disk(out, 10, hint="less")
    assert not list(tmp_path.iterdir()), "nothing is created by looking"
    out.mkdir(parents=True)
    free = checks.shutil.disk_usage(out).free
    with pytest.raises(OutputError, match="GiB will be written") as caught:
        checks.check_disk(out, free + 2**40, hint="write less")
    assert caught.value.hint == "write less"
    with open(out / "there", "wb") as file:
        file.truncate(2**41)  # a sparse file: what an earlier run wrote need not be written again
    checks.check_disk(out, free + 2**40, hint="write less")
    (out / "there").unlink()
    (out / "dangling").symlink_to(out / "nowhere")  # as a file that another run has renamed since
    checks.check_disk(out, 10, hint="less")


def test_workers_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((1, 0), (2, 1), (5, 4), (64, 4), (None, 0)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert checks.default_workers() == workers
