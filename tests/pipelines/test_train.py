"""`medvae train`: what the folder holds, what is told, interruption and resumption, refusal."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.pipelines import train as pipeline
from medvae.training.logs import read_epochs
from medvae.training.split import held_out

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = {"weights", "latents", "training", "reference"}


def train(scans: Path, config: Path, out: Path, *more: str) -> int:
    return main(["train", str(scans), "--config", str(config), "--out", str(out), "--workers", "0", "--quiet", *more])


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six small unaligned scans of textured blocks, and a configuration that trains on them within a second."""
    from medvae.io.formats import nifti
    from medvae.scan import Geometry

    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    for index in range(6):
        data = np.zeros((20, 18, 16), np.float32)
        data[3:17, 3:15, 3:13] = 100 + 20 * rng.normal(size=(14, 12, 10)) + 10 * index
        nifti.write(folder / "scans" / f"s{index}.nii.gz", data, Geometry(data.shape, np.eye(4)), description="block")
    config = folder / "config.yaml"
    config.write_text(
        "prepare: {modality: MR, spacing: [1, 1, 1], shape: [24, 24, 16]}\n"
        "model: {options: {stem: 2, channels: [8, 16], latent: 2}}\n"
        "train: {steps: 6, validate_every: 2, precision: '32'}\n"
        "detect: {maps: [residual, nll], draws: 2}\n",
        "utf-8",
    )
    return folder / "scans", config


def test_the_folder_is_a_whole_model(trained_folder: Path) -> None:
    names = {path.name for path in trained_folder.iterdir()}
    assert {f"{name}.safetensors" for name in WHOLE} < names
    assert {"model.json", "run.json", "manifest.jsonl", "log", "curves.png", "reconstructions.png"} < names
    assert not {"cache", "last", "best"} & names, "nothing of the work is left"
    model = load(trained_folder)
    assert len(model.latents.ids) == len(model.training.ids) == 5
    assert model.settings.train.minutes is None
    assert model.record["steps"] == 6
    assert len(model.record["validation"]) == 1
    assert not reference_of(model).calibrated
    assert reference_of(model).n == 5
    assert set(reference_of(model).training) == {"atlas", "residual_z"}


def test_the_log_has_every_epoch(trained_folder: Path) -> None:
    epochs = read_epochs(trained_folder / "log")
    assert [epoch.step for epoch in epochs] == [3, 6]
    assert all(np.isfinite(epoch.loss) and epoch.validation is not None for epoch in epochs)
    assert any(path.name.startswith("events.out.tfevents") for path in (trained_folder / "log").iterdir())


def test_again_does_nothing(
    trained_folder: Path, brains: Path, small_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, record = (trained_folder / "model.json").stat().st_mtime_ns, (trained_folder / "run.json").read_bytes()
    assert train(brains / "train", small_config, trained_folder) == 0
    assert (trained_folder / "run.json").read_bytes() == record, "what is known of the run stays"
    assert "finished model" in capsys.readouterr().out
    assert (trained_folder / "model.json").stat().st_mtime_ns == before


def test_other_settings_are_refused(
    trained_folder: Path, brains: Path, small_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(brains / "train", small_config, trained_folder, "--seed", "7") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_an_interrupted_run_ends_with_the_same_weights(
    blocks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, config = blocks
    assert train(scans, config, tmp_path / "whole") == 0
    real = pipeline._note

    def interrupted(epoch: object) -> str:
        if epoch.step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(epoch)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "_note", interrupted)
    assert train(scans, config, tmp_path / "cut") == 130
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "model.json").exists()
    assert train(scans, config, tmp_path / "cut") == 2
    assert "--resume" in capsys.readouterr().err
    assert train(scans, config, tmp_path / "cut", "--resume") == 0
    whole, cut = (load_file(tmp_path / one / "weights.safetensors") for one in ("whole", "cut"))
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    jsons = [json.loads((tmp_path / one / "model.json").read_text("utf-8")) for one in ("whole", "cut")]
    assert jsons[0] == jsons[1], "a checkpoint says nothing of times"
    assert [e.step for e in read_epochs(tmp_path / "cut" / "log")] == [2, 4, 6]


def test_a_bad_scan_does_not_stop_training(
    blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, config = blocks
    shutil.copytree(scans, tmp_path / "scans")
    whole = (tmp_path / "scans" / "s0.nii.gz").read_bytes()
    (tmp_path / "scans" / "s0.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert train(tmp_path / "scans", config, tmp_path / "model") == 1
    assert "rejected (truncated): s0" in capsys.readouterr().out
    assert load(tmp_path / "model").latents.ids == ["s1", "s2", "s3", "s4", "s5"]


def test_overwrite_begins_anew(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    scans, config = blocks
    assert train(scans, config, tmp_path / "model") == 0
    first = load(tmp_path / "model").hash
    assert train(scans, config, tmp_path / "model", "--seed", "3", "--overwrite") == 0
    assert load(tmp_path / "model").hash != first
    assert [e.step for e in read_epochs(tmp_path / "model" / "log")] == [2, 4, 6]


def test_nothing_usable(blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, config = blocks
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no scan at all")
    assert train(tmp_path / "scans", config, tmp_path / "model") == 2
    assert "none of the scans can be used" in capsys.readouterr().err


def test_a_grid_that_does_not_fit_is_refused_before_anything_is_written(
    blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, config = blocks
    assert train(scans, config, tmp_path / "model", "--set", "prepare.shape=[25, 24, 16]") == 2
    assert "25x24x16 is not divisible by the model's stride 4" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_validation_is_by_subject_and_independent_of_order() -> None:
    subjects = [f"s{i}" for i in range(20)] * 2
    aside = held_out(subjects, share=0.1, seed=0)
    assert len(aside) == 2
    assert held_out(subjects[::-1], share=0.1, seed=0) == aside
    assert held_out(subjects, share=0.1, seed=1) != aside
    assert held_out(["a", "b"], share=0.1, seed=0) == frozenset(), "too few to hold one out"
    assert held_out(subjects, share=0, seed=0) == frozenset()
    assert len(held_out(["a", "b", "c"], share=0.1, seed=0)) == 1
