"""`medvae detect` on DICOM: objects beside the NIfTI files, the same from Python; without DICOM a warning."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from dicom_made import put, slices
from pydicom import dcmread

import medvae
from medvae.cli.main import main
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

AFFINE = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 20], [0, 0, 1, -30], [0, 0, 0, 1]])
OBJECTS = {"map.dcm", "candidates.dcm", "strengths.dcm", "report.dcm"}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block like the training scans, as an axial series, with a bright lesion."""
    data = np.zeros((20, 18, 16), np.int16)
    data[3:17, 3:15, 3:13] = np.random.default_rng(5).normal(120, 20, (14, 12, 10))
    data[7:11, 6:10, 6:9] = 400
    folder = tmp_path_factory.mktemp("dicom") / "head"
    put(folder, slices(data, AFFINE, modality="MR"))
    return folder


@pytest.fixture(scope="module")
def out(series: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("detected") / "out"
    assert detect(series, whole, place, "--dicom", "--fusion", "--set", "detect.min_ml=0") == 0
    return place


def detect(scans: Path, model: Path, place: Path, *more: str) -> int:
    return main(["detect", str(scans), "--model", str(model), "--out", str(place), "--workers", "0", "--quiet", *more])


def warnings_of(place: Path) -> str:
    with open(place / "scores.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row["warnings"]


def test_the_objects_lie_beside_the_maps_and_in_the_manifest(out: Path) -> None:
    (scan,) = (out / "scans").iterdir()
    slices_of_map = {f"fusion/{number:04d}.dcm" for number in range(1, 17)}
    names = {path.relative_to(scan / "dicom").as_posix() for path in (scan / "dicom").rglob("*.dcm")}
    assert names == OBJECTS | {"picture.dcm"} | slices_of_map
    (outcome,) = [json.loads(line) for line in (out / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert f"scans/{scan.name}/dicom/map.dcm" in outcome["outputs"]
    assert "no_dicom" not in warnings_of(out)


def test_the_map_is_that_of_the_nifti_file_at_the_same_place(out: Path) -> None:
    (scan,) = (out / "scans").iterdir()
    nifti, one = nib.load(scan / "residual.nii.gz"), dcmread(scan / "dicom" / "map.dcm")
    values = np.asarray(nifti.dataobj)
    geometry = Geometry(values.shape, nifti.affine)
    for frame, group in zip(one.pixel_array, one.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = map(float, group.PlanePositionSequence[0].ImagePositionPatient)
        index = np.rint(geometry.to_index((-x, -y, z))).astype(int)
        assert index[:2].tolist() == [0, 0]
        assert np.array_equal(frame.T, values[:, :, index[2]])


def test_the_segments_are_the_candidates_of_the_nifti_file(out: Path) -> None:
    (scan,) = (out / "scans").iterdir()
    labels = np.asarray(nib.load(scan / "candidates.nii.gz").dataobj)
    one = dcmread(scan / "dicom" / "candidates.dcm")
    assert len(one.SegmentSequence) == labels.max() == 1
    assert one.pixel_array.sum() == (labels > 0).sum()


def test_python_writes_the_bytes_of_the_command(out: Path, series: Path, whole: Path, tmp_path: Path) -> None:
    (scan,) = (out / "scans").iterdir()
    model = medvae.load_model(whole)
    settings = model.settings.model_copy(update={"detect": model.settings.detect.model_copy(update={"min_ml": 0.0})})
    object.__setattr__(model, "settings", settings)
    found = medvae.detect(series, model, dicom=True, fusion=True)
    found.save(tmp_path)
    theirs = {path.relative_to(scan): path.read_bytes() for path in scan.rglob("*") if path.is_file()}
    mine = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in theirs if path.suffix == ".dcm"} <= set(mine)
    assert mine == {path: content for path, content in theirs.items() if path in mine}


def test_what_was_not_read_from_dicom_files_is_warned_of(
    blocks: tuple[Path, Path], series: Path, whole: Path, tmp_path: Path
) -> None:
    assert detect(blocks[0] / "s0.nii.gz", whole, tmp_path / "out", "--dicom") == 0
    assert "no_dicom: the scan was not read from DICOM; the NIfTI files are complete" in warnings_of(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.dcm"))
    found = medvae.detect(medvae.read(series), whole, dicom=True)
    assert "no_dicom: the scan was given in memory, without its files; the NIfTI files are complete" in found.warnings


def test_without_the_option_there_are_no_objects(series: Path, whole: Path) -> None:
    assert not medvae.detect(series, whole).dicom


@pytest.fixture(scope="module")
def converted(series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series as NIfTI with its rows turned, as dcm2niix stores it."""
    scan = medvae.read(series)
    turn = np.diag([1.0, -1, 1, 1])
    turn[1, 3] = scan.geometry.shape[1] - 1
    path = tmp_path_factory.mktemp("nifti") / "head.nii.gz"
    return medvae.write(path, np.flip(scan.data, 1), affine=scan.geometry.affine @ turn)


def test_a_nifti_scan_gets_the_objects_of_the_series_that_it_was_made_from(
    series: Path, converted: Path, whole: Path, tmp_path: Path
) -> None:
    assert detect(converted, whole, tmp_path / "out", "--dicom", "--template-dicom", str(series)) == 0
    (scan,) = (tmp_path / "out" / "scans").iterdir()
    one = dcmread(scan / "dicom" / "map.dcm")
    values = np.flip(np.asarray(nib.load(scan / "residual.nii.gz").dataobj), 1)
    assert np.array_equal(one.pixel_array.transpose(2, 1, 0), values)
    assert one.StudyInstanceUID == dcmread(next(series.iterdir())).StudyInstanceUID
    medvae.detect(converted, whole, dicom=series).save(tmp_path / "python")
    mine = (tmp_path / "python" / "dicom" / "map.dcm").read_bytes()
    assert mine == (scan / "dicom" / "map.dcm").read_bytes()


def test_a_template_with_other_voxels_ends_with_a_code(
    series: Path, blocks: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    more = ("--dicom", "--template-dicom", str(series))
    assert detect(blocks[0] / "s0.nii.gz", whole, tmp_path / "out", *more) == 2
    with open(tmp_path / "out" / "scores.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["code"]) == ("rejected", "template_mismatch")


def test_a_template_is_refused_where_it_may_be_of_another_patient_or_has_no_effect(
    series: Path, blocks: tuple[Path, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = ("--template-dicom", str(series))
    assert detect(blocks[0], whole, tmp_path / "a", "--dicom", *template) == 2
    assert "a template series belongs to one scan; found 6" in capsys.readouterr().err
    assert detect(series, whole, tmp_path / "b", "--dicom", *template) == 2
    assert "its objects belong to its own series" in capsys.readouterr().err
    assert detect(blocks[0] / "s0.nii.gz", whole, tmp_path / "c", *template) == 2
    assert "a template has no effect without DICOM objects" in capsys.readouterr().err
