"""Masks and label maps that lie beside a scan: on its grid or refused."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from nifti_oracle import AFFINE, put, ramp

from medvae.errors import ScanError
from medvae.io.reading import read_label_map, read_mask
from medvae.scan import Geometry
from medvae.settings import ReadSettings

if TYPE_CHECKING:
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
    assert "0.5 mm" in str(problem)
    assert refused(path, Geometry((4, 5, 7), AFFINE)).code == "mask_mismatch"


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 40000.0, -40000.0])
def test_what_is_no_label(tmp_path: Path, value: float) -> None:
    data = ramp(dtype="f4")
    data[1, 1, 1] = value
    assert refused(put(tmp_path / "a.nii", data)).code == "mask_mismatch"


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    problem = refused(tmp_path / "absent.nii")
    assert problem.code == "unreadable"
    assert pickle.loads(pickle.dumps(problem)).code == "unreadable"
    (tmp_path / "a.nii").write_bytes(b"no header")
    assert refused(tmp_path / "a.nii").code == "not_a_scan"
