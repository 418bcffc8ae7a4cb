"""`medvae calibrate` after an interruption: it goes on only with what the same calibration has prepared."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

import medvae
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.errors import InputError, OutputError
from medvae.io.formats import nifti
from medvae.pipelines import calibrate as pipeline
from medvae.scan import Geometry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from medvae.run.work import Progress


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A copy of the model of the blocks."""
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six blocks that training has not seen."""
    folder, rng = tmp_path_factory.mktemp("healthy"), np.random.default_rng(1)
    for index in range(6):
        write(folder / f"h{index}.nii.gz", block(rng, 100 + 10 * index))
    return folder


def block(rng: np.random.Generator, level: float) -> np.ndarray:
    data = np.zeros((20, 18, 16), np.float32)
    data[3:17, 3:15, 3:13] = level + 20 * rng.normal(size=(14, 12, 10))
    return data


def write(path: Path, data: np.ndarray) -> None:
    nifti.write(path, data, Geometry(data.shape, np.eye(4)), description="block")


def stop_at(stage: str) -> Callable[[Progress], None]:
    """What interrupts a run at the first scan of a stage."""

    def stop(progress: Progress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    return stop


def test_other_reading_settings_begin_anew(model: Path, whole: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    volumes = np.stack([block(rng, 100), block(rng, 160)], axis=-1)
    nib.save(nib.Nifti1Image(volumes, np.eye(4)), tmp_path / "two.nii.gz")
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(
            tmp_path / "two.nii.gz",
            model=model,
            overrides=("read.volume=0",),
            on_progress=stop_at("reference statistics"),
        )
    assert list((model / "calibration").rglob("*.safetensors")), "it has prepared the scan"
    assert pipeline.run(tmp_path / "two.nii.gz", model=model, overrides=("read.volume=1",)).exit_code == 0
    other = shutil.copytree(whole, tmp_path / "other")
    assert pipeline.run(tmp_path / "two.nii.gz", model=other, overrides=("read.volume=1",)).exit_code == 0
    assert reference_of(load(model)).scan_hashes == reference_of(load(other)).scan_hashes
    assert reference_of(load(model)).hash == reference_of(load(other)).hash


def test_the_same_settings_go_on(model: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(healthy, model=model, on_progress=stop_at("reference statistics"))
    prepared: list[str] = []
    monkeypatch.setattr(pipeline, "_keep", lambda ref, *_, **__: prepared.append(ref.id))
    assert pipeline.run(healthy, model=model).exit_code == 0
    assert prepared == []


@pytest.mark.parametrize("left", ["", "{"])
def test_a_damaged_record_of_an_unfinished_run_is_no_obstacle(model: Path, healthy: Path, left: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(healthy, model=model, on_progress=stop_at("reference statistics"))
    (model / "calibration" / "unfinished" / "run.json").write_text(left, "utf-8")
    assert pipeline.run(healthy, model=model).exit_code == 0


def test_scans_that_are_behind_mean_and_spread_by_now_are_refused(model: Path, healthy: Path) -> None:
    """Between an interrupted run and its repetition another calibration has used the same scans."""
    old, new = ([healthy / f"h{index}.nii.gz" for index in part] for part in ((0, 1, 2), (3, 4, 5)))
    medvae.calibrate(model, old)
    with pytest.raises(KeyboardInterrupt):
        medvae.calibrate(model, new, thresholds_only=True, on_progress=stop_at("thresholds"))
    unfinished = next((model / "calibration").glob("unfinished*"))
    kept = shutil.copytree(unfinished, model.parent / "kept")
    medvae.calibrate(model, [*old, *new])
    shutil.copytree(kept, unfinished, dirs_exist_ok=True)  # as if that had not removed it
    with pytest.raises(InputError, match="model's mean and spread come from"):
        medvae.calibrate(model, new, thresholds_only=True)


def test_a_copy_that_was_not_calibrated_is_removed(
    model: Path, blocks: tuple[Path, Path], healthy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "calibrated"
    with pytest.raises(InputError, match="training has seen this scan"):
        medvae.calibrate(model, blocks[0] / f"{load(model).latents.ids[0]}.nii.gz", out=out)
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt):
        medvae.calibrate(model, healthy / "h0.nii.gz", out=out, on_progress=stop_at("reference statistics"))
    assert not out.exists()
    done = medvae.calibrate(model, healthy / "h0.nii.gz", out=out)
    assert reference_of(done).calibrated, "the same call as before is not refused"
    with pytest.raises(OutputError, match="exists already"):
        medvae.calibrate(model, healthy / "h1.nii.gz", out=out)
    assert reference_of(load(out)).hash == reference_of(done).hash, "a folder that was there before stays"


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_the_other_mode_begins_anew(model: Path, healthy: Path, before: bool, after: bool) -> None:
    behind, both = healthy / "h0.nii.gz", [healthy / "h0.nii.gz", healthy / "h1.nii.gz"]
    medvae.calibrate(model, behind)
    stop = stop_at("thresholds" if before else "reference statistics")
    with pytest.raises(KeyboardInterrupt):
        medvae.calibrate(model, both, thresholds_only=before, on_progress=stop)
    n = reference_of(medvae.calibrate(model, both, thresholds_only=after)).n
    assert n == (1 if after else 2), "only thresholds refuse the scan that mean and spread are of"
    assert not list((model / "calibration").glob("unfinished*")), "nothing of either is left"
