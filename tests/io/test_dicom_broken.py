"""Broken DICOM files: values that cannot be, parts that are missing, files that are cut or damaged anywhere."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_made import (
    GEOMETRY,
    PATIENT,
    SHAPE,
    code_of,
    enhanced,
    find_one,
    plane,
    put,
    ramp,
    read_one,
    refusal,
    save,
    slices,
)
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

SETTINGS = ReadSettings()


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file, as no writer would."""
    raw = path.read_bytes()
    assert raw.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(raw.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "tag"),
    [
        (b"-30.000000\\-40.000000\\8.0", b"-30.000000\\-40.0000000800", "ImagePositionPatient"),
        (b"-30.000000\\-40.000000\\8.0", b"-30.000000\\-40.000000\\nan", "ImagePositionPatient"),
        (b"-30.000000\\-40.000000\\8.0", b"-30.000000\\-40.000000\\inf", "ImagePositionPatient"),
        (b"-30.000000\\-40.000000\\8.0", b"-30.000000\\-40.000000\\abc", "ImagePositionPatient"),
        (b"1.000000000\\0.000000000\\0", b"1.100000000\\0.000000000\\0", "ImageOrientationPatient"),
        (b"-30.000000\\-40.000000\\8.0", b"-30.000000\\-4e+000000\\9e9", "ImagePositionPatient"),
        (b"3.000000\\2.000000", b"3.000000\\2.0e-009", "PixelSpacing"),
        (b"3.000000\\2.000000", b"-3.00000\\2.000000", "PixelSpacing"),
        (b"3.000000\\2.000000", b"0.000000\\2.000000", "PixelSpacing"),
        (b"\x53\x10DS\x02\x001 ", b"\x53\x10DS\x02\x00x ", "RescaleSlope"),
        (b"\x53\x10DS\x02\x001 ", b"\x53\x10DS\x02\x000 ", "RescaleSlope"),
        (b"\x28\x00\x10\x00US\x02\x00\x07\x00", b"\x28\x00\x10\x00US\x02\x00\x00\x00", "Rows"),
        (b"\x28\x00\x01\x01US\x02\x00\x10\x00", b"\x28\x00\x01\x01US\x02\x00\x20\x00", "32 bits up to bit 15"),
    ],
)
def test_broken_values_are_named(tmp_path: Path, old: bytes, new: bytes, tag: str) -> None:
    paths = put(tmp_path, slices(ramp(), np.diag([-1.0, -1, 1, 1]) @ np.diag([2.0, 3, 4, 1]) + shifted()))
    patch(paths[2], old, new)
    error = refusal(tmp_path)
    assert error.code == "malformed"
    assert tag in error.message
    assert error.path == str(paths[2])


@pytest.mark.parametrize("value", [b"1A", b"0 ", b"-3", b"1.5 ", b"3e12"])
def test_numbers_of_frames_that_cannot_be(tmp_path: Path, value: bytes) -> None:
    element = b"\x28\x00\x08\x00IS" + len(value).to_bytes(2, "little") + value
    insert(tmp_path, element, before=b"\x28\x00\x10\x00US")
    error = refusal(tmp_path)
    assert (error.code, "NumberOfFrames" in error.message) == ("malformed", True)


def test_a_value_of_another_type(tmp_path: Path) -> None:
    """BitsStored as a float that is no number: nothing is converted that cannot be."""
    put(tmp_path, slices(ramp()), lambda one, _: delattr(one, "BitsStored"))
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        at = raw.index(b"\x28\x00\x02\x01US")
        path.write_bytes(raw[:at] + b"\x28\x00\x01\x01FD\x08\x00" + b"\xff" * 8 + raw[at:])
    error = refusal(tmp_path)
    assert (error.code, "BitsStored" in error.message) == ("malformed", True)


def shifted() -> np.ndarray:
    """An origin at (-30, -40, 0) in LPS."""
    move = np.zeros((4, 4))
    move[:2, 3] = 30, 40
    return move


@pytest.mark.parametrize(
    ("keyword", "code"),
    [
        ("ImagePositionPatient", "no_geometry"),
        ("ImageOrientationPatient", "no_geometry"),
        ("PixelSpacing", "no_geometry"),
        ("Rows", "malformed"),
        ("BitsAllocated", "malformed"),
        ("PixelData", "not_image"),
    ],
)
def test_missing_values(tmp_path: Path, keyword: str, code: str) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: delattr(one, keyword))
    error = refusal(tmp_path)
    assert error.code == code
    assert "(5 files)" in error.message


def test_values_that_may_be_missing(tmp_path: Path) -> None:
    def drop(one: Dataset, _: int) -> None:
        for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "SOPClassUID"):
            delattr(one, keyword)
        one.SOPClassUID = "1.3.6.1.4.1.99999.1"  # a private class with Modality CT

    put(tmp_path, slices(ramp()), drop)
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() - 1024.0)


def test_unsupported_pixels(tmp_path: Path) -> None:
    def bits(one: Dataset, _: int) -> None:
        one.BitsAllocated, one.BitsStored, one.HighBit = 12, 12, 11

    put(tmp_path / "a", slices(ramp()), bits)
    assert refusal(tmp_path / "a").code == "unsupported_type"

    def floats(one: Dataset, _: int) -> None:
        one.FloatPixelData = np.zeros((7, 9), np.float32).tobytes()
        del one.PixelData

    put(tmp_path / "b", slices(ramp()), floats)
    assert refusal(tmp_path / "b").code == "unsupported_type"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_truncation_is_noticed_wherever_it_is(tmp_path: Path, syntax: str | None) -> None:
    """A cut file is refused, and its series with it once it is known; the rest is never read as if it were whole."""
    paths = put(tmp_path, slices(ramp()), syntax=syntax)
    raw = paths[0].read_bytes()
    for left in [*range(140, len(raw) - 2, 23), len(raw) - 2]:
        paths[0].write_bytes(raw[:left])
        refs, others = dicom.find(paths, SETTINGS)
        assert not others
        codes = {len(ref.paths): code_of(ref) for ref in refs}
        if set(codes) == {5}:
            only_the_end_mark = syntax == DeflatedExplicitVRLittleEndian and left > len(raw) - 4
            assert codes[5] in ("truncated", "malformed") or only_the_end_mark, left
        else:  # cut before its series UID
            assert set(codes) == {1, 4}
            assert codes[1] in ("truncated", "malformed", "corrupt"), left


@given(seed=st.integers(0, 10**6))
def test_damaged_headers_end_in_a_code(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("damaged")
    frames = [(ramp()[:, :, n].T, plane(4 * n)) for n in range(4)]
    paths = [*put(folder, slices(ramp())), save(enhanced(frames, GEOMETRY), folder / "enhanced")]
    for path in paths:
        raw = bytearray(path.read_bytes())
        for place in rng.integers(132, len(raw), 3):
            raw[place] = rng.integers(256)
        path.write_bytes(raw)
    refs, others = dicom.find(paths, ReadSettings(split_mixed=bool(seed % 2)))
    assert not others
    for ref in refs:
        try:
            reading.read(ref, SETTINGS)
        except ScanError as problem:
            assert PATIENT not in str(problem)  # noqa: PT017


def test_an_inflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    made = slices(ramp())
    made[0].PixelData = bytes(100 << 20)
    put(tmp_path, made, syntax=DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    ref = find_one(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20
    with pytest.raises(ScanError) as caught:
        reading.read(ref, SETTINGS)
    assert caught.value.code == "malformed"


# ------------------------------------------------------------------------------------------- headers byte by byte

ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
OPEN = b"\xff\xff\xff\xff"
CONTENT = b"\x40\x00\x30\xa7SQ\0\0"  # ContentSequence, which is not read
ICON = b"\x88\x00\x00\x02SQ\0\0" + OPEN + ITEM + OPEN
ICON_PIXELS = b"\xe0\x7f\x10\x00OB\0\0" + OPEN + ITEM + bytes(4) + ITEM + b"\x04\0\0\0\xff\x4f\xff\x51" + END


def insert(folder: Path, added: bytes, before: bytes = b"\x28\x00\x02\x00US") -> None:
    """A series with elements more in the middle of each header."""
    for path in put(folder, slices(ramp())):
        raw = path.read_bytes()
        path.write_bytes(raw[: raw.index(before)] + added + raw[raw.index(before) :])


@pytest.mark.parametrize(
    "added",
    [
        CONTENT + OPEN + END,
        CONTENT + b"\x08\0\0\0" + ITEM + bytes(4),
        CONTENT + OPEN + ITEM + OPEN + ITEM_END + ITEM + bytes(4) + END,
        CONTENT + OPEN + ITEM + OPEN + CONTENT + OPEN + END + ITEM_END + END,
        ICON + ICON_PIXELS + ITEM_END + END,
        b"\x40\x00\x30\xa7UN\0\0" + OPEN + ITEM + OPEN + b"\x40\x00\x30\xa7" + bytes(4) + ITEM_END + END,
        b"\x27\x00\x10\x00" + b"\x04\0\0\0abcd",  # implicit among explicit ones
        b"\x27\x00\x10\x00" + b"UN\0\0" + (1 << 17).to_bytes(4, "little") + bytes(1 << 17),  # more than is read at once
    ],
)
def test_headers_that_are_right_in_unusual_ways(tmp_path: Path, added: bytes) -> None:
    insert(tmp_path, added)
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() - 1024.0)


@pytest.mark.parametrize(
    ("added", "code"),
    [
        (CONTENT + OPEN + ITEM + OPEN, "truncated"),  # without an end
        (CONTENT + b"\xff\xff\xff\0", "truncated"),
        (CONTENT + OPEN + ITEM + b"\xff\xff\xff\0", "truncated"),
        (CONTENT + OPEN + b"\x08\0\x08\0" + bytes(4), "malformed"),  # no item
        ((CONTENT + OPEN + ITEM + OPEN) * 20, "malformed"),  # a tower
        (b"\x27\x00\x10\x00UN\0\0\xff\xff\xff\0", "truncated"),
    ],
)
def test_headers_that_cannot_be_followed(tmp_path: Path, added: bytes, code: str) -> None:
    insert(tmp_path, added)
    error = refusal(tmp_path)
    assert (error.code, "(5 files)" in error.message) == (code, True)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("lost", ["preamble", "preamble and meta", "meta", "TransferSyntaxUID"])
def test_files_that_lack_their_beginning(tmp_path: Path, lost: str, syntax: str) -> None:
    for path in put(tmp_path, slices(ramp()), syntax=syntax):
        raw = path.read_bytes()
        dataset = raw[raw.index(b"\x08\x00\x08\x00") :]
        kept = {
            "preamble": raw[132:],
            "preamble and meta": dataset,
            "meta": raw[:132] + dataset,
            "TransferSyntaxUID": raw.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"),
        }
        path.write_bytes(kept[lost])
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() - 1024.0)


def test_a_dataset_coded_otherwise_than_its_transfer_syntax(tmp_path: Path) -> None:
    explicit, implicit = (
        put(tmp_path / "a", slices(ramp())),
        put(tmp_path / "b", slices(ramp()), syntax=ImplicitVRLittleEndian),
    )
    for one, other in zip(explicit, implicit, strict=True):
        start, raw = b"\x08\x00\x08\x00", other.read_bytes()
        other.write_bytes(one.read_bytes().split(start, 1)[0] + start + raw.split(start, 1)[1])
    np.testing.assert_array_equal(read_one(tmp_path / "b").data, ramp() - 1024.0)


def test_functional_groups_of_unknown_vr(tmp_path: Path) -> None:
    """What a system made of them that did not know them: VR UN, coded implicitly."""
    frames = [(ramp()[:, :, n].T, plane(4 * n)) for n in range(SHAPE[2])]
    path = save(enhanced(frames, GEOMETRY), tmp_path / "one")
    raw, coded = path.read_bytes(), DicomBytesIO()
    coded.is_little_endian, coded.is_implicit_VR = True, True
    write_dataset(coded, GEOMETRY)
    at = raw.index(b"\x00\x52\x29\x92SQ")
    length = int.from_bytes(raw[at + 8 : at + 12], "little")
    item = ITEM + len(coded.getvalue()).to_bytes(4, "little") + coded.getvalue()
    path.write_bytes(raw[:at] + b"\x00\x52\x29\x92UN\0\0" + OPEN + item + END + raw[at + 12 + length :])
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp())


def test_more_pixels_than_the_tags_say(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "PixelData", 2 * one.PixelData))
    error = refusal(tmp_path)
    assert (error.code, "PixelData has 252 bytes" in error.message) == ("malformed", True)


def test_trailing_bytes_are_no_pixels(tmp_path: Path) -> None:
    for path in put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "PixelData", one.PixelData + bytes(4))):
        path.write_bytes(path.read_bytes() + bytes(300))
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp() - 1024.0)


def test_a_slice_without_pixels_among_others(tmp_path: Path) -> None:
    made = slices(ramp())
    del made[0].PixelData
    put(tmp_path, made)
    error = refusal(tmp_path)
    assert (error.code, error.status) == ("malformed", "rejected")
