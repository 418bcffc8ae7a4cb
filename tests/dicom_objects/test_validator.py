"""dciodvfy, the validator of dicom3tools, finds no error in an object that it does not find in the source series."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_made import code_of
from made_objects import PICTURE, SHAPE, content, planes, series
from pydicom import dcmread

from medvae.dicom_objects.content import Content, Region
from medvae.dicom_objects.objects import Objects, for_fusion, map_and_candidates
from medvae.dicom_objects.source import open_source
from medvae.dicom_objects.synthetic import synthetic_series
from medvae.io.formats.dicom import find
from medvae.scan import Geometry, Scan
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from medvae.scan import Modality, Units


pytestmark = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")


def errors(path: Path) -> set[str]:
    """What is wrong with a file, without the module that misses it."""
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, errors="replace")
    lines = [line for line in (run.stderr + run.stdout).splitlines() if line.startswith("Error")]
    found = {line.partition(" - Module")[0] for line in lines}
    return {line for line in found if "Illegal root for UID" not in line}  # references repeat what the source has


def complete(one: Dataset, _: int) -> None:
    """What the series of a scanner has and a made one lacks."""
    one.PatientBirthDate, one.PatientSex, one.StudyDate, one.StudyTime = "19700101", "F", "20250131", "120000"
    one.BodyPartExamined, one.ReferringPhysicianName, one.AccessionNumber, one.SeriesNumber = "HEAD", "", "A1", 3
    one.PatientPosition, one.PositionReferenceIndicator, one.Manufacturer = "HFS", "", "Maker"
    one.SliceThickness, one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "4", "GR", "SK", ""
    one.MRAcquisitionType, one.EchoTime, one.RepetitionTime, one.EchoTrainLength = "3D", "3", "2000", "1"
    one.KVP, one.AcquisitionNumber = "120", "1"


@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
@pytest.mark.parametrize("plane", ["axial", "oblique"])
def test_no_object_has_an_error_that_the_source_has_not(modality: str, plane: str, tmp_path: Path) -> None:
    source = series(tmp_path / "in", planes()[plane], complete, modality=modality)
    allowed = errors(next((tmp_path / "in").iterdir()))
    shown = content(source.geometry)
    objects = map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)
    assert not objects.warnings
    check(objects, allowed, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "mr-anatomical/siemens-verio-axial-oblique-t1",
        "odd/mr-ge-uneven-20",
        "odd/ct-3slice",
        "odd/legacy-converted-ct",
        "odd/enhanced-balls1",
    ],
)
def test_real_series_carry_them(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Uneven positions, a header with an empty character set, multi-frame objects with and without shared groups."""
    files = [path for path in (shared_data / "dicom" / name).iterdir() if path.is_file()]
    ref = next(ref for ref in find(files, ReadSettings())[0] if code_of(ref) == "ok")
    source = open_source(ref, ReadSettings())
    shown = filled(source.geometry)
    objects = map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)
    assert not objects.warnings
    pixels = dcmread(BytesIO(objects.files["map.dcm"])).pixel_array
    assert np.array_equal(pixels.transpose(2, 1, 0), shown.data)
    allowed = errors(ref.path)
    files_of_slices = sorted(name for name in objects.files if name.startswith("fusion"))
    if len(source.images) == 1:  # only classic images must say a Laterality
        allowed = {*allowed, "Error - </Laterality(0020,0060)> - Missing attribute for Type 2C Conditional"}
    few = {name: data for name, data in objects.files.items() if name not in files_of_slices[1:]}
    check(Objects(few), allowed, tmp_path)


def filled(geometry: Geometry) -> Content:
    """A map with a candidate on the grid of a real series."""
    labels = np.zeros(geometry.shape, np.uint16)
    labels[4:8, 5:9, 1] = 1
    data = np.where(labels > 0, np.float32(7.5), np.float32(0.25))
    region = Region(1, (0.0, 0.0, 0.0), "right", 1.5, 7.5, 7.5, 0.04)
    return Content("fused", data, "z", 4.4, "calibrated, n=25", labels, (region,), "ab" * 32)


def check(objects: Objects, allowed: set[str], folder: Path) -> None:
    for name, data in objects.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        assert errors(path) <= allowed, name


@pytest.mark.parametrize(("modality", "units"), [("MR", "a.u."), ("CT", "HU"), ("PT", "SUV")])
def test_a_synthetic_series_is_without_error(modality: Modality, units: Units, tmp_path: Path) -> None:
    """But that the validator of 2022 does not know Synthetic Data."""
    data = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    scan = Scan(data, Geometry(SHAPE, np.diag([2.0, 3, 4, 1])), modality=modality, units=units)
    for one in synthetic_series(scan, "synthetic-00000", description="synthetic (prior)", model="ab" * 32):
        (tmp_path / "one.dcm").write_bytes(one)
        assert all("(0008,001c)" in error for error in errors(tmp_path / "one.dcm"))
