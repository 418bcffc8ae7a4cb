"""The DICOM reader on series made to be right in unusual ways: places, values, bits, padding, copies."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import (
    SHAPE,
    find_one,
    orientations,
    put,
    ramp,
    read_one,
    refusal,
    save,
    slices,
)
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from scipy.spatial.transform import Rotation

from medvae.io import reading
from medvae.scan import Geometry
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

SETTINGS = ReadSettings()


# --------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("affine", orientations())
def test_a_landmark_keeps_its_place_in_all_48_orientations(tmp_path: Path, affine: np.ndarray) -> None:
    check_places(tmp_path, affine)


@given(angles=st.tuples(*[st.floats(-180, 180)] * 3), spacing=st.tuples(*[st.floats(0.3, 7)] * 3))
def test_a_landmark_keeps_its_place_in_any_oblique(
    tmp_path_factory: pytest.TempPathFactory, angles: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (-90, 120, 33)
    check_places(tmp_path_factory.mktemp("oblique"), affine)


def check_places(folder: Path, affine: np.ndarray) -> None:
    """Every voxel has its value at its place in the world; a left-handed stack comes back with its slices reversed."""
    put(folder, slices(ramp(), affine))
    scan = read_one(folder)
    assert scan.geometry.shape == SHAPE
    index = np.argwhere(np.ones(SHAPE, bool))
    places = Geometry(SHAPE, affine).to_world(index)
    back = scan.geometry.to_index(places)
    assert np.abs(back - np.rint(back)).max() < 1e-3
    values = scan.data[tuple(np.rint(back).astype(int).T)]
    np.testing.assert_array_equal(values, ramp().ravel() - 1024.0)
    assert np.linalg.det(scan.geometry.affine) > 0


def test_pixel_spacing_is_between_rows_first(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "PixelSpacing", [3, 2]))
    assert read_one(tmp_path).geometry.spacing == pytest.approx((2, 3, 4))


def test_tags_that_lie_about_geometry_are_not_asked(tmp_path: Path) -> None:
    def lie(one: Dataset, number: int) -> None:
        one.InstanceNumber, one.SliceLocation = (3 * number) % 5, -number
        one.SliceThickness, one.SpacingBetweenSlices = 17, 23
        one.AcquisitionNumber, one.AcquisitionTime = number, f"12000{number}"

    put(tmp_path, slices(ramp()), lie)
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() - 1024.0)


# ----------------------------------------------------------------------------------------------------------- values


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    def rescale(one: Dataset, number: int) -> None:
        one.RescaleSlope, one.RescaleIntercept = str(0.5 + number), str(-number)

    put(tmp_path, slices(ramp(), modality="PT"), rescale, lambda one, _: setattr(one, "Units", "BQML"))
    scan = read_one(tmp_path)
    expected = ramp() * (0.5 + np.arange(SHAPE[2])) - np.arange(SHAPE[2])
    np.testing.assert_allclose(scan.data, expected, rtol=1e-6)
    assert (scan.modality, scan.units) == ("PT", "BQML")


@pytest.mark.parametrize(
    ("modality", "tags", "units", "warning"),
    [
        ("CT", {}, "HU", None),
        ("CT", {"RescaleType": "HU"}, "HU", None),
        ("CT", {"RescaleType": "Z_EFF"}, "a.u.", "CT values are in Z_EFF, not HU"),
        ("CT", {"RescaleSlope": None, "RescaleIntercept": None}, "HU", "no rescale in the header: stored values"),
        ("MR", {}, "a.u.", None),
        ("MR", {"ContrastBolusAgent": "10cc Multihance"}, "a.u.", "contrast_agent: the header names"),
        ("MR", {"ContrastBolusAgent": "NONE"}, "a.u.", None),
        ("CT", {"ContrastBolusAgent": "iodine"}, "HU", None),
        ("MR", {"PhotometricInterpretation": "MONOCHROME1"}, "a.u.", "MONOCHROME1: stored values count"),
        ("CT", {"PhotometricInterpretation": "MONOCHROME1"}, "HU", None),
        ("PT", {"Units": "GML"}, "SUV", None),
        ("PT", {"Units": "CNTS"}, "a.u.", None),
        ("CT", {"LossyImageCompression": "01"}, "HU", "the images are lossily compressed"),
    ],
)
def test_units(tmp_path: Path, modality: str, tags: dict[str, Any], units: str, warning: str | None) -> None:
    def edit(one: Dataset, _: int) -> None:
        for keyword, value in tags.items():
            setattr(one, keyword, value)

    put(tmp_path, slices(ramp(), modality=modality), edit)
    scan = read_one(tmp_path, modality="MR")  # what the file says wins
    assert (scan.modality, scan.units) == (modality, units)
    assert [text[: len(warning or "")] for text in scan.warnings] == ([] if warning is None else [warning])
    if "RescaleSlope" in tags or modality != "CT":
        np.testing.assert_array_equal(scan.data, ramp())


@pytest.mark.parametrize("intercept", ["empty", "missing"])
def test_a_slope_without_intercept_is_said_to_count(tmp_path: Path, intercept: str) -> None:
    def edit(one: Dataset, _: int) -> None:
        one.RescaleSlope, one.RescaleIntercept = "2", None
        if intercept == "missing":
            del one.RescaleIntercept

    put(tmp_path, slices(ramp()), edit)
    scan = read_one(tmp_path)
    np.testing.assert_array_equal(scan.data, 2 * ramp())
    assert scan.warnings[0].startswith("no rescale intercept in the header: stored values times the slope (2)")


@pytest.mark.parametrize(("modality", "units"), [("CT", "HU"), ("MR", "a.u."), ("PT", "a.u.")])
def test_a_missing_modality_is_that_of_the_sop_class(tmp_path: Path, modality: str, units: str) -> None:
    put(tmp_path, slices(ramp(), modality=modality), lambda one, _: delattr(one, "Modality"))
    scan = read_one(tmp_path, modality="MR" if modality == "CT" else "CT")
    assert (scan.modality, scan.units) == (modality, units)


def test_a_modality_that_is_none_of_ours_is_the_users(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "Modality", "OT"))
    assert read_one(tmp_path).modality is None
    assert read_one(tmp_path, modality="CT").units == "HU"


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (np.int16, {"PixelPaddingValue": -2000}),
        (np.int16, {"PixelPaddingValue": 63536}),  # the same bits, written as unsigned
        (np.uint16, {"PixelPaddingValue": 63536}),
        (np.int16, {"PixelPaddingValue": -2010, "PixelPaddingRangeLimit": -1990}),
        (np.int16, {"PixelPaddingValue": -1990, "PixelPaddingRangeLimit": -2010}),
    ],
)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding_is_not_valid(tmp_path: Path, stored: type, tags: dict[str, int], syntax: str | None) -> None:
    volume = ramp()
    volume[2:4, :, 1] = -2000
    made = slices(volume.astype(stored))

    def pad(one: Dataset, _: int) -> None:
        for keyword, value in tags.items():
            one.add_new(keyword, "SS" if value < 0 else "US", value)

    put(tmp_path, made, pad, syntax=syntax)
    scan = read_one(tmp_path)
    assert scan.valid is not None
    np.testing.assert_array_equal(~scan.valid, volume == -2000)
    # padding is air: never brighter than the darkest pixel
    expected = np.where(volume == -2000, -3024 if stored is np.int16 else -1024, volume - 1024.0)
    np.testing.assert_array_equal(scan.data, expected)


def test_padding_need_not_fit_into_the_bits_that_are_used(tmp_path: Path) -> None:
    volume = (ramp() + 100).astype(np.uint16)
    volume[0] = 63536

    def bits(one: Dataset, _: int) -> None:
        one.BitsStored, one.HighBit, one.PixelPaddingValue = 12, 11, 63536

    put(tmp_path, slices(volume, modality="MR"), bits)
    scan = read_one(tmp_path)
    assert scan.valid is not None
    np.testing.assert_array_equal(~scan.valid, volume == 63536)
    assert scan.data[0].max() == scan.data[1:].min()


def test_nothing_is_padding_where_no_pixel_has_the_value(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: one.add_new("PixelPaddingValue", "SS", -2000))
    assert read_one(tmp_path).valid is None


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_integer_type_and_transfer_syntax(tmp_path: Path, kind: type, syntax: str | None) -> None:
    limits = np.iinfo(kind)
    volume = np.random.default_rng(0).integers(limits.min, limits.max, SHAPE, endpoint=True).astype(kind)
    made = slices(volume, modality="MR")
    if syntax == ExplicitVRBigEndian and volume.itemsize == 1:
        for one in made:
            one["PixelData"].VR = "OB"
    put(tmp_path, made, syntax=syntax)
    np.testing.assert_array_equal(read_one(tmp_path).data, volume.astype(np.float32))


def test_bytes_in_big_endian_words_are_refused(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp().astype(np.uint8)), syntax=ExplicitVRBigEndian)
    assert refusal(tmp_path).code == "undecodable"


@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("signed", [True, False])
def test_only_the_stored_bits_count(tmp_path: Path, *, high: int, signed: bool) -> None:
    """12 bits up to a high bit, an overlay in the bits above and below, the sign not extended."""
    rng = np.random.default_rng(1)
    low, top = (-2048, 2047) if signed else (0, 4095)
    volume = rng.integers(low, top, SHAPE, endpoint=True)
    noise = rng.integers(0, 1 << 16, SHAPE)
    mask = 0xFFF << (high - 11)
    cells = (volume << (high - 11)) & mask | noise & ~mask
    made = slices(cells.astype(np.uint16), modality="MR")

    def bits(one: Dataset, _: int) -> None:
        one.BitsStored, one.HighBit, one.PixelRepresentation = 12, high, int(signed)

    put(tmp_path, made, bits)
    np.testing.assert_array_equal(read_one(tmp_path).data, volume)


def test_memory_is_the_volume_and_a_slice(tmp_path: Path) -> None:
    volume = np.random.default_rng(2).integers(0, 4000, (64, 64, 40)).astype(np.int16)
    put(tmp_path, slices(volume))
    ref = find_one(tmp_path)
    reading.read(ref, SETTINGS)
    tracemalloc.start()
    reading.read(ref, SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 4 * volume.size


# ------------------------------------------------------------------------------------------------------- duplicates


def test_copies_are_left_out_and_counted(tmp_path: Path) -> None:
    made = slices(ramp())
    put(tmp_path / "a", made)
    put(tmp_path / "b", made[1:3], syntax=ImplicitVRLittleEndian)  # the same pixels, coded otherwise
    scan = read_one(tmp_path)
    np.testing.assert_array_equal(scan.data, ramp() - 1024.0)
    assert scan.warnings == ("2 duplicate files left out",)
    assert reading.inspect(find_one(tmp_path), SETTINGS).warnings == scan.warnings


def test_one_uid_for_different_images(tmp_path: Path) -> None:
    made = slices(ramp())
    for one in made:
        one.SOPInstanceUID = made[0].SOPInstanceUID
    put(tmp_path, made)
    error = refusal(tmp_path)
    assert error.code == "duplicate_positions"
    assert "different images have the same SOPInstanceUID (4 files)" in error.message
    assert error.hint == "export the series again, every image with a SOPInstanceUID of its own"


def test_one_uid_for_equal_images_at_different_places(tmp_path: Path) -> None:
    """E.g. slices of air alone; a copy whose position was rounded is a copy."""
    made = slices(np.ones(SHAPE, np.int16) + ramp()[:, :, :1])
    for one in made[3:]:
        one.SOPInstanceUID = made[2].SOPInstanceUID
    put(tmp_path / "a", made)
    assert "different images have the same SOPInstanceUID (2 files)" in refusal(tmp_path / "a").message
    made = slices(ramp())
    put(tmp_path / "b", made)
    put(tmp_path / "c", made, lambda one, number: setattr(one, "ImagePositionPatient", [-30.04, -40, 4 * number - 50]))
    for path in (tmp_path / "c").iterdir():
        path.rename(tmp_path / "b" / f"{path.name}-copy")
    assert read_one(tmp_path / "b").warnings == ("5 duplicate files left out",)


def test_one_uid_for_images_of_different_size(tmp_path: Path) -> None:
    made, larger = slices(ramp()), slices(ramp((9, 8, 5)))
    larger[0].SOPInstanceUID, larger[0].SeriesInstanceUID = made[0].SOPInstanceUID, made[0].SeriesInstanceUID
    put(tmp_path / "a", made)
    save(larger[0], tmp_path / "b")
    assert "different images have" in refusal(tmp_path).message
