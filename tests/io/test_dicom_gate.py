"""The gate: every reason alone, several at once, and what is still within the tolerances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import (
    SHAPE,
    put,
    ramp,
    read_one,
    refusal,
    slices,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = ReadSettings()


def shift(*positions: float) -> Callable[[Dataset, int], None]:
    """Other heights of the slices."""
    return lambda one, number: setattr(one, "ImagePositionPatient", [-30, -40, positions[number]])


def lean(mm: float) -> Callable[[Dataset, int], None]:
    return lambda one, number: setattr(one, "ImagePositionPatient", [-30 + mm * number, -40, 4 * number])


def aside(mm: float) -> Callable[[Dataset, int], None]:
    """The middle slice lies aside in its plane, the ends of the stack do not."""

    def edit(one: Dataset, number: int) -> None:
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x + mm * (number == 2), y, z]

    return edit


def other(keyword: str, value: Any) -> Callable[[Dataset, int], None]:
    """A tag of the last two slices."""
    return lambda one, number: setattr(one, keyword, value) if number > 2 else None


def every(keyword: str, value: Any) -> Callable[[Dataset, int], None]:
    return lambda one, _: setattr(one, keyword, value)


@pytest.mark.parametrize(
    ("edits", "code", "words"),
    [
        ([every("PhotometricInterpretation", "PALETTE COLOR")], "colour", "PALETTE COLOR"),
        ([every("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])], "mosaic", "MOSAIC"),
        ([other("ImageOrientationPatient", [1, 0, 0, 0, 0, -1])], "mixed_series", "axial (3), coronal (2)"),
        (
            [other("ImageOrientationPatient", [0.99999, 0.0045, 0, -0.0045, 0.99999, 0])],
            "mixed_series",
            "axial turned by 0.",
        ),
        ([other("PixelSpacing", [3, 2.01])], "mixed_series", "PixelSpacing: 3x2 (3), 3x2.01 (2)"),
        ([other("FrameOfReferenceUID", "1.2.3")], "mixed_series", "FrameOfReferenceUID: value 1 (3), value 2 (2)"),
        ([other("ImageType", ["ORIGINAL", "PRIMARY", "MPR"])], "mixed_series", "ImageType: AXIAL (3), MPR (2)"),
        ([other("EchoNumbers", 2)], "mixed_series", "EchoNumbers: none (3), 2 (2)"),
        ([every("EchoTime", 14), other("EchoTime", 90)], "mixed_series", "EchoTime: 14 ms (3), 90 ms (2)"),
        ([other("PatientID", "another")], "mixed_series", "PatientID: value 1 (3), value 2 (2)"),
        ([other("StudyInstanceUID", "1.2.3")], "mixed_series", "StudyInstanceUID: value 1 (3), value 2 (2)"),
        ([other("Modality", "PT")], "mixed_series", "Modality: CT (3), PT (2), in RescaleType: HU (3), US (2)"),
        ([other("RescaleType", "Z_EFF")], "mixed_series", "RescaleType: HU (3), Z_EFF (2)"),
        ([other("TemporalPositionIdentifier", 2)], "mixed_series", "TemporalPositionIdentifier: none (3), 2 (2)"),
        ([shift(0, 4, 8, 8, 4)], "duplicate_positions", "5 slices lie at 3 positions"),
        ([shift(0, 4, 8, 8.03, 12)], "duplicate_positions", "5 slices lie at 4 positions"),
        ([shift(7, 7, 7, 7, 7)], "duplicate_positions", "all 5 slices lie at one position"),
        (
            [shift(0, 4, 8, 16, 20)],
            "uneven_spacing",
            "after slice 3 the gap is 8.000 mm instead of 4.000 mm, 1 missing",
        ),
        ([shift(0, 4, 8, 24, 28)], "uneven_spacing", "3 missing"),
        ([shift(0, 4, 8.6, 12, 16)], "uneven_spacing", "slice 3 lies 0.600 mm off an even spacing of 4.000 mm"),
        ([shift(0, 0.4, 0.85, 1.2, 1.6)], "uneven_spacing", "slice 3"),  # 10% of a small step
        ([lean(0.1)], "gantry_tilt", "1.4 degrees (2.5% of its length)"),
        ([aside(30)], "gantry_tilt", "slice 3 is shifted by 30.0 mm in its plane"),
        ([lean(0.03), aside(1)], "gantry_tilt", "slice 3 is shifted by 1.0 mm"),
        ([lambda one, n: setattr(one, "ModalityLUTSequence", Items([Dataset()]))], "modality_lut", "ModalityLUT"),
    ],
)
def test_every_reason(tmp_path: Path, edits: list[Any], code: str, words: str) -> None:
    put(tmp_path, slices(ramp()), *edits)
    error = refusal(tmp_path)
    assert error.code == code
    assert words in error.message
    assert ";" not in error.message  # and no other reason


@pytest.mark.parametrize(
    "edit",
    [
        shift(0, 4.05, 7.95, 12.05, 16),  # positions rounded
        shift(0, 4.2, 8, 12, 16),
        lean(0.03),
        lean(-0.03),
        aside(0.2),
        other("ImageOrientationPatient", [0.9999999, 0.0005, 0, -0.0005, 0.9999999, 0]),
        other("PixelSpacing", [3.00005, 2]),
        other("ImageType", ["DERIVED", "SECONDARY", "AXIAL"]),
        other("RescaleType", "HU"),
        other("SeriesNumber", 7),
        other("KVP", 100),
    ],
)
def test_within_the_tolerances(tmp_path: Path, edit: Any) -> None:
    put(tmp_path, slices(ramp()), edit)
    assert read_one(tmp_path).geometry.spacing == pytest.approx((2, 3, 4), abs=0.01)


def test_all_reasons_are_said_the_first_is_the_code(tmp_path: Path) -> None:
    put(tmp_path / "a", slices(ramp()), shift(0, 4, 8, 8, 20), every("PhotometricInterpretation", "RGB"))
    error = refusal(tmp_path / "a")
    assert error.code == "colour"
    assert error.message.split("; ") == [
        "1 samples per pixel, RGB (5 files)",
        "5 slices lie at 4 positions",
        "after slice 3 the gap is 12.000 mm instead of 4.000 mm, 2 missing",
    ]
    put(tmp_path / "b", slices(ramp()[:, :, :2]), lean(9))
    assert refusal(tmp_path / "b").message.split("; ") == [
        "2 slices",
        "the stack is tilted by 66.0 degrees (225.0% of its length)",
    ]


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        (
            "ImageOrientationPatient",
            [0.999998, 0.002, 0, -0.002, 0.999998, 0],
            "axial turned by 0.00 degrees (4), axial turned by 0.11",
        ),
        ("PixelSpacing", [3.0002, 2], "3x2 (4), 3.0002x2 (1)"),
    ],
)
def test_small_differences_are_shown(tmp_path: Path, keyword: str, value: list[float], words: str) -> None:
    put(tmp_path, slices(ramp()), lambda one, number: setattr(one, keyword, value) if number == 4 else None)
    assert words in refusal(tmp_path).message


def test_mixed_series_report_no_positions(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), shift(0, 4, 8, 8, 4), other("EchoNumbers", 2))
    assert refusal(tmp_path).message == "the slices differ in EchoNumbers: none (3), 2 (2)"


@pytest.mark.parametrize("count", [1, 2])
def test_too_few(tmp_path: Path, count: int) -> None:
    put(tmp_path, slices(ramp()[:, :, :count]))
    error = refusal(tmp_path)
    assert (error.code, error.message) == ("too_few_slices", ["1 slice", "2 slices"][count - 1])


def test_blank_and_beyond_float(tmp_path: Path) -> None:
    put(tmp_path / "a", slices(np.full(SHAPE, 7, np.int16)))
    assert refusal(tmp_path / "a").code == "blank"
    half = ramp()
    half[4:] = 7
    padding = [
        lambda one, _: setattr(one, "PixelPaddingRangeLimit", 6),
        lambda one, _: setattr(one, "PixelPaddingValue", 0),
    ]
    put(tmp_path / "c", slices(np.minimum(half, 7)), *padding)
    assert refusal(tmp_path / "c").message == "all voxels are -1017"
    put(tmp_path / "d", slices(half % 7), *padding)
    assert refusal(tmp_path / "d").message == "all voxels are padding"
    put(tmp_path / "b", slices(ramp()), every("RescaleSlope", "1e38"))
    assert refusal(tmp_path / "b").code == "non_finite"


def test_too_large_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()))
    assert refusal(tmp_path, max_gib=1e-6).code == "too_large"


def test_claims_of_a_header_cost_nothing(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), every("Rows", 65535), every("Columns", 65535))
    error = refusal(tmp_path)
    assert error.code == "truncated"
    assert "GiB" in error.message
