"""Masks and label maps that lie beside a scan: on its grid or refused."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from made_scans import ORIENTATIONS
from nifti_oracle import AFFINE, put, ramp

from medvae.errors import ScanError
from medvae.io.reading import read_foreground, read_label_map, read_mask
from medvae.scan import Geometry, Stored
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIKE = Geometry((4, 5, 6), AFFINE)
SETTINGS = ReadSettings()


def refused(path: Path, like: Geometry = LIKE) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_label_map(path, like, SETTINGS)
    return caught.value


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_labels_of_any_type(tmp_path: Path, dtype: str) -> None:
    path = put(tmp_path / "labels.nii.gz", ramp(dtype=dtype))
    labels = read_label_map(path, LIKE, SETTINGS)
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(labels, ramp())
    np.testing.assert_array_equal(read_mask(path, LIKE, SETTINGS), ramp() != 0)


def test_an_empty_label_map_is_fine(tmp_path: Path) -> None:
    assert not read_mask(put(tmp_path / "a.nii", np.zeros((4, 5, 6), "u1")), LIKE, SETTINGS).any()


def test_labels_stored_with_a_slope(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp(dtype="u1"), scl_slope=2.0, scl_inter=-1.0)
    np.testing.assert_array_equal(read_label_map(path, LIKE, SETTINGS), 2 * ramp() - 1)


def test_another_place_or_shape_is_a_mismatch(tmp_path: Path) -> None:
    path = put(tmp_path / "mask.nii", ramp())
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 0.05
    far[0, 3] += 0.5
    read_label_map(path, Geometry((4, 5, 6), near), SETTINGS)
    problem = refused(path, Geometry((4, 5, 6), far))
    assert problem.code == "mask_mismatch"
    assert "up to 0.5 mm from those of the scan" in str(problem)
    assert refused(path, Geometry((4, 5, 7), AFFINE)).code == "mask_mismatch"


@pytest.mark.parametrize("value", [0.5, 0.98, np.nan, np.inf, 40000.0, -40000.0])
def test_what_is_no_label(tmp_path: Path, value: float) -> None:
    data = ramp(dtype="f4")
    data[1, 1, 1] = value
    problem = refused(put(tmp_path / "a.nii", data))
    assert problem.code == "mask_mismatch"
    assert "whole numbers" in (problem.hint or "")


@pytest.mark.parametrize("value", [0, np.nan])
def test_an_empty_mask_is_no_foreground(tmp_path: Path, value: float) -> None:
    path = put(tmp_path / "mask.nii", np.full((4, 5, 6), value, np.float32))
    with pytest.raises(ScanError) as caught:
        read_foreground(path, LIKE, SETTINGS)
    assert caught.value.code == "no_foreground"
    assert "mask" in (caught.value.hint or "")
    assert read_foreground(put(path, ramp()), LIKE, SETTINGS).any()


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    problem = refused(tmp_path / "absent.nii")
    assert problem.code == "unreadable"
    assert pickle.loads(pickle.dumps(problem)).code == "unreadable"
    (tmp_path / "a.nii").write_bytes(b"no header")
    assert refused(tmp_path / "a.nii").code == "not_a_scan"


# ------------------------------------------------------------------------------------------------------------- values


def by_nibabel(path: Path, data: np.ndarray[Any, Any], dtype: str) -> Path:
    """A float array under an integer header: nibabel scales it, so that its range fills the type."""
    image = nib.Nifti1Image(data.astype(np.float64), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_data_dtype(dtype)
    nib.save(image, path)
    assert nib.load(path).dataobj.slope != 1
    return path


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 3, 4, 5, 6], [0, 17, 53], [0, 2, 124], [-3, 0, 1]])
def test_labels_that_nibabel_scaled_are_whole_again(tmp_path: Path, dtype: str, labels: list[int]) -> None:
    if dtype == "u1" and min(labels) < 0:
        pytest.skip("nibabel refuses to scale negative values into uint8")
    data = np.resize(labels, (4, 5, 6))
    path = by_nibabel(tmp_path / "labels.nii.gz", data, dtype)
    np.testing.assert_array_equal(read_label_map(path, LIKE, SETTINGS), data)
    np.testing.assert_array_equal(read_mask(path, LIKE, SETTINGS), data != 0)


def test_large_labels_that_nibabel_scaled(tmp_path: Path) -> None:
    data = np.resize([0, 1, 1035, 14175], (4, 5, 6))  # FreeSurfer's
    path = by_nibabel(tmp_path / "labels.nii.gz", data, "i2")
    np.testing.assert_array_equal(read_label_map(path, LIKE, SETTINGS), data)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_probabilities_are_a_mask_and_no_labels(tmp_path: Path, dtype: str) -> None:
    data = np.resize([0, 0.02, 0.3, 0.5, 0.99, 1], (4, 5, 6))
    path = tmp_path / "p.nii.gz"
    if dtype == "f4":
        put(path, data.astype(np.float32))
    else:
        by_nibabel(path, data, dtype)
    np.testing.assert_array_equal(read_mask(path, LIKE, SETTINGS), data >= 0.4)  # not what smoothing has added
    assert refused(path).code == "mask_mismatch"


def test_dust_of_interpolation_is_no_mask(tmp_path: Path) -> None:
    data = np.resize(np.float32([0, 1e-7, -1e-7, 1, 1.0001, 2]), (4, 5, 6))
    np.testing.assert_array_equal(read_mask(put(tmp_path / "m.nii", data), LIKE, SETTINGS), data > 0.5)


@pytest.mark.parametrize(
    ("value", "inside"), [(1, True), (255, True), (-1, True), (0.5, True), (1e6, True), (0, False), (np.nan, False)]
)
def test_a_mask_is_whatever_is_not_0(tmp_path: Path, value: float, *, inside: bool) -> None:
    data = np.zeros((4, 5, 6), np.float32)
    data[1:3] = value
    mask = read_mask(put(tmp_path / "m.nii", data), LIKE, SETTINGS)
    assert mask.dtype == bool
    assert mask[1:3].all() == inside
    assert not mask[0].any()


def test_labels_a_hair_off_whole_numbers(tmp_path: Path) -> None:
    noisy = ramp(dtype="f4") + np.random.default_rng(0).uniform(-1e-3, 1e-3, (4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(read_label_map(put(tmp_path / "a.nii", noisy), LIKE, SETTINGS), ramp())


# ------------------------------------------------------------------------------------------------------ the same voxels


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_a_mask_on_the_same_voxels_is_turned_onto_them(tmp_path: Path, turn: np.ndarray[Any, Any]) -> None:
    """dcm2niix turns the rows of DICOM, nibabel and Slicer reorient: no voxel is moved."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    order = np.abs(turn).argmax(axis=0)
    matrix[:3, 3] = np.where(turn.sum(axis=1) < 0, np.array(LIKE.shape) - 1, 0)
    stored = np.flip(ramp().transpose(order), [axis for axis in range(3) if turn[order[axis], axis] < 0])
    path = put(tmp_path / "mask.nii.gz", stored)
    nib.save(nib.Nifti1Image(stored, AFFINE @ matrix), path)
    np.testing.assert_array_equal(read_label_map(path, LIKE, SETTINGS), ramp())


def test_a_mask_turned_by_nibabel_on_an_oblique_scan(tmp_path: Path) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE
    image = nib.Nifti1Image(ramp(), affine)
    nib.save(nib.as_closest_canonical(image), tmp_path / "canonical.nii.gz")
    assert nib.load(tmp_path / "canonical.nii.gz").shape != (4, 5, 6)
    np.testing.assert_array_equal(
        read_label_map(tmp_path / "canonical.nii.gz", Geometry((4, 5, 6), affine), SETTINGS), ramp()
    )


def test_turned_and_moved_is_a_mismatch(tmp_path: Path) -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 3
    moved = AFFINE @ flip
    moved[1, 3] += 0.5
    path = tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image(ramp()[::-1], moved), path)
    problem = refused(path)
    assert (problem.code, "corners lie up to 0.5 mm from those" in problem.message) == ("mask_mismatch", True)
    flip[0, 3] = 4  # off by a voxel
    nib.save(nib.Nifti1Image(ramp()[::-1], AFFINE @ flip), path)
    assert refused(path).code == "mask_mismatch"
    nib.save(nib.Nifti1Image(ramp(), AFFINE @ np.diag([1, 1, 1.01, 1])), path)
    assert refused(path).code == "mask_mismatch", "another voxel size"


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_a_mask_that_lost_the_unit_of_its_scan(tmp_path: Path, unit: float) -> None:
    """nibabel keeps the numbers of the affine and drops xyzt_units where a new image is made of them."""
    like = Geometry((4, 5, 6), np.diag([2, 2, 2, 1.0]), Stored(unit=unit))
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(ramp(), np.diag([2 / unit, 2 / unit, 2 / unit, 1])), path)
    np.testing.assert_array_equal(read_label_map(path, like, SETTINGS), ramp())
    assert refused(path, Geometry((4, 5, 6), like.affine)).code == "mask_mismatch", "the scan is in mm"


def test_a_mask_that_kept_the_qform_of_a_sheared_scan(tmp_path: Path) -> None:
    """As ITK writes it: the scan is where its qform says."""
    sheared = AFFINE.copy()
    sheared[:3, 1] += 0.05 * AFFINE[:3, 0]
    like = Geometry((4, 5, 6), sheared, Stored(rigid=AFFINE))
    path = put(tmp_path / "mask.nii", ramp())
    np.testing.assert_array_equal(read_label_map(path, like, SETTINGS), ramp())
    assert refused(path, Geometry((4, 5, 6), sheared)).code == "mask_mismatch"


def test_a_mask_under_a_name_that_says_nothing(tmp_path: Path) -> None:
    put(tmp_path / "mask.nii", ramp()).rename(tmp_path / "mask")
    np.testing.assert_array_equal(read_label_map(tmp_path / "mask", LIKE, SETTINGS), ramp())
    (tmp_path / "other").write_text("no mask")
    assert refused(tmp_path / "other").code == "not_a_scan"


@pytest.mark.parametrize(("read_one", "what"), [(read_mask, "mask"), (read_label_map, "label map")])
def test_what_is_wrong_is_said_of_the_mask_and_not_of_the_scan(
    tmp_path: Path, read_one: Callable[..., Any], what: str
) -> None:
    """The outcome of a scan gives the message beside the id of the scan, without the path."""
    other = put(tmp_path / "other.nii", np.ones((4, 5, 7), "u1"))
    for path, code in ((tmp_path / "typo.nii", "unreadable"), (other, "mask_mismatch")):
        with pytest.raises(ScanError) as caught:
            read_one(path, LIKE, SETTINGS)
        assert (caught.value.code, caught.value.message.split(": ")[0]) == (code, what)


def test_a_mask_of_several_volumes_gets_a_hint_for_every_command(tmp_path: Path) -> None:
    problem = refused(put(tmp_path / "mask.nii", ramp((4, 5, 6, 2))))
    assert problem.code == "not_3d"
    assert "read.volume" not in (problem.hint or "")


def test_a_mask_without_orientation_gets_a_hint_that_helps(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "mask.nii")
    problem = refused(tmp_path / "mask.nii")
    assert problem.code == "mask_mismatch"
    assert "label map: neither sform nor qform is set" in problem.message
    assert "copy the header of the scan" in (problem.hint or ""), "an assumed orientation would not lie on the scan"
