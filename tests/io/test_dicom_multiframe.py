"""Enhanced multi-frame objects made by code: geometry, rescale and kind of each frame, and the parts of a mixed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import (
    GEOMETRY,
    SHAPE,
    enhanced,
    find_one,
    groups,
    plane,
    put,
    ramp,
    read_one,
    refusal,
    same_series,
    save,
    slices,
)

from medvae.cohort import find
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.scan import Selection
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import Scan, ScanRef

SPLIT = ReadSettings(split_mixed=True)
MAGNITUDE = {
    "MRImageFrameType": {"FrameType": ["ORIGINAL", "PRIMARY", "T1", "NONE"], "ComplexImageComponent": "MAGNITUDE"}
}
PHASE = {"MRImageFrameType": {"FrameType": ["ORIGINAL", "PRIMARY", "T1", "NONE"], "ComplexImageComponent": "PHASE"}}


def rescale(slope: float, intercept: float) -> dict[str, Any]:
    return {"PixelValueTransformation": {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}}


def time(index: int) -> dict[str, Any]:
    return {"FrameContent": {"TemporalPositionIndex": index}}


def frames_of(volume: np.ndarray, **macros: dict[str, Any]) -> list[Any]:
    """Frames 4 mm apart, each with the same macros beside its position."""
    return [(volume[:, :, index].T, plane(4 * index, **macros)) for index in range(volume.shape[2])]


def parts(folder: Path) -> tuple[list[ScanRef], list[Scan]]:
    refs, _ = dicom.find([file for file in folder.rglob("*") if file.is_file()], SPLIT)
    return refs, [reading.read(ref, SPLIT) for ref in refs]


def test_shared_groups_are_the_fallback_and_the_top_level_is_not_asked(tmp_path: Path) -> None:
    frames = frames_of(ramp())
    frames[3][1].update(groups(**rescale(2, 5)))  # one frame has its own
    shared = groups(**rescale(1, -10))
    shared.update(GEOMETRY)
    save(enhanced(frames, shared), tmp_path / "one")
    scan = read_one(tmp_path)
    assert scan.geometry.spacing == pytest.approx((2, 3, 4))
    np.testing.assert_allclose(scan.geometry.affine[:3, 3], (30, 40, 0))
    expected = ramp() - 10.0
    expected[:, :, 3] = 2 * ramp()[:, :, 3] + 5
    np.testing.assert_array_equal(scan.data, expected)


def test_frames_are_sorted_by_position(tmp_path: Path) -> None:
    frames = frames_of(ramp())
    save(enhanced([frames[index] for index in (3, 0, 4, 2, 1)], GEOMETRY), tmp_path / "one")
    scan = read_one(tmp_path)
    np.testing.assert_array_equal(scan.data, ramp())
    assert scan.source["FrameNumber"] == "2\\5\\4\\1\\3"


def test_everything_in_the_frames(tmp_path: Path) -> None:
    frames = frames_of(ramp())
    for _, own in frames:
        own.update(GEOMETRY)
    save(enhanced(frames), tmp_path / "one")
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp())


def test_one_volume_over_two_objects(tmp_path: Path) -> None:
    frames = frames_of(ramp())
    first, second = enhanced(frames[:2], GEOMETRY), enhanced(frames[2:], GEOMETRY)
    same_series(first, second)
    save(second, tmp_path / "a")
    save(first, tmp_path / "b")
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp())


def test_no_groups_no_geometry(tmp_path: Path) -> None:
    one = enhanced(frames_of(ramp()), GEOMETRY)
    del one.PerFrameFunctionalGroupsSequence
    save(one, tmp_path / "a" / "one")
    assert refusal(tmp_path / "a").code == "no_geometry"
    save(enhanced(frames_of(ramp())), tmp_path / "b" / "one")
    assert refusal(tmp_path / "b").message == "ImageOrientationPatient is missing"
    one = slices(ramp())[0]
    one.NumberOfFrames, one.PixelData = 3, one.PixelData * 3
    save(one, tmp_path / "c" / "one")
    assert refusal(tmp_path / "c").code == "no_geometry"


def test_number_of_frames_must_be_true(tmp_path: Path) -> None:
    one = enhanced(frames_of(ramp()), GEOMETRY)
    one.NumberOfFrames = 4
    save(one, tmp_path / "a" / "one")
    error = refusal(tmp_path / "a")
    assert (error.code, "NumberOfFrames" in error.message) == ("malformed", True)
    one = enhanced(frames_of(ramp()), GEOMETRY)
    one.PixelData = one.PixelData[:-8]
    save(one, tmp_path / "b" / "one")
    assert refusal(tmp_path / "b").code == "truncated"


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            MAGNITUDE | rescale(1, 0),
            PHASE | rescale(0.5, -500),
            ("ImageType T1\\NONE\\MAGNITUDE", "ImageType T1\\NONE\\PHASE"),
        ),
        (time(1), time(2), ("TemporalPositionIdentifier 1", "TemporalPositionIdentifier 2")),
        (
            {"MREcho": {"EffectiveEchoTime": 10.0}},
            {"MREcho": {"EffectiveEchoTime": 80.0}},
            ("EchoTime 10 ms", "EchoTime 80 ms"),
        ),
    ],
)
def test_frames_of_two_kinds(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], words: tuple[str, str]
) -> None:
    """Refused as they are; with the setting each kind is a scan, wherever its frames lie in the file."""
    first, second = ramp(), ramp()[::-1] + 7
    pairs = zip(frames_of(first, **one), frames_of(second, **other), strict=True)
    save(enhanced([frame for pair in pairs for frame in pair], GEOMETRY), tmp_path / "one")
    error = refusal(tmp_path)
    assert error.code == "mixed_series"
    for word in words:
        assert word.split(" ", 1)[1] in error.message
    whole = find_one(tmp_path)
    refs, scans = parts(tmp_path)
    assert [ref.part for ref in refs] == list(words)
    assert [ref.id for ref in refs] == [f"{whole.id}-1", f"{whole.id}-2"]
    assert {ref.subject for ref in refs} == {whole.subject}
    np.testing.assert_array_equal(scans[0].data, first)
    slope, intercept = (0.5, -500) if "PHASE" in words[1] else (1, 0)
    np.testing.assert_array_equal(scans[1].data, second * slope + intercept)
    assert find.find(Selection((tmp_path,)), SPLIT).refs == tuple(refs)
    for ref, scan in zip(refs, scans, strict=True):
        assert scan.warnings == (f"part of a mixed series: {ref.part}",)
        assert reading.inspect(ref, SPLIT).geometry == scan.geometry


def test_parts_whose_frames_lie_in_other_files(tmp_path: Path) -> None:
    """One file has both times, the other the second only: a part names the files it needs, and the frames in them."""
    volume = ramp((9, 7, 6))
    early, late = frames_of(volume, **time(1)), frames_of(volume + 1, **time(2))
    first, second = enhanced([*early, *late[:3]], GEOMETRY), enhanced(late[3:], GEOMETRY)
    same_series(first, second)
    save(first, tmp_path / "a")
    save(second, tmp_path / "b")
    refs, scans = parts(tmp_path)
    assert [[path.name for path in ref.paths] for ref in refs] == [["a"], ["a", "b"]]
    assert [ref.frames for ref in refs] == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)]
    np.testing.assert_array_equal(scans[0].data, volume)
    np.testing.assert_array_equal(scans[1].data, volume + 1)


def test_parts_of_single_frame_series(tmp_path: Path) -> None:
    """Two echoes in the files of one series: each part has its own files."""
    made, other = slices(ramp()), slices(ramp() + 1)
    for one, second in zip(made, other, strict=True):
        same_series(one, second)
        one.EchoNumbers, second.EchoNumbers = 1, 2
    put(tmp_path, [one for pair in zip(made, other, strict=True) for one in pair])
    refs, scans = parts(tmp_path)
    assert sorted(len(ref.paths) for ref in refs) == [5, 5]
    assert {ref.part for ref in refs} == {"EchoNumbers 1", "EchoNumbers 2"}
    assert not any(ref.frames for ref in refs)
    for ref, scan in zip(refs, scans, strict=True):
        np.testing.assert_array_equal(scan.data, ramp() - 1024.0 + (ref.part == "EchoNumbers 2"))


def test_a_series_that_is_not_mixed_is_not_split(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()))
    assert find_one(tmp_path, split_mixed=True) == find_one(tmp_path)
    assert read_one(tmp_path, split_mixed=True).geometry.shape == SHAPE


def test_a_broken_series_is_not_split(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: delattr(one, "Rows"))
    assert find_one(tmp_path, split_mixed=True).part == ""
