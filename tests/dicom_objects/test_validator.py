"""dciodvfy, the validator of dicom3tools, finds no error in an object that it does not find in the source series."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from made_objects import PICTURE, content, planes, series

from medvae.dicom_objects.objects import for_fusion, map_and_candidates

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

pytestmark = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")


def errors(path: Path) -> set[str]:
    """What is wrong with a file, without the module that misses it."""
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, errors="replace")
    lines = [line for line in (run.stderr + run.stdout).splitlines() if line.startswith("Error")]
    return {line.partition(" - Module")[0] for line in lines}


def complete(one: Dataset, _: int) -> None:
    """What the series of a scanner has and a made one lacks."""
    one.PatientBirthDate, one.PatientSex, one.StudyDate, one.StudyTime = "19700101", "F", "20250131", "120000"
    one.BodyPartExamined, one.ReferringPhysicianName, one.AccessionNumber, one.SeriesNumber = "HEAD", "", "A1", 3
    one.PatientPosition, one.PositionReferenceIndicator, one.Manufacturer = "HFS", "", "Maker"
    one.SliceThickness, one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "4", "GR", "SK", ""
    one.MRAcquisitionType, one.EchoTime, one.RepetitionTime, one.EchoTrainLength = "3D", "3", "2000", "1"
    one.KVP, one.AcquisitionNumber = "120", "1"


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("plane", ["axial", "oblique"])
def test_no_object_has_an_error_that_the_source_has_not(modality: str, plane: str, tmp_path: Path) -> None:
    source = series(tmp_path / "in", planes()[plane], complete, modality=modality)
    allowed = errors(next((tmp_path / "in").iterdir()))
    shown = content(source.geometry)
    objects = map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)
    assert not objects.warnings
    for name, data in objects.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        assert errors(path) <= allowed, name
