"""`detect --overwrite`: nothing of the old run lies beside the record of the new one, also after an interruption."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

import medvae
from medvae.io.formats import nifti
from medvae.pipelines import calibrate, detect
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.work import Progress


def stop(progress: Progress) -> None:
    """Interrupt a run after its first scan."""
    if progress.stage == "detect" and progress.done:
        raise KeyboardInterrupt


@pytest.fixture
def evaluated(whole: Path, blocks: tuple[Path, Path], tmp_path: Path) -> Path:
    """A complete run of `detect` on two scans, which was compared with a mask."""
    scans, out = blocks[0], tmp_path / "out"
    two = [scans / "s0.nii.gz", scans / "s1.nii.gz"]
    assert detect.run(two, model=whole, out=out).exit_code == 0
    lesion = np.zeros((20, 18, 16), np.uint8)
    lesion[5:9, 5:9, 5:9] = 1
    nifti.write(tmp_path / "masks" / "s0.nii.gz", lesion, Geometry(lesion.shape, np.eye(4)), description="mask")
    medvae.evaluate(out, tmp_path / "masks", healthy=True)
    return out


def test_an_interrupted_run_leaves_no_tables_of_the_old_one(
    evaluated: Path, whole: Path, blocks: tuple[Path, Path], tmp_path: Path
) -> None:
    two, before = [blocks[0] / "s0.nii.gz", blocks[0] / "s1.nii.gz"], (evaluated / "run.json").read_text("utf-8")
    other = shutil.copytree(whole, tmp_path / "model")
    new = np.zeros((20, 18, 16), np.float32)
    new[3:17, 3:15, 3:13] = 100 + 20 * np.random.default_rng(5).normal(size=(14, 12, 10))
    nifti.write(tmp_path / "new.nii.gz", new, Geometry(new.shape, np.eye(4)), description="block")
    calibrate.run(tmp_path / "new.nii.gz", model=other)
    with pytest.raises(KeyboardInterrupt):
        detect.run(two, model=other, out=evaluated, overwrite=True, on_progress=stop)
    record = json.loads((evaluated / "run.json").read_text("utf-8"))
    assert record["identity"]["reference"] != json.loads(before)["identity"]["reference"]
    assert len(list((evaluated / "scans").iterdir())) == 1
    for name in ("scores.csv", "findings.csv", "evaluation", "review/index.html"):
        assert not (evaluated / name).exists(), name


def test_an_evaluation_of_the_old_run_goes_and_other_files_beside_it_stay(
    evaluated: Path, whole: Path, blocks: tuple[Path, Path]
) -> None:
    written = {path.name for path in (evaluated / "evaluation").iterdir()}
    assert {"evaluation.json", "evaluation.md", "froc.png", "precision_recall_nll.png"} <= written
    (evaluated / "evaluation" / "notes.txt").write_text("mine", "utf-8")
    assert detect.run(blocks[0] / "s0.nii.gz", model=whole, out=evaluated, overwrite=True).exit_code == 0
    assert [path.name for path in (evaluated / "evaluation").iterdir()] == ["notes.txt"]
    (evaluated / "evaluation" / "notes.txt").unlink()
    assert detect.run(blocks[0] / "s0.nii.gz", model=whole, out=evaluated, overwrite=True).exit_code == 0
    assert not (evaluated / "evaluation").exists(), "an empty folder goes"
    assert (evaluated / "scores.csv").is_file()
