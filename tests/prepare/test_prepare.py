"""Preparing: masks, modalities, units, filled voxels, and the recipe as a part of a checkpoint."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_scans import MNI, aligned_brain, as_scan, centred, made_brain, rotation

from medvae.errors import ScanError, SettingsError
from medvae.prepare import template
from medvae.prepare.native import coverage, foreground_share, to_native
from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.scan import Geometry, Scan, scan_hash
from medvae.settings import PrepareSettings

GEOMETRY = centred((24, 26, 28), rotation(5, 10, -5) @ np.diag([2.0, 2, 2]))
VALUES = np.random.default_rng(0).normal(500, 80, GEOMETRY.shape).astype(np.float32)
BALL = np.linalg.norm(np.indices(GEOMETRY.shape).T - (np.array(GEOMETRY.shape) - 1) / 2, axis=-1).T < 9
STRIPPED = np.where(BALL, VALUES, np.float32(0))


def recipe(**changes: Any) -> Preparation:
    return Preparation(PrepareSettings(**({"spacing": (2, 2, 2), "shape": (32, 32, 32)} | changes)))


def prepared(data: np.ndarray[Any, Any] = STRIPPED, **more: Any) -> Prepared:
    settings = more.pop("settings", {})
    fields = {key: more.pop(key) for key in ("valid", "modality", "units", "warnings") if key in more}
    return prepare(Scan(data, GEOMETRY, **fields), recipe(**settings), **more)


def refused(data: np.ndarray[Any, Any] = STRIPPED, **more: Any) -> ScanError:
    with pytest.raises(ScanError) as caught:
        prepared(data, **more)
    return caught.value


def test_what_a_prepared_scan_is() -> None:
    one = prepared(id="a", warnings=("a warning",), label_map=BALL.astype(np.int16))
    assert one.image.shape == one.mask.shape == one.fov.shape == (1, 32, 32, 32)
    assert (one.image.dtype, one.mask.dtype, one.fov.dtype) == (np.float32, np.bool_, np.bool_)
    assert one.label_map is not None
    assert one.label_map.dtype == np.int16
    for array in (one.image, one.mask, one.fov, one.label_map):
        assert array.flags.c_contiguous
    assert (one.id, one.subject, one.warnings) == ("a", "a", ("a warning",))
    assert one.input == GEOMETRY
    assert one.source_hash == scan_hash(Scan(STRIPPED, GEOMETRY))
    assert not (one.mask & ~one.fov).any()
    assert (one.image[~one.mask] == 0).all()
    assert np.median(one.image[one.mask]) == pytest.approx(0, abs=0.05)
    again = pickle.loads(pickle.dumps(one))  # it comes from another process
    np.testing.assert_array_equal(again.image, one.image)


def test_values_that_half_precision_cannot_keep_are_refused() -> None:
    """They became infinite in the cache of a training."""
    high = np.where(BALL, VALUES * 200, np.float32(0))
    error = refused(high, settings={"intensity": "none"})
    assert error.code == "values_too_large"
    assert "cannot be kept" in str(error)
    assert np.isfinite(prepared(high).image.astype(np.float16)).all()


def test_a_given_mask_is_respected_holes_included() -> None:
    """Values outside of it change nothing, and a cavity that was left out stays out."""
    mask = BALL.copy()
    mask[10:14, 11:15, 12:16] = False
    wild = np.where(mask, VALUES, np.random.default_rng(1).normal(5000, 99, VALUES.shape)).astype(np.float32)
    one = prepared(wild, mask=mask)
    assert to_native(one.mask[0], one, labels=True)[12, 13, 14] == 0
    back = to_native(one.mask[0], one, labels=True)
    assert 2 * (back * mask).sum() / (back.sum() + mask.sum()) > 0.9
    assert one.intensity.offset == pytest.approx(500, abs=60)  # its rim is mixed with what lies around


def test_holes_of_a_found_foreground_are_filled() -> None:
    """A voxel of a brain may happen to be 0."""
    data = STRIPPED.copy()
    data[10:14, 11:15, 12:16] = 0
    assert to_native(prepared(data).mask[0], prepared(data), labels=True)[12, 13, 14] == 1


def test_a_mask_or_label_map_of_another_shape_is_a_mistake_of_the_caller() -> None:
    for key in ("mask", "label_map"):
        with pytest.raises(ScanError, match="does not fit the scan"):
            prepared(**{key: np.ones((3, 3, 3), np.int16)})


def test_nothing_to_look_at() -> None:
    empty = refused(mask=np.zeros(GEOMETRY.shape, bool))
    assert (empty.code, empty.message) == ("no_foreground", "the mask is empty")
    assert (
        refused(np.full(GEOMETRY.shape, -1000, np.float32) + BALL, settings={"foreground": "air"}).code
        == "no_foreground"
    )
    corner = np.zeros(GEOMETRY.shape, bool)
    corner[:2, :2, :2] = True
    problem = refused(mask=corner, settings={"shape": (8, 8, 8)})
    assert problem.code == "no_foreground"
    assert "outside the model's grid" in str(problem)
    assert refused(np.where(BALL, np.float32(7), np.float32(0))).code == "blank"


@pytest.mark.parametrize(
    ("scan", "model", "fits"), [("CT", "MR", False), ("CT", "CT", True), (None, "MR", True), ("MR", None, True)]
)
def test_modality(scan: Any, model: Any, fits: bool) -> None:
    if fits:
        assert prepared(modality=scan, settings={"modality": model}).modality == (scan or model)
    else:
        problem = refused(modality=scan, settings={"modality": model})
        assert problem.code == "wrong_modality"
        assert "the scan is CT, the model is for MR" in str(problem)


@pytest.mark.parametrize(
    ("stated", "model", "units"), [(None, "CT", "HU"), (None, "MR", "a.u."), ("CT", "CT", "a.u."), (None, None, "a.u.")]
)
def test_a_file_that_does_not_say_it_is_ct_is_in_hu_for_a_model_of_ct(stated: Any, model: Any, units: str) -> None:
    """What a header says stands, also a foreign unit."""
    assert prepared(modality=stated, settings={"modality": model}).units == units


def test_hounsfield_units_stay_through_preparation_and_back() -> None:
    hu = np.where(BALL, np.float32(40), np.float32(-1000))
    hu[10:14, 11:15, 12:16] = -850
    settings = {"foreground": "air", "intensity": "window", "window": (-1000, 400), "modality": "CT"}
    one = prepared(hu, modality="CT", units="HU", settings=settings)
    assert one.units == "HU"
    assert (one.image[~one.mask] == -1).all(), "outside the body is air"
    back = to_native(one.intensity.invert(one.image[0]), one)
    assert back[12, 5, 14] == pytest.approx(40, abs=1)
    assert back[12, 13, 14] == pytest.approx(-850, abs=60)  # a hole of four voxels, interpolated twice
    assert one.mask[0].sum() == pytest.approx(BALL.sum(), rel=0.05), "the lung belongs to the body"


def test_filled_voxels_have_no_weight_and_are_left_out() -> None:
    """A hole filled with anything changes no value around it."""
    valid = np.ones(GEOMETRY.shape, bool)
    valid[10:14, 11:15, 12:16] = False
    smooth = np.where(BALL, np.float32(500) + np.indices(GEOMETRY.shape)[0], 0).astype(np.float32)
    plain = prepared(smooth)
    for filling in (0.0, 1e6):
        data = np.where(valid, smooth, np.float32(filling))
        one = prepared(data, valid=valid)
        assert to_native(one.mask[0], one, labels=True)[12, 13, 14] == 0
        assert not coverage(one)[11:13, 12:14, 13:15].any()
        mine = one.intensity.invert(one.image[0])[one.mask[0]]
        theirs = plain.intensity.invert(plain.image[0])[one.mask[0]]
        np.testing.assert_allclose(mine, theirs, atol=0.6)  # within one step of the ramp


def test_the_grid_is_centred_on_the_image_or_on_the_foreground() -> None:
    shifted = np.zeros(GEOMETRY.shape, np.float32)
    shifted[2:10, 3:11, 4:12] = VALUES[2:10, 3:11, 4:12]
    by_image = prepared(shifted, settings={"centre": "image"})
    by_content = prepared(shifted, settings={"centre": "foreground"})
    middle = np.append((np.array(by_image.grid.shape) - 1) / 2, 1)
    np.testing.assert_allclose((by_image.to_input @ middle)[:3], (np.array(GEOMETRY.shape) - 1) / 2, atol=1e-9)
    np.testing.assert_allclose((by_content.to_input @ middle)[:3], [5.5, 6.5, 7.5], atol=1e-9)


def test_how_much_of_the_foreground_a_grid_holds() -> None:
    whole, half = prepared(), prepared(settings={"shape": (9, 32, 32)})
    assert whole.foreground_ml == half.foreground_ml == pytest.approx(BALL.sum() * 8e-3)
    assert foreground_share(whole, coverage(whole)) == pytest.approx(1, abs=0.02)
    assert foreground_share(half, coverage(half)) == pytest.approx(coverage(half)[BALL].mean(), abs=0.02)
    assert coverage(half)[BALL].mean() < 0.8
    assert foreground_share(replace(whole, foreground_ml=None), coverage(whole)) is None


def test_aligned_scans_share_a_grid_in_mni_space() -> None:
    one = aligned_brain()
    assert one.grid == Preparation(MNI).grid == template.centred_grid((4, 4, 4), (48, 56, 48))
    assert one.warnings == ()
    assert one.mask[0][tuple(np.round(one.grid.to_index([0, 0, 0])).astype(int))]


def test_restored_values_have_exactly_the_shape_of_the_scan() -> None:
    one = aligned_brain()
    for labels, dtype in ((False, np.float32), (True, np.int16)):
        back = to_native(one.mask[0].astype(np.float32), one, labels=labels)
        assert back.shape == made_brain().data.shape
        assert back.dtype == dtype


def test_preparing_twice_gives_the_same_bytes() -> None:
    first = aligned_brain()
    member = made_brain()
    again = prepare(as_scan(member), Preparation(MNI), id="made", label_map=member.lesion.astype(np.int16))
    for field in ("image", "mask", "fov", "label_map", "to_input"):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert first.intensity == again.intensity


def test_the_recipe_travels_with_the_checkpoint() -> None:
    one = recipe(align="mni152", window=(-500, 300))
    assert Preparation.from_json(one.to_json()) == one
    assert one.hash == Preparation.from_json(one.to_json()).hash != recipe(align="mni152").hash
    assert recipe().aligned is False
    assert recipe().grid == Geometry((32, 32, 32), centred((32, 32, 32), np.diag([2.0, 2, 2])).affine)
    with pytest.raises(SettingsError, match="unknown setting 'spacings'"):
        Preparation.from_json({**one.to_json(), "spacings": [1, 1, 1]})


def test_the_hash_knows_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe(align="mni152").hash, recipe().hash
    monkeypatch.setattr(template, "file_hash", lambda: "another template")
    assert recipe(align="mni152").hash != before[0]
    assert recipe().hash == before[1], "without alignment the template says nothing"


def test_a_scan_is_not_changed_by_preparing_it() -> None:
    scan = as_scan(made_brain())
    copy = scan.data.copy()
    prepare(replace(scan, modality=None), recipe(spacing=(4, 4, 4)))
    np.testing.assert_array_equal(scan.data, copy)
