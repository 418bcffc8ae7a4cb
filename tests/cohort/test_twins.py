"""The same scan twice is used once, and a warning names both; scans that merely look alike stay two."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import put, ramp, slices

from medvae.cohort.find import find
from medvae.cohort.read import read
from medvae.io.formats import nifti
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import Scan

NOISE = np.random.default_rng(1).integers(1, 900, (5, 6, 7)).astype(np.int16)


def write(path: Path, data: Any = NOISE, *, affine: Any = None) -> Path:
    geometry = Geometry(data.shape, np.diag([-1.0, 1, 1, 1]) if affine is None else affine)
    nifti.write(path, np.ascontiguousarray(data), geometry, description="made")
    return path


def names(folder: Path) -> list[str]:
    return [ref.path.name for ref in find(folder)]


@pytest.mark.parametrize(
    "other",
    ["T1.nii.gz", "T1 (1).nii", "T1 copy.nii.gz", "t1.nii.gz", "Copy of T1.nii", "T1 - Copy (2).nii", "T1(1).nii"],
)
def test_packed_and_unpacked_are_one_scan(tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "p0" / "T1.nii")
    write(tmp_path / "p0" / other)
    cohort = find(tmp_path)
    assert [(ref.id, ref.path.name) for ref in cohort] == [("p0_T1", "T1.nii")]
    assert f"p0/T1.nii and p0/{other} are the same scan: only the first is used" in caplog.text


@pytest.mark.parametrize("change", ["a voxel", "the place"])
def test_files_of_one_name_that_differ_are_two_scans(tmp_path: Path, change: str) -> None:
    write(tmp_path / "T1.nii")
    data, affine = NOISE.copy(), np.diag([-1.0, 1, 1, 1])
    if change == "a voxel":
        data[2, 3, 4] += 500
    else:
        affine[0, 3] = 1
    write(tmp_path / "T1.nii.gz", data, affine=affine)
    assert len(names(tmp_path)) == len({ref.id for ref in find(tmp_path)}) == 2


def test_copies_under_other_names_are_not_looked_for(tmp_path: Path) -> None:
    for name in ("T1.nii.gz", "T2.nii.gz", "a/T1.nii.gz", "b/T1.nii.gz"):
        write(tmp_path / name)
    assert len(names(tmp_path)) == 4


def test_files_that_cannot_be_read_are_no_twins(tmp_path: Path) -> None:
    (tmp_path / "T1.nii").write_bytes(b"no scan")
    write(tmp_path / "T1.nii.gz")
    assert len(names(tmp_path)) == 2


def test_a_list_decides_for_itself(tmp_path: Path) -> None:
    write(tmp_path / "T1.nii")
    write(tmp_path / "T1.nii.gz")
    (tmp_path / "list.csv").write_text("scan,subject\nT1.nii,p1\nT1.nii.gz,p2\n", "utf-8")
    assert len(find(tmp_path / "list.csv")) == 2
    (tmp_path / "list.csv").write_text("scan,subject\nT1.nii,p1\nT1.nii.gz,p1\n", "utf-8")
    assert len(find(tmp_path / "list.csv")) == 1


# ------------------------------------------------------------------------------------------------- DICOM and NIfTI


def converted(scan: Scan) -> Scan:
    """As dcm2niix stores it: rows turned."""
    geometry, data = scan.geometry, scan.data[:, ::-1]
    flip = np.eye(4)
    flip[1, 1], flip[1, 3] = -1, data.shape[1] - 1
    return replace(scan, data=data, geometry=Geometry(data.shape, geometry.affine @ flip))


@pytest.mark.parametrize("place", ["dicom/scan.nii.gz", "scan.nii.gz", "nifti/p1/scan.nii.gz"])
@pytest.mark.parametrize("slope", [1, 3])
def test_dicom_and_the_file_made_from_it_are_one_scan(
    tmp_path: Path, place: str, slope: int, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "dicom", slices(ramp()))
    made = converted(read(tmp_path / "dicom"))
    write(tmp_path / place, (made.data * slope).astype(np.float32), affine=made.geometry.affine)
    (ref,) = find(tmp_path)
    assert ref.format == "dicom"
    assert "the 5 DICOM files in dicom and " in caplog.text
    assert "scan.nii.gz are the same scan: only the first is used" in caplog.text


@pytest.mark.parametrize("change", ["values", "place", "shape"])
def test_another_scan_of_the_same_patient_is_another_scan(tmp_path: Path, change: str) -> None:
    put(tmp_path / "dicom", slices(ramp()))
    made = converted(read(tmp_path / "dicom"))
    data, affine = made.data.copy(), made.geometry.affine.copy()
    if change == "values":
        data[1, 1, 1] += 0.1 * np.ptp(data)
    elif change == "place":
        affine[2, 3] += 1
    else:
        data = data[:-1]
    write(tmp_path / "scan.nii.gz", data, affine=affine)
    assert len(find(tmp_path)) == 2


def test_the_series_is_the_subject_that_the_file_made_from_it_names(tmp_path: Path) -> None:
    """Else the sessions of one person would be those of two, and could part between training and validation."""
    put(tmp_path / "dicom" / "first", slices(ramp()))
    made = converted(read(tmp_path / "dicom"))
    for session in (1, 2):
        name = f"sub-01_ses-{session}_T1w.nii.gz"
        data = made.data if session == 1 else np.square(made.data)
        write(tmp_path / "sub-01" / f"ses-{session}" / "anat" / name, data, affine=made.geometry.affine)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t45\n", "utf-8")
    cohort = find(tmp_path)
    assert sorted(ref.format for ref in cohort) == ["dicom", "nifti"]
    assert cohort.subjects == ("sub-01",)
    assert [ref.conditions for ref in cohort] == [{"age": 45.0}] * 2
