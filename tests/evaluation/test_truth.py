"""Maps read back beside the truth: which voxels count, and what happens to those that were not evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from medvae.errors import ScanError
from medvae.evaluation.truth import Case, read_scores, read_voxels
from medvae.io.formats import nifti
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

GEOMETRY = Geometry((4, 5, 6), np.diag([2.0, -1.5, 3.0, 1.0]))


def written(folder: Path) -> Case:
    """A scan whose first plane is background, a lesion of two voxels, a map that does not cover one of them."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 100, size=GEOMETRY.shape).astype(np.int16)
    image[0] = 0
    truth, coverage = np.zeros(GEOMETRY.shape, np.uint8), (image > 0).astype(np.uint8)
    truth[2, 2, 2] = truth[3, 4, 5] = 1
    coverage[3, 4, 5] = 0
    heat = np.where(coverage > 0, rng.normal(size=GEOMETRY.shape), 0).astype(np.float32)
    heat[2, 2, 2] = 9.0
    place = folder / "maps" / "scans" / "case"
    for path, data in (
        (folder / "case.nii.gz", image),
        (folder / "truth.nii.gz", truth),
        (place / "coverage.nii.gz", coverage),
        (place / "residual.nii.gz", heat),
    ):
        nifti.write(path, data, GEOMETRY, description="test")
    return Case("case", "anna", folder / "case.nii.gz", folder / "truth.nii.gz")


def test_the_foreground_counts_and_what_was_not_evaluated_is_missed(tmp_path: Path) -> None:
    case = written(tmp_path)
    found = read_voxels(tmp_path / "maps", case, maps=["residual"])
    values = found.maps["residual"]
    assert found.subject == "anna"
    assert found.truth.shape == values.shape == (3 * 5 * 6,)
    assert sorted(values[found.truth]) == [np.finfo(np.float32).min, 9.0]
    assert (values[~found.truth] > np.finfo(np.float32).min).all()


def test_a_healthy_scan_has_no_lesion(tmp_path: Path) -> None:
    case = written(tmp_path)
    found = read_voxels(tmp_path / "maps", Case(case.id, case.subject, case.scan, None), maps=["residual"])
    assert not found.truth.any()


def test_a_truth_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    case = written(tmp_path)
    assert case.truth is not None
    moved = GEOMETRY.affine.copy()
    moved[0, 3] += 1.0
    nifti.write(case.truth, np.zeros(GEOMETRY.shape, np.uint8), Geometry(GEOMETRY.shape, moved), description="test")
    with pytest.raises(ScanError) as caught:
        read_voxels(tmp_path / "maps", case, maps=["residual"])
    assert caught.value.code == "mask_mismatch"


def test_scores_are_read_by_id_and_empty_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("id,status,residual\na,ok,1.5\nb,rejected,\nc,ok,-2\n", "utf-8")
    assert read_scores(tmp_path, "residual") == {"a": 1.5, "c": -2.0}
