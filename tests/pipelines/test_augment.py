"""`medvae augment`: synthetic scans that tools read, records that repeat them, the copy audit; the same bytes again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from medvae import plugins
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.synthesis import generate

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model


def augment(model: Path, out: Path, count: int, *more: str) -> int:
    return main(["augment", "--model", str(model), "--out", str(out), "--count", str(count), "--quiet", *more])


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("augmented") / "set"
    assert augment(model_folder, out, 3) == 0
    return out


def test_scans_are_in_real_units_on_a_real_grid(made: Path, model_folder: Path) -> None:
    model = load(model_folder)
    for index in range(3):
        image = nib.load(made / "images" / f"synthetic-{index:05d}.nii.gz")
        values = np.asarray(image.dataobj)
        assert image.shape == model.preparation.grid.shape
        assert np.abs(image.affine - model.preparation.grid.affine).max() < 1e-4
        assert (values >= 0).all()
        assert (values == 0).mean() > 0.3, "a stripped brain lies in zeros"
        scales = [one.offset for one in model.training.intensities]
        assert min(scales) / 2 < np.median(values[values > 0]) < max(scales) * 2, "as bright as real scans"
        assert image.header["descrip"].tobytes().startswith(b"synthetic")


def test_the_sidecar_says_synthetic_and_how_made(made: Path, model_folder: Path) -> None:
    record = json.loads((made / "images" / "synthetic-00001.json").read_text("utf-8"))
    assert record["synthetic"] is True
    assert record["sampler"] == "density"
    assert record["model"] == load(model_folder).hash
    assert record["index"] == 1
    assert "not for diagnosis" in record["notice"]
    assert {"nearest", "distance", "copy", "copy_threshold"} <= set(record["audit"])


def test_lists_are_read_by_monai_and_by_medvae(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = load_decathlon_datalist(str(made / "dataset.json"), is_segmentation=False, data_list_key="training")
    assert len(items) == 3
    assert all(nib.load(item["image"]).ndim == 3 and item["synthetic"] is True for item in items)
    assert main(["info", str(made / "labels.csv"), "--quiet"]) == 0
    assert "synthetic-00002" in capsys.readouterr().out


def test_the_audit_has_samples_beside_real_scans(made: Path) -> None:
    rows = table(made / "audit.csv")
    synthetic, real = ([row for row in rows if row["kind"] == kind] for kind in ("synthetic", "real"))
    assert (len(synthetic), len(real)) == (3, 5)
    assert all(float(row["distance"]) > 0 and row["copy"] in ("yes", "no") for row in synthetic)
    assert all(row["nearest"] != row["id"] for row in real)
    record = json.loads((made / "run.json").read_text("utf-8"))
    assert record["copies"] == sum(row["copy"] == "yes" for row in synthetic)
    assert (made / "montage.png").stat().st_size > 10_000


def test_the_same_seed_gives_the_same_bytes_and_more_are_added(made: Path, model_folder: Path, tmp_path: Path) -> None:
    assert augment(model_folder, tmp_path / "set", 2) == 0
    names = [f"images/synthetic-{i:05d}{suffix}" for i in range(2) for suffix in (".nii.gz", ".json")]
    assert all((tmp_path / "set" / name).read_bytes() == (made / name).read_bytes() for name in names)
    first = (tmp_path / "set" / names[0]).stat().st_mtime_ns
    assert augment(model_folder, tmp_path / "set", 3) == 0
    assert (tmp_path / "set" / names[0]).stat().st_mtime_ns == first, "what is there is not made again"
    for name in (*names, "images/synthetic-00002.nii.gz", "audit.csv", "labels.csv", "dataset.json"):
        assert (tmp_path / "set" / name).read_bytes() == (made / name).read_bytes()
    assert augment(model_folder, tmp_path / "set", 3, "--seed", "9") == 2, "another seed is another set"


@pytest.mark.parametrize("sampler", plugins.names("samplers"))
def test_every_sampler_writes_a_set(sampler: str, model_folder: Path, tmp_path: Path) -> None:
    assert augment(model_folder, tmp_path / "set", 1, "--sampler", sampler) == 0
    assert table(tmp_path / "set" / "labels.csv")[0]["synthetic"] == "yes"
    values = np.asarray(nib.load(tmp_path / "set" / "images" / "synthetic-00000.nii.gz").dataobj)
    assert np.isfinite(values).all()
    assert values.std() > 0


def test_a_copy_is_caught(model_folder: Path, tmp_path: Path) -> None:
    """The classical chain with all its steps off gives training scans back."""
    steps = ("spatial", "gamma", "bias", "blur", "noise")
    off = "{" + ", ".join(f"{step}: 0" for step in steps) + "}"
    change = ["--set", f"augment.options={{randomize: {off}}}"]
    assert augment(model_folder, tmp_path / "set", 2, "--sampler", "classical", *change) == 0
    rows = [row for row in table(tmp_path / "set" / "audit.csv") if row["kind"] == "synthetic"]
    assert [row["copy"] for row in rows] == ["yes", "yes"]
    assert all(float(row["distance"]) < 1e-3 for row in rows)


def test_an_empty_sample_is_said(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = generate.to_voxels

    def blank(sample: generate.Sample, model: Model) -> generate.Voxels:
        voxels = real(sample, model)
        return replace(voxels, data=np.zeros_like(voxels.data))

    monkeypatch.setattr(generate, "to_voxels", blank)
    assert augment(model_folder, tmp_path / "set", 2) == 0
    assert json.loads((tmp_path / "set" / "run.json").read_text("utf-8"))["empty"] == 2
    manifest = (tmp_path / "set" / "manifest.jsonl").read_text("utf-8").splitlines()
    assert all("empty" in str(json.loads(line)["warnings"]) for line in manifest)
