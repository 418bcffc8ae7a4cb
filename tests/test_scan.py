"""Geometry, Scan, ScanRef: what they promise."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medvae.scan import Geometry, Scan, ScanInfo, ScanRef, scan_hash

AFFINE = np.array([[0, -2.0, 0, 30], [0, 0, 3.0, -20], [4.0, 0, 0, 10], [0, 0, 0, 1]])
GEOMETRY = Geometry((4, 5, 6), AFFINE)
DATA = np.arange(120, dtype=np.float32).reshape(4, 5, 6)


def test_spacing_volume_and_positions() -> None:
    assert GEOMETRY.spacing == (4, 2, 3)
    assert GEOMETRY.voxel_volume == pytest.approx(24)
    np.testing.assert_allclose(GEOMETRY.to_world([1, 2, 3]), [30 - 4, -20 + 9, 10 + 4])
    np.testing.assert_allclose(GEOMETRY.to_world(np.zeros((7, 2, 3))), np.broadcast_to(AFFINE[:3, 3], (7, 2, 3)))
    np.testing.assert_allclose(GEOMETRY.to_index(GEOMETRY.to_world([0.5, 2, 3])), [0.5, 2, 3])
    corners = GEOMETRY.corners()
    assert corners.shape == (8, 3)
    np.testing.assert_allclose(corners[0], AFFINE[:3, 3])
    np.testing.assert_allclose(corners[-1], GEOMETRY.to_world([3, 4, 5]))


def test_distance_is_the_largest_between_corners() -> None:
    moved, scaled = AFFINE.copy(), AFFINE.copy()
    moved[1, 3] += 2
    scaled[2, 0] += 0.1  # 0.1 mm a voxel, 3 steps
    assert GEOMETRY.distance_to(GEOMETRY) == 0
    assert GEOMETRY.distance_to(Geometry((4, 5, 6), moved)) == pytest.approx(2)
    assert GEOMETRY.distance_to(Geometry((4, 5, 6), scaled)) == pytest.approx(0.3)
    assert GEOMETRY.distance_to(Geometry((4, 5, 7), AFFINE)) == np.inf


def test_equal_to_the_bit_and_hashable() -> None:
    same = Geometry((4, 5, 6), AFFINE.copy())
    assert same == GEOMETRY
    assert hash(same) == hash(GEOMETRY)
    assert Geometry((4, 5, 6), AFFINE + 1e-12) != GEOMETRY
    assert GEOMETRY != "a geometry"
    assert pickle.loads(pickle.dumps(GEOMETRY)) == GEOMETRY


def test_a_geometry_cannot_be_changed_from_outside() -> None:
    mine = AFFINE.copy()
    geometry = Geometry((4, 5, 6), mine)
    mine[0, 3] = 99
    assert geometry == GEOMETRY
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 99


@pytest.mark.parametrize(("shape", "affine"), [((4, 5), AFFINE), ((4, 5, 0), AFFINE), ((4, 5, 6), np.eye(3))])
def test_what_is_no_geometry(shape: Any, affine: Any) -> None:
    with pytest.raises(ValueError, match=r"affine is 4x4|three positive lengths"):
        Geometry(shape, affine)


def test_a_scan_fits_its_geometry() -> None:
    assert Scan(DATA, GEOMETRY).with_data(DATA + 1).geometry is GEOMETRY
    with pytest.raises(ValueError, match="does not fit the geometry"):
        Scan(DATA[:3], GEOMETRY)
    with pytest.raises(ValueError, match="does not fit the data"):
        Scan(DATA, GEOMETRY, valid=np.ones((3, 3, 3), bool))


def test_nothing_of_a_person_in_a_repr() -> None:
    text = repr(Scan(DATA, GEOMETRY, source={"PatientName": "somebody"}))
    assert "somebody" not in text
    assert "array" not in text


def test_a_ref_needs_a_file_and_defaults_its_subject() -> None:
    ref = ScanRef("one", "nifti", (Path("b.hdr"), Path("a.img")))
    assert ref.subject == "one"
    assert ref.path == Path("b.hdr")
    with pytest.raises(ValueError, match="at least one file"):
        ScanRef("one", "nifti", ())


def test_info_knows_the_memory_that_reading_needs() -> None:
    assert ScanInfo(GEOMETRY, "int16").nbytes == DATA.nbytes


def test_the_hash_knows_a_scan_again_and_no_other() -> None:
    scan = Scan(DATA, GEOMETRY)
    digest = scan_hash(scan)
    fortran = Scan(np.asfortranarray(DATA), Geometry((4, 5, 6), AFFINE + 1e-6), units="HU", warnings=("x",))
    assert scan_hash(fortran) == digest
    changed = DATA.copy()
    changed[1, 2, 3] += 1
    moved = AFFINE.copy()
    moved[0, 3] += 1
    assert scan_hash(Scan(changed, GEOMETRY)) != digest
    assert scan_hash(Scan(DATA, Geometry((4, 5, 6), moved))) != digest
    assert scan_hash(Scan(DATA.reshape(4, 6, 5), Geometry((4, 6, 5), AFFINE))) != digest


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_the_hash_knows_a_scan_whose_axes_were_turned(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """As by fslreorient2std: a training scan is not a new healthy one."""
    turn = np.array(list(zip(order, signs, strict=True)))
    turned = nib.orientations.apply_orientation(DATA, turn)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, DATA.shape)
    assert scan_hash(Scan(turned, Geometry(turned.shape, affine))) == scan_hash(Scan(DATA, GEOMETRY))


def test_the_hash_takes_both_zeros_for_one() -> None:
    """A reader may give −0.0 where another gives 0.0; it is the same place."""
    negative = AFFINE.copy()
    negative[0, 0] = negative[1, 0] = -1e-9
    assert scan_hash(Scan(DATA, Geometry((4, 5, 6), negative))) == scan_hash(Scan(DATA, GEOMETRY))


def test_a_scan_is_known_again_by_its_contents_and_by_what_a_list_says_of_it(tmp_path: Path) -> None:
    for name, text in {"a.nii": "scan", "b.nii": "scan", "mask.nii": "mask", "other.nii": "another"}.items():
        (tmp_path / name).write_text(text, "utf-8")
    ref = ScanRef("a", "nifti", (tmp_path / "a.nii",), mask=tmp_path / "mask.nii", conditions={"age": 61.0, "sex": "f"})
    same = replace(ref, paths=(tmp_path / "b.nii",), label="ill", split="test", conditions={"sex": "f", "age": 61.0})
    assert same.fingerprint() == ref.fingerprint()
    assert ref.with_id("b").fingerprint() == ref.fingerprint()
    changes: list[dict[str, Any]] = [
        {"paths": (tmp_path / "other.nii",)},
        {"mask": tmp_path / "other.nii"},
        {"mask": None},
        {"label_map": tmp_path / "mask.nii"},
        {"mask": None, "label_map": tmp_path / "mask.nii"},
        {"frames": (1, 2)},
        {"conditions": {"age": 62.0, "sex": "f"}},
        {"modality": "CT"},
        {"subject": "who"},
    ]
    found = {replace(ref, **change).fingerprint() for change in changes}
    assert len(found | {ref.fingerprint()}) == len(changes) + 1
    with pytest.raises(OSError, match="gone"):
        replace(ref, mask=tmp_path / "gone.nii").fingerprint()


def test_another_id_takes_the_subject_along_where_it_was_the_id() -> None:
    own, named = ScanRef("a", "nifti", (Path("a.nii"),)), ScanRef("a", "nifti", (Path("a.nii"),), subject="who")
    assert (own.with_id("b").id, own.with_id("b").subject) == ("b", "b")
    assert (named.with_id("b").id, named.with_id("b").subject) == ("b", "who")
