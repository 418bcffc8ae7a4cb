"""`medvae evaluate detect`: known lesions found at thresholds of healthy scans; what is refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

import medvae
from medvae.cli.main import main
from medvae.errors import InputError, ScanError
from medvae.evaluation import report
from medvae.evaluation.lesions import Curve, Volume, measure
from medvae.evaluation.metrics import ScanVoxels
from medvae.io.formats import nifti
from medvae.run.manifest import Manifest
from medvae.run.outcomes import Outcome
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

GEOMETRY = Geometry((10, 10, 10), np.diag([-2.0, 2.0, 3.0, 1.0]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two scans with two lesions each, one of which lies above 3; a healthy one. Threshold 3 for every rate."""
    rng = np.random.default_rng(0)
    out = tmp_path / "out"
    lines = ["id,nll"]
    for name in ("a", "b", "well"):
        values = rng.random(GEOMETRY.shape).astype(np.float32)
        lesion = np.zeros(GEOMETRY.shape, np.uint8)
        if name != "well":
            lesion[2:4, 2:4, 2:4] = lesion[7, 7, 7] = 1
            values[2:4, 2:4, 2:4] = 5
            values[5, 5, 0] = 4
            nifti.write(tmp_path / "truth" / f"{name}.nii.gz", lesion, GEOMETRY, description="")
        for stem, data in (("nll", values), ("coverage", np.ones(GEOMETRY.shape, np.uint8))):
            nifti.write(out / "scans" / name / f"{stem}.nii.gz", data, GEOMETRY, description="")
        lines.append(f"{name},{values.max()}")
    (out / "scores.csv").write_text("\n".join(lines) + "\n", "utf-8")
    known = {"nll": {"candidates": 3.0, "voxels": {"0.001": 3.0, "0.01": 3.0}}}
    (out / "run.json").write_text(json.dumps({"thresholds": known, "reference": "calibrated, n=9"}), "utf-8")
    return out


def test_what_is_found_at_a_threshold(run: Path) -> None:
    found = medvae.evaluate(run, run.parent / "truth", healthy=True)
    one = found.tree["maps"]["nll"]
    row = one["at_healthy_fpr"]["0.001"]
    assert row["dice"][0] == pytest.approx(2 * 8 / (9 + 9))
    assert row["voxel_sensitivity"][0] == pytest.approx(8 / 9)
    assert row["lesion_sensitivity"][0] == 0.5
    assert row["false_regions"][0] == pytest.approx(2 / 3)
    assert row["healthy_fpr"][0] == pytest.approx(2 / 991 / 3)
    assert (one["auroc"][0], one["ap_of_scans"][0]) == (1, 1)
    assert found.tree["prevalence"] == pytest.approx(18 / 3000)
    assert (found.tree["scans"], found.tree["with_lesion"]) == (3, 2)
    files = {"evaluation.json", "evaluation.md", "froc.png", "precision_recall_nll.png"}
    assert {path.name for path in found.out.iterdir()} == files
    assert json.loads((found.out / "evaluation.json").read_text("utf-8")) == found.tree


def test_the_command_writes_the_bytes_of_python(run: Path) -> None:
    place = medvae.evaluate(run, run.parent / "truth").out
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert main(["evaluate", "detect", str(run), "--truth", str(run.parent / "truth"), "--quiet"]) == 0
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    tree = json.loads(before["evaluation.json"])
    one = tree["maps"]["nll"]
    assert (tree["scans"], one["auroc"], one["ap_of_scans"]) == (2, None, None), "a scan without a mask is left out"


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run of detect"):
        medvae.evaluate(tmp_path, tmp_path)
    for text in ("[]", "null", '{"thresholds": {}}', "{"):
        (tmp_path / "run.json").write_text(text, "utf-8")
        with pytest.raises(InputError, match="no finished run of detect"):
            medvae.evaluate(tmp_path, tmp_path)
    with pytest.raises(InputError, match="no such folder of masks"):
        medvae.evaluate(run, tmp_path / "nowhere", healthy=True)
    with pytest.raises(InputError, match="the masks are not a folder"):
        medvae.evaluate(run, run.parent / "truth" / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no mask in the folder"):
        medvae.evaluate(run, tmp_path / "empty")
    nothing = np.zeros(GEOMETRY.shape, np.uint8)
    nifti.write(tmp_path / "none" / "a.nii.gz", nothing, GEOMETRY, description="")
    with pytest.raises(InputError, match="none of the scans has a lesion"):
        medvae.evaluate(run, tmp_path / "none")
    other = Geometry((9, 10, 10), GEOMETRY.affine)
    nifti.write(tmp_path / "wrong" / "a.nii.gz", np.ones(other.shape, np.uint8), other, description="")
    with pytest.raises(ScanError, match="of the scan"):
        medvae.evaluate(run, tmp_path / "wrong")


def test_a_mask_of_no_scan_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And how many scans have none: with a misnamed mask a lesion would count as healthy without a word."""
    masks = run.parent / "truth"
    (masks / "more").mkdir()
    (masks / "b.nii.gz").rename(masks / "more" / "mr-b.nii.gz")
    for options, sentence in ((["--healthy"], "taken as healthy"), ([], "left out")):
        assert main(["evaluate", "detect", str(run), "--truth", str(masks), *options]) == 0
        said = capsys.readouterr()
        assert "1 mask belongs to no scan that has maps: more/mr-b.nii.gz" in said.err
        text = (run / "evaluation" / "evaluation.md").read_text("utf-8")
        for where in (text, said.out):
            assert "1 mask belongs to no scan that has maps: more/mr-b.nii.gz." in where
            assert f"2 scans without a mask, {sentence}: b, well." in where
        tree = json.loads((run / "evaluation" / "evaluation.json").read_text("utf-8"))
        assert tree["masks_without_scan"] == ["more/mr-b.nii.gz"]
        assert (tree["taken_as_healthy"], tree["left_out"]) == ((["b", "well"], []) if options else ([], ["b", "well"]))
    (masks / "a.nii.gz").rename(masks / "mr-a.nii.gz")
    with pytest.raises(InputError, match="has a mask; 2 masks belong to no scan that has maps: more/mr-b"):
        medvae.evaluate(run, masks)


def test_a_mask_is_never_guessed(run: Path, tmp_path: Path) -> None:
    """Masks of two patients that are called alike: neither is taken, unless its path says whose it is."""
    mask = np.ones(GEOMETRY.shape, np.uint8)
    for patient in ("p1", "p2"):
        nifti.write(tmp_path / "masks" / patient / "a.nii.gz", mask, GEOMETRY, description="")
    with pytest.raises(InputError, match=r"could be that of a: p1/a\.nii\.gz, p2/a\.nii\.gz"):
        medvae.evaluate(run, tmp_path / "masks")
    shutil.copytree(run / "scans" / "a", run / "scans" / "p1_a")
    nifti.write(tmp_path / "masks" / "a.nii.gz", mask, GEOMETRY, description="")
    found = medvae.evaluate(run, tmp_path / "masks")
    assert found.tree["scans"] == 2, "a.nii.gz is that of a, p1/a.nii.gz that of p1_a"


def test_scans_of_one_subject_are_drawn_together(run: Path) -> None:
    for name in ("a", "b"):
        outcome = Outcome(name, "ok", facts={"subject": "the same"})
        Manifest(run / "manifest.jsonl").append(outcome)
    found = medvae.evaluate(run, run.parent / "truth").tree
    assert found["subjects"] == 1
    for key in ("ap", "ap_per_scan"):
        value, *interval = found["maps"]["nll"][key]
        assert 0 < value < 1
        assert interval == [None, None], "with one subject there is nothing to draw"
    text = (run / "evaluation" / "evaluation.md").read_text("utf-8")
    assert "2 scans of 1 subject, 2 with a lesion" in text
    assert "No intervals: all scans are of one subject." in text
    assert "[" not in text


def test_the_report_says_how_far_intervals_can_be_relied_on(run: Path) -> None:
    masks = run.parent / "truth"
    assert "2 subjects have a lesion, and intervals of fewer than 10 are too narrow" in told(run, masks)
    (masks / "b.nii.gz").unlink()
    found = told(run, masks, healthy=True)
    assert "one subject has a lesion: what is measured in lesions has no interval" in found
    tree = json.loads((run / "evaluation" / "evaluation.json").read_text("utf-8"))
    one = tree["maps"]["nll"]
    assert one["ap_per_scan"][1:] == one["at_healthy_fpr"]["0.001"]["dice"][1:] == [None, None]
    assert None not in one["ap"] + one["at_healthy_fpr"]["0.001"]["false_regions"]


def told(run: Path, masks: Path, *, healthy: bool = False) -> str:
    return "\n".join(medvae.evaluate(run, masks, healthy=healthy).lines)


def test_a_lesion_outside_the_evaluated_region_is_missed() -> None:
    lesion = np.zeros((4, 4, 4), bool)
    lesion[0, 0, 0] = True
    values = np.zeros((4, 4, 4), np.float32)
    values[0, 0, 0] = np.finfo(np.float32).min
    scan = Volume(np.ones_like(lesion), lesion, values)
    assert measure(scan, -1.0)["voxel_sensitivity"] == 0
    curve = Curve.from_scans([scan.voxels("a", "nll")], "nll")
    assert curve.oracle_dice == pytest.approx(2 / 65)
    assert curve.at(-1.0) == (0, 0), "63 healthy voxels are marked and no lesion is"


def test_a_curve_of_precision_and_recall() -> None:
    values, truth = np.float32([1, 2, 2, 3, 5, 6]), np.array([0, 0, 1, 1, 0, 1], bool)
    curve = Curve.from_scans([ScanVoxels("a", truth, {"nll": values})], "nll")
    assert curve.at(2.0) == (pytest.approx(2 / 3), pytest.approx(2 / 3)), "above, not at, the threshold"
    assert curve.at(0.0) == (1, 0.5)
    assert curve.at(6.0) == (0, 1), "nothing is marked"
    recall, precision = curve.thinned(1000)
    assert recall.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert precision[0] == pytest.approx(0.5), "the lowest threshold of each recall"
    assert len(curve.thinned(2)[0]) == 2


def test_the_picture_has_the_prevalence_and_the_thresholds(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(report, "png", lambda figure: drawn.append(figure) or b"")
    medvae.evaluate(run, run.parent / "truth", healthy=True)
    (axes,) = (one for figure in drawn for one in figure.axes if one.get_xlabel().startswith("recall"))
    lines = {str(line.get_label()): line for line in axes.lines}
    level = lines["prevalence 0.006 (no information)"].get_ydata()
    assert list(level) == pytest.approx([18 / 3000] * 2)
    at = lines["thresholds of healthy scans"].get_data()
    assert np.ravel(at).tolist() == pytest.approx([16 / 18, 16 / 18]), "16 of 18 lesion voxels, and 2 others"
    assert [text.get_text() for text in axes.texts] == ["0.1%", "1%"]


def test_a_run_of_detect_can_be_evaluated(brains: Path, model_folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    detect = ["detect", str(brains / "new"), "--model", str(model_folder), "--out", out, "--map", "residual_z"]
    assert main([*detect, "--workers", "0", "--quiet"]) == 0
    assert main(["evaluate", "detect", out, "--truth", str(brains / "masks"), "--healthy", "--quiet"]) == 0
    tree = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text("utf-8"))
    one = tree["maps"]["residual_z"]
    assert (tree["scans"], tree["with_lesion"]) == (2, 1)
    assert one["ap"][0] > 2 * tree["prevalence"]
    assert list(one["at_healthy_fpr"]) == ["0.001", "0.002", "0.005", "0.01", "0.05"]
    thresholds = [row["threshold"] for row in one["at_healthy_fpr"].values()]
    assert thresholds == sorted(thresholds, reverse=True)
    found = [row["voxel_sensitivity"][0] for row in one["at_healthy_fpr"].values()]
    assert found == sorted(found)
