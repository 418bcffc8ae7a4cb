"""`medvae calibrate`: the Reference, and who may not sit in it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_reference_is_of_the_healthy_scans(model_folder: Path, trained_folder: Path) -> None:
    before, after = load(trained_folder), load(model_folder)
    assert after.hash == before.hash, "the weights are not touched"
    assert reference_of(after).calibrated
    assert reference_of(after).status == "calibrated, n=3"
    assert set(reference_of(after).scores) == set(reference_of(before).scores)
    assert reference_of(after).image is not None
    assert reference_of(after).image.n == 5, "the atlas stays that of the training scans"
    assert not (model_folder / "calibration" / "cache").exists()


def test_again_gives_the_same_reference(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    assert (
        main(["calibrate", "--model", str(tmp_path / "model"), str(brains / "healthy"), "--quiet", "--workers", "0"])
        == 0
    )
    for name in ("reference.safetensors", "model.json"):
        assert (tmp_path / "model" / name).read_bytes() == (model_folder / name).read_bytes()


def test_training_scans_and_their_subjects_are_left_out(
    trained_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained_folder, tmp_path / "model")
    tree = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    tree["latents"]["subjects"] = ["anna", "bert", "c", "d", "e"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(tree), "utf-8")
    rows = [f"{brains}/train/t0.nii.gz,x", f"{brains}/healthy/h0.nii.gz,anna", f"{brains}/healthy/h1.nii.gz,zoe"]
    (tmp_path / "list.csv").write_text("\n".join(["scan,subject", *rows]) + "\n", "utf-8")
    assert (
        main(["calibrate", "--model", str(tmp_path / "model"), str(tmp_path / "list.csv"), "--quiet", "--workers", "0"])
        == 0
    )
    assert "skipped (seen_in_training)" in capsys.readouterr().out
    assert reference_of(load(tmp_path / "model")).n == 1


def test_fewer_scans_than_before_are_warned_of(
    model_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    command = ["calibrate", "--model", str(tmp_path / "model"), "--workers", "0"]
    assert main([*command, str(brains / "healthy" / "h0.nii.gz")]) == 0
    assert "the Reference of 3 healthy scans that was there is replaced" in capsys.readouterr().err
    assert main([*command, str(brains / "healthy")]) == 0
    assert "is replaced" not in capsys.readouterr().err


def test_only_training_scans_are_nothing_to_calibrate_with(
    trained_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained_folder, tmp_path / "model")
    command = ["calibrate", "--model", str(tmp_path / "model"), str(brains / "train" / "t0.nii.gz"), "--workers", "0"]
    assert main([*command, "--quiet"]) == 2
    assert "none of the scans can be used" in capsys.readouterr().err
    assert not reference_of(load(tmp_path / "model")).calibrated


def test_a_wrong_option_of_a_map_is_refused_before_anything_is_prepared(
    model_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    before = (tmp_path / "model" / "calibration" / "run.json").read_bytes()
    command = ["calibrate", "--model", str(tmp_path / "model"), str(brains / "healthy"), "--set"]
    for option in ("residual_z.scales=[0]", "residual_z.winsor=3"):
        assert main([*command, f"detect.options.{option}"]) == 2
        assert "residual_z" in capsys.readouterr().err
    assert (tmp_path / "model" / "calibration" / "run.json").read_bytes() == before
    assert not (tmp_path / "model" / "calibration" / "cache").exists()
