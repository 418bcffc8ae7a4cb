"""`medvae.write`: a scan, or an array with its geometry, in a type that files hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from nifti_oracle import AFFINE, ramp

import medvae
from medvae.scan import Geometry, Scan

if TYPE_CHECKING:
    from pathlib import Path

GEOMETRY = Geometry((4, 5, 6), AFFINE)


def test_what_read_gives_write_takes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(dtype="f4"), np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = medvae.read(tmp_path / "scan.nii.gz")
    path = medvae.write(tmp_path / "folder" / "copy.nii.gz", scan)
    again = medvae.read(path)
    np.testing.assert_array_equal(again.data, scan.data)
    assert again.geometry.distance_to(scan.geometry) < 1e-4
    copy = nib.load(path)
    np.testing.assert_allclose(copy.affine, image.affine)
    assert copy.header.get_xyzt_units()[0] == "micron"


def test_a_scan_brings_its_unit_into_the_header(tmp_path: Path) -> None:
    scan = Scan(ramp(dtype="f4"), GEOMETRY, modality="CT", units="HU")
    header = nib.load(medvae.write(str(tmp_path / "a.nii"), scan)).header
    assert header["descrip"].item() == b"CT, HU"
    header = nib.load(medvae.write(tmp_path / "a.nii", scan, description="mine", limits=(0, 7))).header
    assert (header["descrip"].item(), float(header["cal_max"])) == (b"mine", 7)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("f4", "f4"), ("u1", "u1"), ("i2", "i2"), ("?", "u1"), ("f8", "f4"), ("f2", "f4"), ("i8", "i2"), ("u2", "i2")],
)
def test_arrays_of_any_type(tmp_path: Path, given: str, stored: str) -> None:
    data = ramp().astype(given)
    path = medvae.write(tmp_path / "a.nii.gz", data, affine=AFFINE)
    image = nib.load(path)
    assert image.get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    np.testing.assert_allclose(image.affine, AFFINE)


def test_large_integers_are_kept_or_refused(tmp_path: Path) -> None:
    data = ramp().astype(np.int64) + 100000
    assert nib.load(medvae.write(tmp_path / "a.nii", data, geometry=GEOMETRY)).get_data_dtype() == np.float32
    with pytest.raises(ValueError, match="cannot hold"):
        medvae.write(tmp_path / "a.nii", data + 2**40, geometry=GEOMETRY)


def test_a_metatensor_brings_its_affine(tmp_path: Path) -> None:
    monai = pytest.importorskip("monai.data")
    tensor = monai.MetaTensor(ramp(dtype="f4"), affine=AFFINE)
    assert medvae.read(medvae.write(tmp_path / "a.nii", tensor)).geometry.distance_to(GEOMETRY) < 1e-4


@pytest.mark.parametrize(
    ("data", "more", "says"),
    [
        (ramp(), {}, "geometry= or affine="),
        (ramp((4, 5)), {"affine": AFFINE}, "three axes"),
        (ramp((4, 5, 7)), {"geometry": GEOMETRY}, "does not fit"),
        (np.full((4, 5, 6), np.nan), {"affine": AFFINE}, "not finite"),
        (ramp().astype(complex), {"affine": AFFINE}, "only numbers and booleans"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, data: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        medvae.write(tmp_path / "a.nii.gz", data, **more)
    assert not any(tmp_path.iterdir())
