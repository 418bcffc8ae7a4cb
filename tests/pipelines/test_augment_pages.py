"""The pages of `medvae augment`: what `medvae review` makes from the files; no real scans unless asked for."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.io.files import write_text

if TYPE_CHECKING:
    from pathlib import Path


def augment(model: Path, out: Path, count: int, *more: str) -> int:
    return main(["augment", "--model", str(model), "--out", str(out), "--count", str(count), "--quiet", *more])


def pages(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()}


def test_the_pages_are_those_that_review_makes_from_the_disk(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert augment(model_folder, out, 3) == 0
    there = pages(out)
    shutil.rmtree(out / "review")
    assert main(["review", str(out), "--quiet"]) == 0
    assert pages(out) == there
    assert sum(path.parent.name == "scans" for path in there) == 3
    assert b'id="volume_nearest"' not in b"".join(there.values()), "no page holds a patient's voxels"


def test_a_real_scan_is_kept_for_a_page_only_where_it_is_asked_for(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert augment(model_folder, out, 1, "--set", "augment.review_real=true") == 0
    kept = nib.load(out / "review" / "nearest" / "synthetic-00000.nii.gz")
    image = nib.load(out / "images" / "synthetic-00000.nii.gz")
    assert kept.shape == image.shape
    assert np.abs(kept.affine - image.affine).max() < 1e-4
    with open(out / "audit.csv", encoding="utf-8") as file:
        nearest = next(csv.DictReader(file))["nearest"]
    training = load(model_folder).training
    real = training.images[list(training.ids).index(nearest)][0].astype(np.float32)
    mask = training.masks[list(training.ids).index(nearest)][0]
    assert np.corrcoef(kept.get_fdata()[mask], real[mask])[0, 1] > 0.99
    assert 'id="volume_nearest"' in (out / "review" / "scans" / "synthetic-00000.html").read_text("utf-8")


def test_without_review_nothing_of_the_pages_is_written_and_old_ones_go(model_folder: Path, tmp_path: Path) -> None:
    assert augment(model_folder, tmp_path / "set", 1, "--layout", "bids") == 0
    assert (tmp_path / "set" / "participants.tsv").is_file()
    write_text(tmp_path / "set" / "evaluation" / "augment.md", "of the old set")
    write_text(tmp_path / "set" / "accepted.csv", "of the old set")
    assert augment(model_folder, tmp_path / "set", 1, "--set", "augment.review=false", "--overwrite") == 0
    assert not (tmp_path / "set" / "review").exists()
    for name in ("evaluation", "accepted.csv", "participants.tsv"):
        assert not (tmp_path / "set" / name).exists(), name


def test_dicom_series_have_no_pages(model_folder: Path, tmp_path: Path) -> None:
    assert augment(model_folder, tmp_path / "set", 1, "--layout", "dicom") == 0
    assert len(list((tmp_path / "set" / "images" / "synthetic-00000").glob("*.dcm"))) > 1
    assert not (tmp_path / "set" / "review").exists()
