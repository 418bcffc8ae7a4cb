"""Slices that have lost their rescale or have another one: refused where values would be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_made import GEOMETRY, SHAPE, Edit, enhanced, plane, put, ramp, read_one, refusal, save, slices
from pydicom.uid import EnhancedCTImageStorage

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset


def lost(*numbers: int, keywords: tuple[str, ...] = ("RescaleSlope", "RescaleIntercept")) -> Edit:
    """Slices by number that have no rescale."""

    def edit(one: Dataset, number: int) -> None:
        for keyword in keywords if number in numbers else ():
            delattr(one, keyword)

    return edit


def rescale(slope: float, intercept: float, *numbers: int) -> Edit:
    def edit(one: Dataset, number: int) -> None:
        if not numbers or number in numbers:
            one.RescaleSlope, one.RescaleIntercept = str(slope), str(intercept)

    return edit


@pytest.mark.parametrize(
    ("modality", "edits", "words"),
    [
        ("CT", [lost(1, 2)], "slope 1 and intercept -1024 (3), none (2)"),
        ("CT", [lost(4)], "slope 1 and intercept -1024 (4), none (1)"),
        ("CT", [lost(1, 2, keywords=("RescaleIntercept",))], "slope 1 and intercept -1024 (3), none (2)"),
        ("CT", [rescale(1, 0, 3, 4)], "slope 1 and intercept -1024 (3), slope 1 and intercept 0 (2)"),
        ("CT", [rescale(2, -1024, 3)], "slope 1 and intercept -1024 (4), slope 2 and intercept -1024 (1)"),
        ("MR", [rescale(2.5, 0), lost(2)], "given (4), none (1)"),
        ("PT", [rescale(0.5, 0, 0), rescale(0.7, 0, 1), rescale(0.9, 0, 2), lost(3, 4)], "given (3), none (2)"),
        ("MR", [rescale(2.5, 0), lost(1, 2, keywords=("RescaleSlope",))], "given (3), no slope (2)"),
    ],
)
def test_slices_without_the_rescale_of_the_others(tmp_path: Path, modality: str, edits: list[Edit], words: str) -> None:
    """Refused, and never split: a part without its rescale would be read with other values."""
    made = slices(ramp(), modality=modality)
    for number, one in enumerate(made):
        for edit in edits:
            edit(one, number)
    for number, one in enumerate(made):
        save(one, tmp_path / str(number))
    for settings in ({}, {"split_mixed": True}):
        error = refusal(tmp_path, **settings)
        assert (error.code, words in error.message) == ("mixed_series", True)
        assert "export the series again" in (error.hint or "")


@pytest.mark.parametrize(
    ("modality", "edits"),
    [
        ("MR", [lost(1, 2)]),  # slope 1 and intercept 0 are what a missing rescale means
        ("CT", [rescale(1, 0), lost(1, 2)]),
        ("MR", [rescale(2.5, 3, 0), rescale(1, 0, 1), rescale(0.1, 2, 2, 3, 4)]),  # each slice its own
    ],
)
def test_rescales_that_are_right(tmp_path: Path, modality: str, edits: list[Edit]) -> None:
    put(tmp_path, slices(ramp(), modality=modality), *edits)
    assert read_one(tmp_path).data.shape == SHAPE


def test_a_unit_is_what_a_missing_one_means(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, number: setattr(one, "RescaleType", "HU") if number else None)
    assert read_one(tmp_path).units == "HU"


def test_frames_without_the_rescale_of_the_others(tmp_path: Path) -> None:
    frames = [
        (
            ramp()[:, :, n].T,
            plane(4 * n, PixelValueTransformation={"RescaleSlope": "2", "RescaleIntercept": "5"} if n else {}),
        )
        for n in range(SHAPE[2])
    ]
    save(enhanced(frames, GEOMETRY), tmp_path / "one")
    assert refusal(tmp_path).message == "the slices differ in RescaleSlope and RescaleIntercept: none (1), given (4)"


def test_frames_of_a_ct_may_have_their_own_rescale(tmp_path: Path) -> None:
    """One object comes from one export: what it says of each frame counts."""
    frames = [
        (
            ramp()[:, :, n].T,
            plane(4 * n, PixelValueTransformation={"RescaleSlope": f"{n + 1}", "RescaleIntercept": "-1024"}),
        )
        for n in range(SHAPE[2])
    ]
    one = enhanced(frames, GEOMETRY)
    one.SOPClassUID, one.Modality = EnhancedCTImageStorage, "CT"
    path = save(one, tmp_path / "one")
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() * np.arange(1.0, SHAPE[2] + 1) - 1024)
    del frames[2][1].PixelValueTransformationSequence
    save(one, path)
    assert "none (1)" in refusal(tmp_path).message


def test_copies_that_differ_in_their_rescale(tmp_path: Path) -> None:
    """One series exported in two ways: the copy without its rescale is not taken for the image."""
    made = slices(ramp())
    put(tmp_path / "b", made)
    put(tmp_path / "a", made, lost(0, 1, 2, 3, 4))
    error = refusal(tmp_path)
    assert error.code == "mixed_series"
    assert "copies of one image differ in RescaleSlope or RescaleIntercept (5 files)" in error.message


def test_stored_values_that_cannot_be_hounsfield_units(tmp_path: Path) -> None:
    """A rescale that shifts nothing, in every slice of a CT, is right for some scanners and lost for others."""
    put(tmp_path / "a", slices(ramp() + 900), rescale(1, 0))
    (warning,) = read_one(tmp_path / "a").warnings
    assert "do not look like Hounsfield units" in warning
    body = np.random.default_rng(0).choice([-1000, -100, 40, 60], SHAPE).astype(np.int16)
    put(tmp_path / "b", slices(body), rescale(1, 0))
    assert read_one(tmp_path / "b").warnings == ()
