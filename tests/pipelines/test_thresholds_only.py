"""`medvae calibrate --thresholds-only`: thresholds of another site, with the mean and spread that the model has."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

import medvae
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.errors import InputError, ModelError
from medvae.io.formats import nifti
from medvae.simulate import phantom

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.work import Progress


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisier brains."""
    folder, rng = tmp_path_factory.mktemp("site"), np.random.default_rng(0)
    for index in range(3):
        made = phantom.make(index, seed=7, lesion="none")
        noise = 0.1 * made.data.std() * rng.standard_normal(made.data.shape).astype(np.float32)
        data = np.where(made.data > 0, np.maximum(made.data + noise, 1), 0).astype(np.float32)
        nifti.write(folder / f"site{index}.nii.gz", data, made.geometry, description="made brain")
    return folder


@pytest.fixture(scope="module")
def of_site(model_folder: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibrated model with thresholds of the site, by the command."""
    out = tmp_path_factory.mktemp("of-site") / "model"
    shutil.copytree(model_folder, out)
    words = ["calibrate", str(site), "--model", str(out), "--thresholds-only", "--workers", "0", "--quiet"]
    assert main(words) == 0
    return out


def test_mean_and_spread_stay_and_the_rest_is_of_the_site(of_site: Path, model_folder: Path, site: Path) -> None:
    before, after = (reference_of(load(folder)) for folder in (model_folder, of_site))
    assert after.maps.keys() == before.maps.keys()
    for name, one in after.maps.items():
        assert one.scale == before.maps[name].scale
        assert one.options == before.maps[name].options
        for key, values in before.maps[name].arrays.items():
            assert np.array_equal(one.arrays[key], values), (name, key)
    assert (after.n, after.status) == (3, "thresholds n=3, mean and spread n=3")
    assert after.in_words == "thresholds of 3 healthy scans, mean and spread of 3 others"
    assert set(after.statistics_of) == set(before.scan_hashes)
    assert not set(after.scan_hashes) & set(before.scan_hashes)
    model = load(model_folder)
    first = model.settings.detect.maps[0]
    found = [medvae.detect(path, model) for path in sorted(site.glob("*.nii.gz"))]
    assert after.maps[first].scores == pytest.approx(np.sort([one.score for one in found]), rel=1e-5)
    assert not np.allclose(after.maps[first].scores, before.maps[first].scores)


def test_a_healthy_scan_of_the_site_is_usual_there(of_site: Path, model_folder: Path, site: Path) -> None:
    model = load(of_site)
    each = [medvae.detect(path, model) for path in sorted(site.glob("*.nii.gz"))]
    there, here = each[1], medvae.detect(site / "site1.nii.gz", load(model_folder))
    first = here.first.name
    assert np.array_equal(there.maps[first].data, here.maps[first].data), "the map is the same"
    assert max(one.p for one in each) >= 0.75, "the lowest of three is beside two that are higher"
    assert any(warning.startswith("seen_in_calibration") for warning in there.warnings)
    assert not any(warning.startswith("seen_in_calibration") for warning in here.warnings)


def test_outputs_say_what_is_of_which_scans(of_site: Path, site: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["detect", str(site / "site0.nii.gz"), "--model", str(of_site), "--out", str(out), "--workers", "0"]
    assert main([*words, "--map", "residual_z", "--quiet"]) == 0
    record = json.loads((out / "run.json").read_text("utf-8"))
    sentence = "thresholds of 3 healthy scans, mean and spread of 3 others"
    assert record["reference"] == sentence
    few = "few_healthy: thresholds and p rest on 3 healthy subjects; with fewer than 5 they say little"
    assert few in record["warnings"]
    assert sentence in (out / "review" / "run.js").read_text("utf-8"), "the pages show it"
    short = "thresholds n=3, mean and spread n=3"
    found = json.loads((out / "scans" / "site0" / "findings.json").read_text("utf-8"))
    assert found["reference"] == short
    header = nib.load(out / "scans" / "site0" / "residual_z.nii.gz").header  # type: ignore[attr-defined]
    assert header["descrip"].tobytes().decode().startswith(f"residual_z, z, {short}; research use only")
    calibrated = json.loads((of_site / "calibration" / "run.json").read_text("utf-8"))
    assert calibrated["reference"] == sentence
    assert few in calibrated["warnings"]


def test_python_gives_the_same_bytes(of_site: Path, model_folder: Path, site: Path, tmp_path: Path) -> None:
    medvae.calibrate(model_folder, site, out=tmp_path / "model", thresholds_only=True)
    name = "reference.safetensors"
    assert (tmp_path / "model" / name).read_bytes() == (of_site / name).read_bytes()


def test_again_the_statistics_are_those_of_the_first(of_site: Path, site: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(site.glob("*.nii.gz"))[:2]:
        shutil.copy(path, some)
    again = medvae.calibrate(of_site, some, out=tmp_path / "model", thresholds_only=True)
    assert reference_of(again).n == 2
    assert reference_of(again).statistics_of == reference_of(load(of_site)).statistics_of


def test_scans_behind_the_statistics_are_refused(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model's mean and spread come from"):
        medvae.calibrate(model_folder, brains / "healthy", out=tmp_path / "model", thresholds_only=True)


def test_a_calibration_that_was_interrupted_does_not_let_them_in(
    model_folder: Path, brains: Path, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage != "prepare":
            raise KeyboardInterrupt

    shutil.copytree(model_folder, tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        medvae.calibrate(tmp_path / "model", brains / "healthy", on_progress=stop)
    assert list((tmp_path / "model" / "calibration").glob("*/manifest.jsonl")), "it has prepared them"
    with pytest.raises(InputError, match="model's mean and spread come from"):
        medvae.calibrate(tmp_path / "model", brains / "healthy", thresholds_only=True)


def test_what_is_refused(
    trained_folder: Path, model_folder: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="not calibrated"):
        medvae.calibrate(trained_folder, site, out=tmp_path / "model", thresholds_only=True)
    shutil.copytree(model_folder, tmp_path / "copy")
    words = ["calibrate", str(site), "--model", str(tmp_path / "copy"), "--thresholds-only"]
    assert main([*words, "--set", "detect.top=0.02"]) == 2
    assert "detect.* cannot be changed" in capsys.readouterr().err
