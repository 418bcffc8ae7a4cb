"""Presets whose samples have label maps (`deform`, `joint`): a training of two steps, and synthetic scans from it."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from medvae.cli.main import main
from medvae.io.formats import nifti
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("train.minutes=null", "train.steps=2", "train.batch=2", "model.options.channels=[8,16]")
OTHER = ("prepare.spacing=[1,1,1]", "prepare.align=none", "detect.maps=[residual]")  # than those of brains


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A list of four crops of a bright ball, each with a label map of two labels."""
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("scan", "label_map"))
        for index in range(4):
            rng = np.random.default_rng(index)
            x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 28, 22)], indexing="ij")
            inside = (x - 0.1 * index) ** 2 + y**2 + z**2 < 0.3
            values = (500 + 300 * inside + 20 * rng.normal(size=inside.shape)).astype(np.float32)
            geometry = Geometry(inside.shape, np.eye(4))
            labels = np.where(inside, np.where(y > 0, 1, 2), 0).astype(np.uint8)
            nifti.write(tmp_path / f"crop{index}.nii.gz", values, geometry, description="made crop")
            nifti.write(tmp_path / f"labels{index}.nii.gz", labels, geometry, description="its labels")
            rows.writerow((f"crop{index}.nii.gz", f"labels{index}.nii.gz"))
    return tmp_path / "list.csv"


def run(scans: Path, preset: str, out: Path, *changes: str) -> Path:
    """Train two steps, then generate two scans."""
    changed = [word for change in (*SHORT, *changes) for word in ("--set", change)]
    train = ["train", str(scans), "--config", preset, "--out", str(out / "model"), "--workers", "0", "--quiet"]
    assert main([*train, *changed]) == 0
    augment = ["augment", "--model", str(out / "model"), "--count", "2", "--out", str(out / "synthetic"), "--quiet"]
    assert main(augment) == 0
    return out / "synthetic"


@pytest.mark.parametrize("preset", ["brain-mri-t1-shape", "hippocampus-mri-shape", "hippocampus-mri-joint"])
def test_training_and_sampling_work_at_the_first_try(preset: str, crops: Path, tmp_path: Path) -> None:
    """On small crops: a brain of the same grid takes its time for the registration, which has tests of its own."""
    out = run(crops, preset, tmp_path, "prepare.shape=[24,32,24]", *OTHER)
    for path in (out / "labels").glob("*.nii.gz"):
        labels, image = (nib.load(folder / path.name) for folder in (path.parent, out / "images"))
        assert set(np.unique(np.asanyarray(labels.dataobj))) == {0, 1, 2}
        assert labels.shape == image.shape
    assert len(list((out / "labels").glob("*.nii.gz"))) == 2


def test_a_joint_model_of_scans_without_label_maps_is_refused(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [str(path) for path in crops.parent.glob("crop*.nii.gz")]
    changed = [word for change in (*SHORT, "prepare.shape=[24,32,24]") for word in ("--set", change)]
    train = ["train", *scans, "--config", "hippocampus-mri-joint", "--out", str(tmp_path / "model"), "--workers", "0"]
    assert main([*train, *changed]) == 2
    said = capsys.readouterr().err
    assert "learns label maps" in said
    assert "model.name=spatial" in said
