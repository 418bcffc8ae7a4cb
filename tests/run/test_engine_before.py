"""The runner before the first scan: memory, disk, workers; how a scan is usually loaded, with mask and label map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvae.errors import InputError, OutputError, ScanError
from medvae.io.formats import nifti
from medvae.prepare.preparation import Preparation
from medvae.run import engine
from medvae.run.engine import ReadAndPrepare
from medvae.scan import Geometry, ScanRef
from medvae.settings import PrepareSettings, ReadSettings


def image(path: Path, value: int = 100, *, spacing: float = 1.0, dtype: Any = np.float32) -> Path:
    data = np.zeros((12, 12, 12), dtype)
    data[3:9, 3:9, 3:9] = value
    if dtype is np.float32:
        data += np.arange(12, dtype=np.float32) * (data > 0)
    nifti.write(path, data, Geometry(data.shape, np.diag([spacing, spacing, spacing, 1])), description="block")
    return path


def test_reading_and_preparing_takes_mask_and_labels_along(tmp_path: Path) -> None:
    ref = ScanRef(
        "s",
        "nifti",
        (image(tmp_path / "s.nii.gz"),),
        subject="who",
        mask=image(tmp_path / "m.nii.gz", 1, dtype=np.uint8),
        label_map=image(tmp_path / "l.nii.gz", 7, dtype=np.uint8),
    )
    settings = PrepareSettings(modality="MR", spacing=(1, 1, 1), shape=(16, 16, 16))
    loaded = ReadAndPrepare(ReadSettings(), Preparation(settings))(ref)
    assert loaded.scan.data.shape == (12, 12, 12)
    assert (loaded.prepared.id, loaded.prepared.subject) == ("s", "who")
    assert loaded.prepared.mask.sum() == 6**3
    other = ScanRef("s", "nifti", ref.paths, mask=image(tmp_path / "far.nii.gz", 1, spacing=2.0, dtype=np.uint8))
    with pytest.raises(ScanError) as caught:
        ReadAndPrepare(ReadSettings(), Preparation(settings))(other)
    assert caught.value.code == "mask_mismatch"


def test_memory_is_estimated_from_the_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.nii").write_bytes(b"no scan")
    refs = [ScanRef(n, "nifti", (p,)) for n, p in {"s": image(tmp_path / "s.nii"), "bad": tmp_path / "bad.nii"}.items()]
    assert engine.check_memory(refs, ReadSettings(), workers=2) == 4 * 12**3
    assert not caplog.records
    monkeypatch.setattr(engine, "_free_memory", lambda: 1000)
    engine.check_memory(refs, ReadSettings(), workers=2)
    assert "--workers 0" in caplog.text
    caplog.clear()
    monkeypatch.setattr(engine, "_free_memory", lambda: None)
    engine.check_memory(refs, ReadSettings(), workers=2)
    assert not caplog.records, "nothing is said where nothing is known"
    assert engine.check_memory(refs[1:], ReadSettings(), workers=2) == 0


def test_free_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"}

    def read(path: Path, *_: Any) -> str:
        if path.as_posix() not in texts:
            raise FileNotFoundError(path)
        return texts[path.as_posix()]

    monkeypatch.setattr(Path, "read_text", read)
    assert engine._free_memory() == 1_000_000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert engine._free_memory() == 8000 * 1024
    texts["/proc/meminfo"] = "MemTotal: 9000 kB\n"
    assert engine._free_memory() is None
    del texts["/proc/meminfo"]
    assert engine._free_memory() is None, "another system"


def test_a_disk_that_cannot_hold_the_output_is_refused_before(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    engine.check_disk(out, 10, hint="less")
    assert out.is_dir()
    free = engine.shutil.disk_usage(out).free
    with pytest.raises(OutputError, match="GiB will be written") as caught:
        engine.check_disk(out, free + 2**40, hint="write less")
    assert caught.value.hint == "write less"
    with open(out / "there", "wb") as file:
        file.truncate(2**41)  # a sparse file: what an earlier run wrote need not be written again
    engine.check_disk(out, free + 2**40, hint="write less")
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        engine.check_disk(tmp_path / "file" / "out", 1, hint="")


def test_workers_and_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((1, 0), (2, 1), (5, 4), (64, 4), (None, 0)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert engine.default_workers() == workers
    with pytest.raises(InputError, match="nothing to do"):
        engine.require([])
    engine.require([ScanRef("a", "text", (Path("a"),))])
