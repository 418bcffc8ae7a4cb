"""What the NIfTI writer writes: its own header, the same bytes twice, read at the same place by every reader."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from nifti_oracle import AFFINE, by_nibabel, by_sitk, header_of, ramp, ref, voxels_of, with_zooms

from medvae.io import reading
from medvae.io.formats import nifti
from medvae.io.nifti import write as nifti_write
from medvae.scan import Geometry
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path


def turned(degrees: float) -> np.ndarray[Any, Any]:
    """A double-oblique affine with three different spacings."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ AFFINE[:3, :3]
    affine[:3, 3] = -90, 120, 33
    return affine


SHEARED = turned(20) @ np.array([[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
GEOMETRY = Geometry((4, 5, 6), turned(20))


def written(path: Path, data: np.ndarray[Any, Any], geometry: Geometry = GEOMETRY, **more: Any) -> nib.Nifti1Header:
    nifti.write(path, data, geometry, description=more.pop("description", "residual_z, unit z"), **more)
    return nib.load(path).header


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["f4", "u1", "i2"])
def test_header_is_our_own(tmp_path: Path, name: str, dtype: str) -> None:
    header = written(tmp_path / name, ramp(dtype=dtype))
    assert header.get_data_dtype() == np.dtype(dtype)
    assert header.get_data_shape() == (4, 5, 6)
    assert header.get_xyzt_units()[0] == "mm"
    raw = (tmp_path / name).read_bytes()
    stored = nib.Nifti1Header((gzip.decompress(raw) if name.endswith(".gz") else raw)[:348])
    assert stored.get_slope_inter() == (1.0, 0.0)  # nibabel.load takes it away
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert (float(header["cal_min"]), float(header["cal_max"])) == (0, 119)
    assert header["descrip"].item() == b"residual_z, unit z"
    assert header["aux_file"].item() == header["intent_name"].item() == header["db_name"].item() == b""
    assert len(header.extensions) == 0
    np.testing.assert_allclose(header.get_zooms(), (4, 2, 3), rtol=1e-6)
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5)


def test_display_range_and_a_description_of_79_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    header = written(path, ramp(dtype="f4"), limits=(-1.5, 8.0), description="σ" * 60)
    assert (float(header["cal_min"]), float(header["cal_max"])) == (-1.5, 8.0)
    raw = header["descrip"].item()
    assert len(raw) <= 79
    assert raw.decode("utf-8") == "σ" * 39  # cut between letters, never within one
    assert path.read_bytes()[148:228][-1] == 0  # the field of 80 bytes ends in a zero


@pytest.mark.parametrize(("affine", "qform"), [(turned(20), 1), (AFFINE, 1), (SHEARED, 0)])
def test_a_qform_only_where_it_tells_the_truth(tmp_path: Path, affine: np.ndarray[Any, Any], qform: int) -> None:
    geometry = Geometry((4, 5, 6), affine)
    header = written(tmp_path / "a.nii.gz", ramp(), geometry)
    assert int(header["qform_code"]) == qform
    np.testing.assert_allclose(header.get_zooms(), geometry.spacing, rtol=1e-6)
    scan = reading.read(ref(tmp_path / "a.nii.gz"), ReadSettings())
    assert scan.geometry.distance_to(geometry) < 1e-4
    assert scan.warnings == ()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_same_bytes_twice(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    written(tmp_path / "one" / name, data)
    monkeypatch.setattr("time.time", lambda: 2e9)
    written(tmp_path / "two" / f"other-{name}", np.ascontiguousarray(data[::-1])[::-1])
    first, second = (tmp_path / "one" / name).read_bytes(), (tmp_path / "two" / f"other-{name}").read_bytes()
    assert first == second
    if name.endswith(".gz"):
        assert first[4:8] == b"\0\0\0\0"  # no time in the gzip header
        assert not first[3] & 8  # and no file name
        assert gzip.decompress(first)[:4] == (348).to_bytes(4, "little")


@pytest.mark.parametrize("dtype", ["f8", "i4", ">f4", "?"])
def test_only_four_types_are_written(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(ValueError, match="float32, uint8, uint16 or int16"):
        written(tmp_path / "a.nii", ramp().astype(dtype))
    assert not any(tmp_path.iterdir())


def test_wrong_shape_and_nan_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        written(tmp_path / "a.nii", ramp((4, 5, 7)))
    with pytest.raises(ValueError, match="not finite"):
        written(tmp_path / "a.nii", np.full((4, 5, 6), np.nan, np.float32))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("affine", [AFFINE, turned(20), turned(45), np.diag([-1, 1, 1, 1]) @ turned(70), SHEARED])
def test_every_reader_sees_it_at_the_same_place(tmp_path: Path, affine: np.ndarray[Any, Any]) -> None:
    monai = pytest.importorskip("monai.data")
    path, data, geometry = tmp_path / "a.nii.gz", ramp(dtype="f4") / 3, Geometry((4, 5, 6), affine)
    nifti.write(path, data, geometry, description="test")
    oracles = [by_nibabel(path)]
    if affine is not SHEARED:  # ITK's images have no shear: it refuses the file or bends it
        oracles.append(by_sitk(path))
    for seen in oracles:
        np.testing.assert_array_equal(seen.data.astype(np.float32), data)
        assert seen.geometry.distance_to(geometry) < 1e-3
    reader = monai.NibabelReader()
    values, meta = reader.get_data(reader.read(str(path)))
    np.testing.assert_array_equal(values, data)
    assert Geometry((4, 5, 6), meta["affine"]).distance_to(geometry) < 1e-3
    scan = reading.read(ref(path), ReadSettings())
    np.testing.assert_array_equal(scan.data, data)
    assert scan.geometry.distance_to(geometry) < 1e-4


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    written(tmp_path / "scans" / "one" / "map.nii.gz", ramp())
    assert [path.name for path in (tmp_path / "scans" / "one").iterdir()] == ["map.nii.gz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii.gz"
    written(path, ramp())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        nifti.write(path, ramp() + 1, GEOMETRY, description="new")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.nii.gz"]


def test_the_first_bytes_are_flushed_alone(tmp_path: Path) -> None:
    """Else ISA-L hashes an unset register, and one process in a thousand writes another stream."""
    written(tmp_path / "a.nii.gz", ramp())
    stream = (tmp_path / "a.nii.gz").read_bytes()
    marker = stream.index(b"\x00\x00\xff\xff") + 4  # ends every deflate block that a sync flush closes
    assert zlib.decompressobj(wbits=31).decompress(stream[:marker]) == gzip.decompress(stream)[:16]


# --------------------------------------------------------------------- a map lies on its scan, whichever entry is read


UNITS = {"mm": 1.0, "micron": 1e-3, "meter": 1e3, "unknown": 1.0}


def scan_file(path: Path, sform: Any, qform: Any, *, codes: tuple[int, int], unit: str = "mm") -> Path:
    """A scan as nibabel writes it, with affines in mm."""
    shrink = np.diag([1 / UNITS[unit]] * 3 + [1])
    image = nib.Nifti1Image(ramp(), shrink @ AFFINE)
    image.set_sform(shrink @ sform, codes[0])
    image.set_qform(shrink @ qform, codes[1])
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, path)
    return path


def by_itk(path: Path) -> Geometry | None:
    """Where ITK sees a file; None where it refuses to open it."""
    try:
        return by_sitk(path).geometry
    except RuntimeError:
        return None


def sheared(size: float) -> np.ndarray[Any, Any]:
    affine = turned(20)
    affine[:3, 1] += size * affine[:3, 0]
    return affine


@pytest.mark.parametrize("size", [0, 1e-5, 1e-4, 1e-3, 3e-3, 0.1])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 1), (1, 0), (0, 1)])
def test_a_map_opens_wherever_its_scan_opens(tmp_path: Path, size: float, codes: tuple[int, int]) -> None:
    """A good qform beside an sform that is not quite orthonormal: ITK takes the qform, nibabel the sform."""
    scan = scan_file(tmp_path / "scan.nii", sheared(size), turned(20), codes=codes)
    read = reading.read(ref(scan), ReadSettings())
    nifti.write(tmp_path / "map.nii.gz", read.data, read.geometry, description="map")
    for see in (by_itk, lambda path: by_nibabel(path).geometry):
        theirs, ours = see(scan), see(tmp_path / "map.nii.gz")
        if theirs is not None:
            assert ours is not None, "the map is refused"
            assert ours.distance_to(theirs) < 1e-3


def test_a_map_of_a_scan_whose_forms_disagree_disagrees_with_it_nowhere(tmp_path: Path) -> None:
    moved = turned(20)
    moved[:3, 3] += 12
    scan = scan_file(tmp_path / "scan.nii", turned(20), moved, codes=(4, 1))
    read = reading.read(ref(scan), ReadSettings())
    nifti.write(tmp_path / "map.nii", read.data, read.geometry, description="map")
    before, after = nib.load(scan).header, nib.load(tmp_path / "map.nii").header
    for form in ("sform", "qform"):
        np.testing.assert_allclose(getattr(after, f"get_{form}")(), getattr(before, f"get_{form}")(), atol=1e-4)
        assert int(after[f"{form}_code"]) == int(before[f"{form}_code"])


@pytest.mark.parametrize(
    ("zooms", "codes"),
    [
        *[(zooms, codes) for zooms in [(1, 1, 1), (-4, 2, 3), (-4, -2, -3)] for codes in [(1, 0), (1, 1), (0, 1)]],
        *[((0, 0, 0), codes) for codes in [(1, 0), (1, 1)]],
    ],
)
def test_a_map_has_the_voxel_size_of_a_scan_whose_pixdim_is_wrong(
    tmp_path: Path, zooms: tuple[float, ...], codes: tuple[int, int]
) -> None:
    """ITK takes the voxel size of pixdim, whatever the sform says, and 1 where it is 0."""
    scan = with_zooms(tmp_path / "scan.nii", zooms, codes)
    read = reading.read(ref(scan), ReadSettings())
    nifti.write(tmp_path / "map.nii", read.data, read.geometry, description="map")
    for see in (by_sitk, by_nibabel):
        assert see(tmp_path / "map.nii").geometry.distance_to(see(scan).geometry) < 1e-3
    again = reading.read(ref(tmp_path / "map.nii"), ReadSettings())
    assert again.geometry.distance_to(read.geometry) < 1e-3


@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-4, 1e-3])
def test_cosines_rounded_to_a_few_digits_open_in_itk(tmp_path: Path, size: float) -> None:
    """As those of DICOM: the geometry comes from no NIfTI file."""
    geometry = Geometry((4, 5, 6), sheared(size))
    header = written(tmp_path / "a.nii", ramp(), geometry)
    assert int(header["qform_code"]) == 1
    seen = by_itk(tmp_path / "a.nii")
    assert seen is not None
    assert seen.distance_to(geometry) < 0.1


@pytest.mark.parametrize("unit", UNITS)
def test_a_map_is_in_the_unit_of_its_scan(tmp_path: Path, unit: str) -> None:
    """Readers that know xyzt_units and those that do not both see the map on the scan."""
    scan = scan_file(tmp_path / "scan.nii.gz", turned(20), turned(20), codes=(1, 1), unit=unit)
    read = reading.read(ref(scan), ReadSettings())
    assert read.geometry.distance_to(GEOMETRY) < 1e-3
    nifti.write(tmp_path / "map.nii.gz", read.data, read.geometry, description="map")
    ours, theirs = nib.load(tmp_path / "map.nii.gz"), nib.load(scan)
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=1e-6, atol=1e-6 / UNITS[unit])
    assert ours.header.get_xyzt_units()[0] == (unit if unit != "unknown" else "mm")
    assert by_sitk(tmp_path / "map.nii.gz").geometry.distance_to(by_sitk(scan).geometry) < 1e-3
    assert reading.read(ref(tmp_path / "map.nii.gz"), ReadSettings()).geometry.distance_to(GEOMETRY) < 1e-3


@pytest.mark.parametrize("name", ["a.img", "a.hdr", "a.mha", "a.nii.bz2"])
def test_only_single_files_are_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"written to \.nii or \.nii\.gz"):
        written(tmp_path / name, ramp())


def test_a_slope_and_an_intercept_are_what_every_reader_applies(tmp_path: Path) -> None:
    path, data = tmp_path / "a.nii.gz", ramp(dtype="u1")
    header = written(path, data, scale=(0.25, -8.0))
    values = data.astype(np.float32) * 0.25 - 8
    assert (float(header["cal_min"]), float(header["cal_max"])) == (values.min(), values.max())
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), values)
    np.testing.assert_array_equal(reading.read(ref(path), ReadSettings()).data, values)
    assert (
        nifti_write.gzipped(data, GEOMETRY, description="residual_z, unit z", scale=(0.25, -8.0)) == path.read_bytes()
    )


@pytest.mark.parametrize("code", [6, 255])
def test_codes_that_the_standard_does_not_have_are_written_as_some_other_scan(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.nii"
    header = header_of(ramp(), sform_code=code)
    header.set_qform(AFFINE, code=1)
    header["qform_code"] = code
    path.write_bytes(bytes(header.binaryblock) + b"\0" * 4 + voxels_of(ramp()))
    scan = reading.read(ref(path), ReadSettings())
    again = written(tmp_path / "b.nii", ramp(), scan.geometry)
    assert (int(again["sform_code"]), int(again["qform_code"])) == (2, 2)
    np.testing.assert_allclose(again.get_sform(), scan.geometry.affine, atol=1e-5)
