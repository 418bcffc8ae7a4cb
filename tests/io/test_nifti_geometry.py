"""Where a NIfTI file says its voxels are: sform before qform, units, shear, an assumed orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from nifti_oracle import AFFINE, by_nibabel, by_sitk, header_of, put, ramp, ref, voxels_of

from medvae.errors import ScanError
from medvae.io import reading
from medvae.scan import Geometry
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ReadSettings()


def test_sform_wins_and_a_disagreement_is_said_in_mm(tmp_path: Path) -> None:
    header = header_of(ramp())
    header.set_qform(AFFINE, code=1)
    near, far = header.copy(), header.copy()
    near["qoffset_x"] += 0.05
    far["qoffset_x"] += 12
    for one, warned in ((header, False), (near, False), (far, True)):
        path = tmp_path / "a.nii"
        path.write_bytes(bytes(one.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
        scan = reading.read(ref(path), SETTINGS)
        assert scan.geometry.distance_to(Geometry((4, 5, 6), AFFINE)) < 1e-4
        assert bool(scan.warnings) == warned
        assert reading.inspect(ref(path), SETTINGS).warnings == scan.warnings
    assert "12.0 mm" in scan.warnings[0]


def test_a_broken_qform_beside_a_good_sform_is_only_a_warning(tmp_path: Path) -> None:
    scan = reading.read(ref(put(tmp_path / "a.nii", ramp(), qform_code=1, quatern_b=1.5)), SETTINGS)
    assert scan.geometry.distance_to(Geometry((4, 5, 6), AFFINE)) < 1e-4
    assert "qform is broken" in scan.warnings[0]


@pytest.mark.parametrize("qfac", [-1.0, 0.0, 1.0])
def test_qform_alone(tmp_path: Path, qfac: float) -> None:
    header = header_of(ramp(), sform_code=0)
    header.set_qform(AFFINE if qfac == -1 else AFFINE @ np.diag([-1, 1, 1, 1]), code=2)
    header["pixdim"][0] = qfac
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    scan = reading.read(ref(path), SETTINGS)
    for oracle in (by_nibabel, by_sitk):
        assert scan.geometry.distance_to(oracle(path).geometry) < 1e-3


@pytest.mark.parametrize(
    ("unit", "factor"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (1 + 8, 1000.0), (3 + 16, 0.001)]
)
def test_units_become_millimetres(tmp_path: Path, unit: int, factor: float) -> None:
    scale = np.diag([1 / factor] * 3 + [1])
    header = header_of(ramp(), xyzt_units=unit)
    header.set_sform(scale @ AFFINE, code=1)
    header.set_qform(scale @ AFFINE, code=1)
    path = tmp_path / "a.nii"
    for sform_code in (1, 0):
        header["sform_code"] = sform_code
        path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
        scan = reading.read(ref(path), SETTINGS)
        assert scan.geometry.distance_to(Geometry((4, 5, 6), AFFINE)) < 1e-3
        assert scan.warnings == ()


def test_microscopic_voxels_are_no_singular_affine(tmp_path: Path) -> None:
    header = header_of(ramp(), xyzt_units=3)
    header.set_sform(np.diag([0.2, 0.2, 0.5, 1]), code=1)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    np.testing.assert_allclose(reading.read(ref(path), SETTINGS).geometry.spacing, (2e-4, 2e-4, 5e-4), rtol=1e-6)


def test_shear_is_read_as_it_is(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.5
    header = header_of(ramp())
    header.set_sform(sheared, code=1)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    assert reading.read(ref(path), SETTINGS).geometry.distance_to(Geometry((4, 5, 6), sheared)) < 1e-4


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "RPI"])
def test_an_assumed_orientation(tmp_path: Path, axes: str) -> None:
    path = put(tmp_path / "a.nii", ramp(), sform_code=0, pixdim=[1, 2, -3, 4, 1, 1, 1, 1])
    geometry = reading.read(ref(path), ReadSettings(assume_orientation=axes)).geometry
    assert "".join(nib.aff2axcodes(geometry.affine)) == axes
    assert geometry.spacing == (2, 3, 4)
    np.testing.assert_allclose(geometry.to_world([1.5, 2, 2.5]), 0, atol=1e-9)
    coded = put(tmp_path / "b.nii", ramp())
    assert (
        reading.read(ref(coded), ReadSettings(assume_orientation=axes)).geometry
        == reading.read(ref(coded), SETTINGS).geometry
    )


def test_an_assumed_orientation_needs_voxel_sizes(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp(), sform_code=0, pixdim=[1, 2, 0, 2, 1, 1, 1, 1])
    for look in (reading.inspect, reading.read):
        with pytest.raises(ScanError) as caught:
            look(ref(path), ReadSettings(assume_orientation="RAS"))
        assert caught.value.code == "bad_affine"
