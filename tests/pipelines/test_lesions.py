"""`medvae train --lesions` and the samples of its model: one checkpoint, scans with masks, the same bytes again."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

import medvae
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.io.formats import nifti
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

SMALL = """
prepare: {modality: MR, spacing: [2, 2, 2], shape: [16, 16, 16]}
model: {options: {stem: 2, channels: [8], latent: 2}}
train: {steps: 2, precision: "32", validation: 0, keep_state: false}
detect: {maps: [residual]}
"""
QUICK = ("--set", "lesions.steps=3", "--set", "lesions.channels=[4]", "--set", "lesions.latent=2")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A list of four balls; two have two bright blocks each, which label maps mark."""
    (tmp_path / "small.yaml").write_text(SMALL, "utf-8")
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("scan", "label_map"))
        for index in range(4):
            rows.writerow((f"scan{index}.nii.gz", f"labels{index}.nii.gz" if index < 2 else ""))
            _write(tmp_path, index)
    return tmp_path / "list.csv"


def _write(folder: Path, index: int) -> None:
    rng, geometry = np.random.default_rng(index), Geometry((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 20)] * 3, indexing="ij")
    labels = np.zeros(geometry.shape, np.uint8)
    labels[7:10, 8:11, 9:12] = labels[12:14, 11:14, 6:9] = 1
    values = 300 + 50 * x + 10 * rng.normal(size=x.shape) + (200 * labels if index < 2 else 0)
    values = np.where(x**2 + y**2 + z**2 < 0.6, values, 0).astype(np.float32)
    nifti.write(folder / f"scan{index}.nii.gz", values, geometry, description="made scan")
    if index < 2:
        nifti.write(folder / f"labels{index}.nii.gz", labels, geometry, description="its lesions")


def train(scans: Path, out: Path, *more: str) -> int:
    config = str(scans.parent / "small.yaml")
    words = ["train", str(scans), "--config", config, "--out", str(out), "--workers", "0", "--quiet", *QUICK, *more]
    return main(words)


def augment(model: Path, out: Path) -> None:
    assert main(["augment", "--model", str(model), "--count", "3", "--out", str(out), "--quiet"]) == 0


def test_training_and_sampling_with_lesions(scans: Path, tmp_path: Path) -> None:
    assert train(scans, tmp_path / "model", "--lesions") == 0
    model = load(tmp_path / "model")
    assert model.lesion_vae is not None
    assert model.training.label_maps is not None
    assert model.training.label_maps.reshape(4, -1).any(1).tolist() == [True, True, False, False]
    augment(tmp_path / "model", tmp_path / "out")
    for path in sorted((tmp_path / "out" / "labels").glob("*.nii.gz")):
        label = np.asanyarray(nib.load(path).dataobj)
        image = nib.load(tmp_path / "out" / "images" / path.name).get_fdata()
        assert set(np.unique(label)) == {0, 1}
        assert image[label == 1].mean() > image[(label == 0) & (image > 0)].mean() + 60, "bright, as they were"
    sidecars = [json.loads(one.read_text("utf-8")) for one in (tmp_path / "out").rglob("synthetic-0000*.json")]
    assert len(sidecars) == 3
    assert {one["sources"][0] for one in sidecars} <= {"scan2", "scan3"}, "scans without lesions"
    assert all(one["parameters"]["lesions"] for one in sidecars)


def test_the_same_training_gives_the_same_bytes(scans: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert train(scans, tmp_path / name, "--lesions") == 0
        augment(tmp_path / name, tmp_path / f"out-{name}")
    for part in ("model.json", "lesions.safetensors", "lesion_codes.safetensors"):
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes(), part
    for path in (tmp_path / "out-one").rglob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "out-two" / path.relative_to(tmp_path / "out-one")).read_bytes()


def test_masks_of_other_patients(scans: Path, tmp_path: Path) -> None:
    """Scans without label maps, masks without scans."""
    (tmp_path / "masks").mkdir()
    for index in range(2):
        (tmp_path / f"labels{index}.nii.gz").rename(tmp_path / "masks" / f"labels{index}.nii.gz")
    scans.write_text("scan\nscan2.nii.gz\nscan3.nii.gz\n", "utf-8")
    assert train(scans, tmp_path / "model", "--lesions", "--lesion-masks", str(tmp_path / "masks")) == 0
    augment(tmp_path / "model", tmp_path / "out")
    for path in (tmp_path / "out" / "labels").glob("*.nii.gz"):
        assert np.asanyarray(nib.load(path).dataobj).any()


def test_scans_without_lesions_are_an_error_before_training(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans.write_text("scan\nscan2.nii.gz\nscan3.nii.gz\n", "utf-8")
    assert train(scans, tmp_path / "model", "--lesions") == 2
    said = capsys.readouterr().err
    assert "at least 2 lesions" in said
    assert "label_map" in said


def test_masks_need_lesions_to_be_wanted(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(scans), "--config", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "model")]
    assert main([*words, "--lesion-masks", str(tmp_path), "--quiet"]) == 2
    assert "use --set lesions.steps=600" in capsys.readouterr().err


def test_python_trains_them_as_the_command_does(scans: Path, tmp_path: Path) -> None:
    assert train(scans, tmp_path / "command", "--lesions") == 0
    changes = {
        "lesions.steps": 3,
        "lesions.channels": [4],
        "lesions.latent": 2,
        "augment.sampler": "lesion",
    }
    settings = medvae.load_settings(str(tmp_path / "small.yaml"), changes)
    model = medvae.train(str(scans), config=settings, out=tmp_path / "python")
    assert model.hash == load(tmp_path / "command").hash
    augment(tmp_path / "command", tmp_path / "written")
    for one in medvae.synthesize(model, 3, sampler="lesion"):
        one.save(tmp_path / "saved")
    for path in (tmp_path / "saved").rglob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "written" / path.relative_to(tmp_path / "saved")).read_bytes()
