"""`medvae detect`: maps on the scan's own grid, honest scores, warnings, refusals; the same bytes again."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from medvae import plugins
from medvae.cli.main import main
from medvae.pipelines import detect as pipeline
from medvae.scan import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.work import Progress


def detect(scans: Path, model: Path, out: Path, *more: str) -> int:
    return main(["detect", str(scans), "--model", str(model), "--out", str(out), "--quiet", *more])


def rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "scores.csv", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def detected(brains: Path, model_of_every_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All maps of the two new brains."""
    out = tmp_path_factory.mktemp("detected") / "out"
    every = [text for name in plugins.names("maps") for text in ("--map", name)]
    assert detect(brains / "new", model_of_every_map, out, "--workers", "0", *every) == 0
    return out


def test_every_map_lies_on_the_scan(detected: Path, brains: Path) -> None:
    for scan in ("well", "ill"):
        source = nib.load(brains / "new" / f"{scan}.nii.gz")
        covered = nib.load(detected / "scans" / scan / "coverage.nii.gz")
        assert covered.get_data_dtype() == np.uint8
        for name in plugins.names("maps"):
            found = nib.load(detected / "scans" / scan / f"{name}.nii.gz")
            assert found.shape == source.shape
            assert np.abs(found.affine - source.affine).max() < 1e-4
            assert found.get_data_dtype() == np.float32
            values = np.asarray(found.dataobj)
            assert np.isfinite(values).all()
            text = found.header["descrip"].tobytes().decode().rstrip("\0")
            assert "calibrated, n=3" in text
            assert "research use only" in text
        assert (detected / "scans" / scan / "montage.png").stat().st_size > 10_000
        brain = np.asarray(source.dataobj) != 0
        assert (np.asarray(covered.dataobj)[brain] == 1).mean() > 0.85
        assert (np.asarray(covered.dataobj)[~brain] == 1).mean() < 0.1


def test_the_lesion_stands_out_where_it_is(detected: Path, brains: Path) -> None:
    """Six steps teach a model little, but the residual's healthy statistics already know a bright lesion."""
    lesion = np.asarray(nib.load(brains / "masks" / "ill.nii.gz").dataobj) > 0
    brain = np.asarray(nib.load(brains / "new" / "ill.nii.gz").dataobj) != 0
    for name in ("residual_z", "atlas", "intensity"):
        values = np.asarray(nib.load(detected / "scans" / "ill" / f"{name}.nii.gz").dataobj)
        assert values[lesion].mean() > 1.5 * values[brain & ~lesion].mean(), name


def test_scores_have_p_n_and_warnings(detected: Path) -> None:
    table = rows(detected)
    assert set(table) == {"well", "ill"}
    for row in table.values():
        assert (row["status"], row["calibrated"], row["n"]) == ("ok", "yes", "3")
        for name in plugins.names("maps"):
            assert np.isfinite(float(row[name]))
            assert float(row[f"{name}_p"]) in (0.25, 0.5, 0.75, 1.0), "(1 + k) / (3 + 1)"
    assert float(table["ill"]["residual_z"]) > float(table["well"]["residual_z"])


def test_the_run_record_repeats_the_run(detected: Path) -> None:
    record = json.loads((detected / "run.json").read_text("utf-8"))
    assert record["command"] == "detect"
    assert record["counts"] == {"ok": 2}
    assert record["reference"] == "calibrated, n=3"
    assert record["units"]["residual_z"] == "z"
    assert "not for diagnosis" in record["notice"]


def test_a_model_that_the_mean_image_beats_is_warned_of(detected: Path) -> None:
    warning, few = json.loads((detected / "run.json").read_text("utf-8"))["warnings"]
    assert few.startswith("few_healthy: thresholds and p rest on 3 healthy subjects")
    assert warning.startswith("the model reconstructs worse than the mean of its training scans (error ")
    assert all(warning in row["warnings"] and few in row["warnings"] for row in rows(detected).values())


def test_workers_and_company_change_no_byte(
    brains: Path, model_of_every_map: Path, tmp_path: Path, detected: Path
) -> None:
    alone, few = brains / "new" / "ill.nii.gz", ("--map", "residual_z", "--map", "elbo")
    assert detect(alone, model_of_every_map, tmp_path / "out", "--workers", "1", *few) == 0
    for name in ("residual_z", "elbo"):
        mine = (tmp_path / "out" / "scans" / "ill" / f"{name}.nii.gz").read_bytes()
        assert mine == (detected / "scans" / "ill" / f"{name}.nii.gz").read_bytes()


def test_the_lesion_is_a_candidate_at_its_place(detected: Path, brains: Path) -> None:
    """The table of the run, the scan's own file and its label map say the same."""
    with open(detected / "findings.csv", encoding="utf-8") as file:
        table = [row for row in csv.DictReader(file) if row["id"] == "ill"]
    own = json.loads((detected / "scans" / "ill" / "findings.json").read_text("utf-8"))
    assert len(table) == len(own["candidates"]) == int(rows(detected)["ill"]["candidates"])
    thresholds = json.loads((detected / "run.json").read_text("utf-8"))["thresholds"][own["map"]]
    assert own["threshold"] == pytest.approx(thresholds["candidates"], rel=1e-5)
    assert thresholds["left_out"]["candidates"] > 0.1, "few healthy scans cannot promise a tenth, and say so"
    assert thresholds["left_out"]["voxels"].keys() == thresholds["voxels"].keys()
    labels = nib.load(detected / "scans" / "ill" / "candidates.nii.gz")
    assert labels.get_data_dtype() == np.uint16
    assert set(np.unique(labels.dataobj)) == {0, *(one["number"] for one in own["candidates"])}
    for one, row in zip(own["candidates"], table, strict=True):
        assert [float(row[f"{axis}_ras"]) for axis in "xyz"] == one["ras"]
        index = np.linalg.inv(labels.affine) @ [*one["ras"], 1]
        near = np.argwhere(np.asarray(labels.dataobj) == one["number"])
        assert np.linalg.norm(near - index[:3], axis=1).min() < 3


def test_again_does_only_what_is_missing(
    brains: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert detect(brains / "new", model_folder, out, "--workers", "0") == 0
    kept = (out / "scans" / "well" / "residual_z.nii.gz").stat().st_mtime_ns
    gone = out / "scans" / "ill" / "residual_z.nii.gz"
    before = gone.read_bytes()
    gone.unlink()
    assert detect(brains / "new", model_folder, out, "--workers", "0") == 0
    assert gone.read_bytes() == before
    assert (out / "scans" / "well" / "residual_z.nii.gz").stat().st_mtime_ns == kept
    assert set(rows(out)) == {"well", "ill"}
    table, findings = (out / "scores.csv").read_bytes(), (out / "findings.csv").read_bytes()
    assert detect(brains / "new" / "well.nii.gz", model_folder, out, "--workers", "0") == 0
    assert (out / "scores.csv").read_bytes() == table, "the scores of a scan whose maps are there stay"
    assert (out / "findings.csv").read_bytes() == findings


def test_a_scan_of_the_reference_is_warned_of(brains: Path, model_folder: Path, tmp_path: Path) -> None:
    assert detect(brains / "healthy" / "h0.nii.gz", model_folder, tmp_path / "out", "--workers", "0") == 0
    assert "seen_in_calibration" in rows(tmp_path / "out")["h0"]["warnings"]


def test_a_training_scan_is_warned_of_and_uncalibrated_is_said(
    brains: Path, trained_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = brains / "train" / "t0.nii.gz"
    assert detect(scan, trained_folder, tmp_path / "out", "--workers", "0", "--map", "residual") == 0
    row = rows(tmp_path / "out")["t0"]
    assert row["calibrated"] == "no"
    assert "seen_in_training" in row["warnings"]
    found = nib.load(tmp_path / "out" / "scans" / "t0" / "residual.nii.gz")
    assert "uncalibrated, n=5" in found.header["descrip"].tobytes().decode()


def test_bad_scans_end_in_the_table_and_the_others_go_on(
    brains: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(brains / "new", tmp_path / "scans")
    whole = (tmp_path / "scans" / "well.nii.gz").read_bytes()
    (tmp_path / "scans" / "well.nii.gz").write_bytes(whole[:-400])
    assert detect(tmp_path / "scans", model_folder, tmp_path / "out", "--workers", "0", "--map", "residual") == 1
    table = rows(tmp_path / "out")
    assert (table["well"]["status"], table["well"]["code"], table["well"]["residual"]) == ("rejected", "truncated", "")
    assert table["ill"]["status"] == "ok"
    assert "hint: copy or export the file again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("detect.options.residual_z.scales_mm=[3]", "residual_z.scales_mm=[6.0], not [3.0]"),
        ("detect.top=0.5", "detect.top=0.01, not 0.5"),
        ("prepare.spacing=[1,1,1]", "prepare.* belongs to the model"),
    ],
)
def test_what_the_reference_was_not_computed_for_is_refused(
    change: str, message: str, brains: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(brains / "new", model_folder, tmp_path / "out", "--set", change) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_reference_computed_with_other_options_is_used_with_them(
    brains: Path, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    change = ["--workers", "0", "--set", "detect.options.residual_z.scales_mm=[12]"]
    assert main(["calibrate", "--model", str(tmp_path / "model"), str(brains / "healthy"), "--quiet", *change]) == 0
    scan = brains / "new" / "ill.nii.gz"
    assert detect(scan, tmp_path / "model", tmp_path / "wide", "--map", "residual_z", "--workers", "0") == 0
    assert detect(scan, model_folder, tmp_path / "usual", "--map", "residual_z", "--workers", "0") == 0
    wide, usual = (
        np.asarray(nib.load(tmp_path / one / "scans" / "ill" / "residual_z.nii.gz").dataobj)
        for one in ("wide", "usual")
    )
    assert np.abs(np.gradient(wide)).mean() < np.abs(np.gradient(usual)).mean(), "the wider scale is smoother"


OF_PAGES = ("scan", "template_brain")


def test_maps_are_0_where_nothing_was_evaluated(brains: Path, model_folder: Path, tmp_path: Path) -> None:
    assert detect(brains / "new" / "ill.nii.gz", model_folder, tmp_path / "out", "--workers", "0") == 0
    folder = tmp_path / "out" / "scans" / "ill"
    covered = np.asarray(nib.load(folder / "coverage.nii.gz").dataobj) > 0
    for path in set(folder.glob("*.nii.gz")) - {folder / f"{name}.nii.gz" for name in ("coverage", *OF_PAGES)}:
        values = np.asarray(nib.load(path).dataobj)
        assert (values[~covered] == 0).all()
        assert values[covered].any()


def test_the_scores_are_those_of_the_manifest_and_none_is_lost(
    brains: Path, model_folder: Path, tmp_path: Path
) -> None:
    """A scan that cannot be used has a row, and one that was done in an earlier run keeps its own."""
    scans = tmp_path / "scans"
    shutil.copytree(brains / "new", scans)
    few = ("--workers", "0", "--map", "residual", "--set", "detect.montage=false")
    assert detect(scans / "ill.nii.gz", model_folder, tmp_path / "out", *few) == 0
    (scans / "well.nii.gz").write_bytes(b"no scan")
    assert detect(scans / "well.nii.gz", model_folder, tmp_path / "out", *few) == 2
    assert {name: row["status"] for name, row in rows(tmp_path / "out").items()} == {"ill": "ok", "well": "rejected"}


def test_progress_is_given_to_the_caller_and_nothing_is_printed(
    brains: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[Progress] = []
    scans = Selection((brains / "new",))
    finished = pipeline.run(
        scans,
        model=model_folder,
        out=tmp_path / "out",
        overrides=("detect.maps=[intensity]", "detect.montage=false"),
        on_progress=steps.append,
    )
    assert [(one.stage, one.done, one.total) for one in steps] == [("detect", done, 2) for done in range(3)]
    assert finished.exit_code == 0
    assert finished.lines == (
        f"{tmp_path / 'out'}: scores.csv, findings.csv, and one folder per scan in scans/ (calibrated, n=3)",
        f"{tmp_path / 'out'}/review/index.html: the pages, to be opened in a browser",
    )
    assert capsys.readouterr().out == ""


def test_the_pages_are_those_that_review_makes_from_the_disk(brains: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert detect(brains / "new", model_folder, out, "--workers", "0", "--map", "residual", "--map", "intensity") == 0
    there = {path: path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()}
    assert {"index.html", "run.js", "ill.html", "well.html", "niivue.js"} <= {path.name for path in there}
    shutil.rmtree(out / "review")
    assert main(["review", str(out), "--quiet"]) == 0
    assert {path: path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()} == there
    card = json.loads((out / "run.json").read_text("utf-8"))["model"]
    assert (card["training"], card["align"], card["modality"]) == (4, "mni152", "MR"), "one is for validation"


def test_without_review_nothing_of_the_pages_is_written_and_old_ones_go(
    brains: Path, model_folder: Path, tmp_path: Path
) -> None:
    scan, few = brains / "new" / "ill.nii.gz", ("--workers", "0", "--map", "residual", "--set", "detect.montage=false")
    assert detect(scan, model_folder, tmp_path / "out", *few) == 0
    assert (tmp_path / "out" / "review" / "index.html").is_file()
    few += ("--set", "detect.review=false", "--overwrite")
    assert detect(scan, model_folder, tmp_path / "out", *few) == 0
    assert not (tmp_path / "out" / "review").exists()
    names = {path.name for path in (tmp_path / "out" / "scans" / "ill").iterdir()}
    assert names == {"residual.nii.gz", "coverage.nii.gz", "candidates.nii.gz", "findings.json"}
