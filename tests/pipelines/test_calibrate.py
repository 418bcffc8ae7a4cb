"""`medvae calibrate`: the Reference, and who may not sit in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load, save
from medvae.cli.main import main
from medvae.cohort.find import find
from medvae.cohort.read import read
from medvae.errors import InputError, ModelError, OutputError, RunError, ScanError, SettingsError
from medvae.io.formats import nifti
from medvae.pipelines import calibrate as pipeline
from medvae.pipelines.calibrate import _keep, calibrate
from medvae.prepare.load import ReadAndPrepare
from medvae.run.manifest import Manifest
from medvae.scan import Geometry, Selection, scan_hash
from medvae.vae.conditions import Condition, Conditions

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.work import Progress


def test_the_reference_is_of_the_healthy_scans(model_folder: Path, trained_folder: Path) -> None:
    before, after = load(trained_folder), load(model_folder)
    assert after.hash == before.hash, "the weights are not touched"
    assert reference_of(after).calibrated
    assert reference_of(after).status == "calibrated, n=3"
    assert set(reference_of(after).maps) == set(reference_of(before).maps)
    kept, new = reference_of(before).training, reference_of(after)
    assert np.array_equal(new.maps["atlas"].arrays["mean"], kept["atlas"]["mean"]), "it is of the training scans"
    assert not np.array_equal(new.maps["residual_z"].arrays["mean"], kept["residual_z"]["mean"])
    assert not (model_folder / "calibration" / "cache").exists()
    manifest = (model_folder / "calibration" / "manifest.jsonl").read_text("utf-8")
    assert manifest.count('"ok"') == 3
    assert "cache/" not in manifest


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
    model = load(trained_folder)
    latents = replace(model.latents, subjects=["anna", "bert", "c", "d", "e"])
    save(replace(model, latents=latents), tmp_path / "model")
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
    said = capsys.readouterr().err
    assert "replaced the Reference of 3 healthy scans" in said
    (warning,) = load(model_folder).warnings
    assert warning in said, "what is wrong with the model is said where it is used"
    few = "few_healthy: thresholds and p rest on 1 healthy subject; with fewer than 5 they say little"
    assert few in said
    assert json.loads((tmp_path / "model" / "calibration" / "run.json").read_text("utf-8"))["warnings"] == [
        warning,
        few,
    ]
    assert main([*command, str(brains / "healthy")]) == 0
    assert "replaced" not in capsys.readouterr().err


def test_only_training_scans_are_nothing_to_calibrate_with(
    trained_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained_folder, tmp_path / "model")
    command = ["calibrate", "--model", str(tmp_path / "model"), str(brains / "train" / "t0.nii.gz"), "--workers", "0"]
    assert main([*command, "--quiet"]) == 2
    assert "none of the scans can be used" in capsys.readouterr().out
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


def test_the_record_is_of_the_scans_of_the_reference(
    model_folder: Path, brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a calibration before it nor one that failed or was interrupted has left anything in it."""
    shutil.copytree(model_folder, tmp_path / "model")
    record = tmp_path / "model" / "calibration"

    def recorded() -> tuple[dict[str, str], dict[str, int]]:
        each = Manifest(record / "manifest.jsonl").outcomes().values()
        return {one.id: one.status for one in each}, json.loads((record / "run.json").read_text("utf-8"))["counts"]

    def calibrate_on(*scans: str) -> int:
        words = ["calibrate", *(str(brains / scan) for scan in scans), "--model", str(tmp_path / "model")]
        return main([*words, "--workers", "0", "--quiet"])

    before = recorded()
    assert before == ({"h0": "ok", "h1": "ok", "h2": "ok"}, {"ok": 3})
    assert calibrate_on("train/t0.nii.gz") == 2
    assert recorded() == before, "the Reference is as before"
    assert calibrate_on("train/t1.nii.gz", "healthy/h0.nii.gz") == 0
    assert recorded() == ({"t1": "skipped", "h0": "ok"}, {"ok": 1, "skipped": 1})
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "save_set", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            calibrate(tmp_path / "model", [brains / "healthy" / f"{name}.nii.gz" for name in ("h0", "h1")])
    assert recorded()[0] == {"t1": "skipped", "h0": "ok"}
    prepared: list[str] = []
    monkeypatch.setattr(pipeline, "_keep", lambda ref, *_, **__: prepared.append(ref.id))
    calibrate(tmp_path / "model", brains / "healthy" / "h1.nii.gz")
    assert prepared == [], "it goes on with what was prepared"
    assert recorded() == ({"h1": "ok"}, {"ok": 1})
    assert {path.name for path in record.iterdir() if path.name[0] != "."} == {"run.json", "manifest.jsonl"}


# ------------------------------------------------------------------------------------------------------ from Python


def healthy(brains: Path) -> Selection:
    return Selection((brains / "healthy",))


def test_python_gives_the_bytes_of_the_command(
    trained_folder: Path, model_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[Progress] = []
    model = calibrate(trained_folder, healthy(brains), out=tmp_path / "model", on_progress=steps.append)
    written = {path.name for path in model_folder.iterdir() if path.is_file()}
    assert written == {path.name for path in (tmp_path / "model").iterdir() if path.is_file()}
    for name in written - {"run.json"}:
        assert (tmp_path / "model" / name).read_bytes() == (model_folder / name).read_bytes(), name
    assert model.path == tmp_path / "model"
    assert reference_of(model).status == "calibrated, n=3"
    assert not reference_of(load(trained_folder)).calibrated, "the model itself stays as it is"
    assert [one.stage for one in steps].count("reference statistics") == 9  # three passes over three scans
    assert steps[-1].done == steps[-1].total
    assert capsys.readouterr().out == "", "the library does not print"


def test_in_place_the_model_that_was_loaded_is_calibrated(trained_folder: Path, brains: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_folder, tmp_path / "model")
    model = calibrate(load(tmp_path / "model"), brains / "healthy" / "h0.nii.gz")
    assert reference_of(model).status == "calibrated, n=1"
    assert reference_of(load(tmp_path / "model")).hash == reference_of(model).hash


def test_what_python_is_refused(trained_folder: Path, brains: Path, tmp_path: Path) -> None:
    seen = Selection((brains / "train" / "t0.nii.gz",))
    shutil.copytree(trained_folder, tmp_path / "model")
    with pytest.raises(InputError, match="none of the scans can be used; t0: training has seen"):
        calibrate(tmp_path / "model", seen)
    with pytest.raises(OutputError, match="exists already"):
        calibrate(trained_folder, healthy(brains), out=tmp_path)
    with pytest.raises(ModelError, match="has not been saved to a folder"):
        calibrate(replace(load(trained_folder), path=None), healthy(brains))
    with pytest.raises(ModelError, match="not a model folder"):
        calibrate(tmp_path / "gone", healthy(brains), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_condition_that_training_did_not_have_rejects_the_scan(trained_folder: Path, brains: Path) -> None:
    """And one that it had goes along to the statistics."""
    model = load(trained_folder)
    model = replace(model, conditions=Conditions((Condition("sex", words=("f", "m")),)))
    (ref,) = find(brains / "healthy" / "h0.nii.gz")
    prepare = ReadAndPrepare(model.settings.read, model.preparation)
    known, unknown = (replace(ref, conditions={"sex": sex}) for sex in ("f", "x"))
    (stored,) = _keep(known, prepare(known), trained=model, people=frozenset()).files
    assert stored.prepared.conditions == {"sex": "f"}  # type: ignore[attr-defined]
    with pytest.raises(ScanError) as caught:
        _keep(unknown, prepare(unknown), trained=model, people=frozenset())
    assert caught.value.code == "unknown_condition"


# ----------------------------------------------------------------------------------------------------- verdicts


def test_scans_that_a_reader_did_not_call_healthy_are_left_out(
    trained_folder: Path, brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdicts name the scans by their contents: here they lie elsewhere and have other names than when read."""
    verdicts = _exported(tmp_path, {name: hash_of_scan(brains / "healthy" / f"{name}.nii.gz") for name in ("h0", "h1")})
    (tmp_path / "moved").mkdir()
    for name in ("h0", "h1", "h2"):
        shutil.copy(brains / "healthy" / f"{name}.nii.gz", tmp_path / "moved" / f"other-{name}.nii.gz")
    command = ["calibrate", str(tmp_path / "moved"), "--workers", "0", "--verdicts", str(verdicts)]
    shutil.copytree(trained_folder, tmp_path / "model")
    assert main([*command, "--model", str(tmp_path / "model"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "skipped (read_as_lesion): other-h0" in said
    assert "1 read as healthy, 1 with a lesion, 0 unsure or not judged (left out); 1 without verdicts" in said
    assert main(["calibrate", str(tmp_path / "moved"), "--model", str(tmp_path / "model"), "--workers", "0"]) == 0
    assert reference_of(load(tmp_path / "model")).n == 3, "without verdicts all are taken as healthy"
    assert main([*command, "--model", str(tmp_path / "model"), "--quiet"]) == 0
    left = calibrate(trained_folder, tmp_path / "moved", out=tmp_path / "again", verdicts=verdicts)
    assert reference_of(left).n == 2
    assert reference_of(left).hash == reference_of(load(tmp_path / "model")).hash
    assert reference_of(left).scan_hashes == reference_of(load(tmp_path / "model")).scan_hashes
    assert hash_of_scan(brains / "healthy" / "h0.nii.gz") not in reference_of(left).scan_hashes


def test_verdicts_on_other_scans_are_refused_and_the_model_stays(
    trained_folder: Path, brains: Path, tmp_path: Path
) -> None:
    verdicts = _exported(tmp_path, {"h0": "of another scan", "h1": "of yet another"})
    shutil.copytree(trained_folder, tmp_path / "model")
    with pytest.raises(InputError, match="no verdicts on any of these scans"):
        calibrate(tmp_path / "model", brains / "healthy" / "h0.nii.gz", verdicts=verdicts)
    assert not reference_of(load(tmp_path / "model")).calibrated


def hash_of_scan(path: Path) -> str:
    """As `detect` writes it into `findings.json`."""
    return scan_hash(read(path))


def _exported(folder: Path, hashes: dict[str, str]) -> Path:
    """A lesion in the first scan, a normal variant in the second one."""
    said = zip(hashes.items(), ("lesion", "normal variant"), strict=True)
    scans = [
        {"id": name, "key": "k", "scan_hash": digest, "found": 1, "candidates": {"1": verdict}}
        for (name, digest), verdict in said
    ]
    (folder / "verdicts.json").write_text(json.dumps({"format": "medvae-verdicts", "version": 1, "scans": scans}))
    return folder / "verdicts.json"


def test_python_takes_settings_and_a_device_as_the_command_does(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, geometry = np.random.default_rng(9), Geometry((20, 18, 16), np.eye(4))
    for index in range(2):
        data = np.pad(100 + 20 * rng.normal(size=(14, 12, 10)), 3).astype(np.float32)
        nifti.write(tmp_path / "healthy" / f"h{index}.nii.gz", data, geometry, description="block")
    shutil.copytree(whole, tmp_path / "command")
    words = ["calibrate", "--model", str(tmp_path / "command"), str(tmp_path / "healthy"), "--quiet", "--workers", "0"]
    assert main([*words, "--set", "detect.options.residual.sign=bright", "--device", "cpu"]) == 0
    seen = []
    monkeypatch.setattr(pipeline, "load", lambda *args, **more: (seen.append(more["device"]), load(*args, **more))[1])
    changes = {"detect.options": {"residual": {"sign": "bright"}}}
    given = load(whole, device="cpu")
    found = calibrate(given, tmp_path / "healthy", out=tmp_path / "python", overrides=changes)
    assert set(seen) == {"cpu"}, "that of the model"
    assert reference_of(found).maps["residual"].options["sign"] == "bright"
    written = [(tmp_path / name / "reference.safetensors").read_bytes() for name in ("command", "python")]
    assert written[0] == written[1]
    with pytest.raises(SettingsError, match=r"'train\.lr' has no effect here|train\.\* belongs to the model"):
        calibrate(given, tmp_path / "healthy", out=tmp_path / "none", overrides="train.lr=2")
    with pytest.raises(RunError, match="is not a device"):
        calibrate(given, tmp_path / "healthy", out=tmp_path / "none", device="tpu")
