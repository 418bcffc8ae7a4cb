"""Where a NIfTI file says its voxels are: sform before qform, units, shear, an assumed orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from nifti_oracle import AFFINE, by_nibabel, by_sitk, header_of, put, ramp, ref, voxels_of, with_zooms

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


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan] * 4])
def test_a_broken_sform_gives_way_to_a_good_qform(tmp_path: Path, row: list[float]) -> None:
    header = header_of(ramp())
    header.set_qform(AFFINE, code=1)
    header["srow_x"] = row
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    scan = reading.read(ref(path), SETTINGS)
    assert scan.geometry.distance_to(Geometry((4, 5, 6), AFFINE)) < 1e-4
    assert "sform is broken" in scan.warnings[0]


@pytest.mark.parametrize(
    ("zooms", "codes", "says"),
    [
        ((1, 1, 1), (1, 0), "1×1×1 by pixdim and of 4×2×3 by the affine"),
        ((0, 0, 0), (1, 0), "0×0×0 by pixdim"),
        ((-4, 2, 3), (0, 1), "-4×2×3 by pixdim and of 4×2×3 by the affine"),
        ((4.01, 2, 3), (1, 0), None),  # moves no corner by 0.1 mm
    ],
)
def test_voxel_sizes_that_are_not_those_of_the_affine_are_said(
    tmp_path: Path, zooms: tuple[float, ...], codes: tuple[int, int], says: str | None
) -> None:
    scan = reading.read(ref(with_zooms(tmp_path / "a.nii", zooms, codes)), SETTINGS)
    assert scan.geometry.distance_to(Geometry((4, 5, 6), AFFINE)) < 1e-4
    assert says in scan.warnings[0] if says else scan.warnings == ()


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


# ------------------------------------------------------------------------------------- headers that are a hair off


def with_quaternion(path: Path, over: float, *, qfac: float = 1.0) -> Path:
    """A qform alone, whose (b, c, d) has the squared length 1 + over: a half turn, as most scanners store it."""
    parts = np.array([0.02, np.sqrt(1 - 0.02**2 - 0.01**2), 0.01]) * np.sqrt(1 + over)
    fields = {f"quatern_{axis}": value for axis, value in zip("bcd", parts, strict=True)}
    fields |= {f"qoffset_{axis}": value for axis, value in zip("xyz", (10, -20, 5), strict=True)}
    return put(path, ramp(), sform_code=0, qform_code=1, pixdim=[qfac, 1, 1, 1.2, 1, 1, 1, 1], **fields)


@pytest.mark.parametrize("over", [-1e-6, 0, 1.9e-7, 4e-7, 2e-6, 1e-4, 9e-4])
@pytest.mark.parametrize("qfac", [1.0, -1.0])
def test_a_quaternion_a_hair_longer_than_1_is_read_as_itk_reads_it(tmp_path: Path, over: float, qfac: float) -> None:
    path = with_quaternion(tmp_path / "a.nii", over, qfac=qfac)
    scan = reading.read(ref(path), SETTINGS)
    assert scan.geometry.distance_to(by_sitk(path).geometry) < 0.01  # ITK drops what is left of the angle
    linear = scan.geometry.affine[:3, :3] / scan.geometry.spacing
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-6)
    assert scan.warnings == ()


@pytest.mark.parametrize("over", [0.01, 0.5, np.nan])
def test_a_quaternion_that_is_far_too_long_is_refused(tmp_path: Path, over: float) -> None:
    with pytest.raises(ScanError) as caught:
        reading.read(ref(with_quaternion(tmp_path / "a.nii", over)), SETTINGS)
    assert caught.value.code == "bad_affine"


@pytest.mark.parametrize(
    ("unit", "mm", "warned"), [(1, 2.0, True), (3, 0.1, True), (1, 0.002, False), (2, 900.0, False)]
)
def test_a_unit_that_makes_a_scan_of_no_size_is_warned_of(
    tmp_path: Path, unit: int, mm: float, *, warned: bool
) -> None:
    header = header_of(ramp(), xyzt_units=unit)
    header.set_sform(np.diag([mm, mm, mm, 1]), code=1)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    assert any("check xyzt_units" in text for text in reading.inspect(ref(path), SETTINGS).warnings) == warned
