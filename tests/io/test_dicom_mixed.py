"""Several volumes under one SeriesInstanceUID: refused with the tag that tells them apart, split on request.

Each tag is tried in the two ways that volumes lie together: at the same places, and with slices between each other. A
plain volume in which such a tag changes from slice to slice is still read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import (
    AFFINE,
    GEOMETRY,
    SHAPE,
    Edit,
    enhanced,
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
from pydicom import dcmread

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from medvae.scan import Scan, ScanRef

SPLIT = ReadSettings(split_mixed=True)


def stacks(
    folder: Path, *values: Any, keyword: str, modality: str, between: bool = False, edit: Edit | None = None
) -> list[np.ndarray]:
    """A series of one stack per value of a tag, at one place or each a bit above the other; returns their values."""
    made: list[Dataset] = []
    for number, value in enumerate(values):
        affine = AFFINE.copy()
        affine[2, 3] += 4 * number / len(values) if between else 0
        for index, one in enumerate(slices(ramp() + 100 * number, affine, modality=modality)):
            setattr(one, keyword, value[index] if isinstance(value, tuple) else value)
            made.append(one)
    same_series(*made)
    put(folder, made, *([edit] if edit else []))
    return [ramp() + 100.0 * number - (1024 if modality == "CT" else 0) for number in range(len(values))]


def parts(folder: Path) -> tuple[list[ScanRef], list[Scan]]:
    refs, _ = dicom.find([file for file in folder.rglob("*") if file.is_file()], SPLIT)
    return refs, [reading.read(ref, SPLIT) for ref in refs]


def check(folder: Path, expected: list[np.ndarray], words: str) -> list[ScanRef]:
    """The series is refused with the tag in words, and split into the expected volumes."""
    error = refusal(folder)
    assert error.code == "mixed_series"
    assert words in error.message
    refs, scans = parts(folder)
    assert len(refs) == len(expected)
    found = sorted(scans, key=lambda scan: float(scan.data.mean()))
    for scan, values in zip(found, expected, strict=True):
        np.testing.assert_array_equal(scan.data, values)
        assert scan.geometry.spacing == pytest.approx((2, 3, 4))
    return refs


EVERYWHERE = [  # tags that are the same in all slices of a volume, or part stacks wherever they lie
    ("CT", "AcquisitionNumber", (1, 2), "AcquisitionNumber: 1 (5), 2 (5)"),
    ("MR", "AcquisitionNumber", (7, 8), "AcquisitionNumber: 7 (5), 8 (5)"),
    ("CT", "AcquisitionNumber", (1, 2, 3), "AcquisitionNumber: 1 (5), 2 (5), 3 (5)"),
    ("CT", "AcquisitionTime", ("101500", "101530"), "AcquisitionTime: 101500 (5), 101530 (5)"),
    ("PT", "AcquisitionDateTime", ("20240229101500.1", "20240229101500.2"), "AcquisitionTime: 101500.1 (5)"),
    ("CT", "AcquisitionUID", ("1.2.3", "1.2.4"), "AcquisitionUID: value 1 (5), value 2 (5)"),
    ("CT", "IrradiationEventUID", ("1.2.3", "1.2.4"), "IrradiationEventUID: value 1 (5), value 2 (5)"),
    ("MR", "SeriesNumber", (3, 4), "SeriesNumber: 3 (5), 4 (5)"),
    ("MR", "SeriesDescription", ("WATER", "FAT"), "SeriesDescription: WATER (5), FAT (5)"),
    ("MR", "StudyDate", ("20240101", "20240301"), "StudyDate: value 1 (5), value 2 (5)"),
    ("MR", "PatientName", ("Adams^A", "Brown^B"), "PatientName: value 1 (5), value 2 (5)"),
    ("MR", "PatientBirthDate", ("19700203", "19820405"), "PatientBirthDate: value 1 (5), value 2 (5)"),
    ("MR", "PatientSex", ("M", "F"), "PatientSex: value 1 (5), value 2 (5)"),
    ("MR", "PatientID", ("P1", "P2"), "PatientID: value 1 (5), value 2 (5)"),
    ("MR", "EchoTime", (14, 90), "EchoTime: 14 ms (5), 90 ms (5)"),
    ("MR", "DiffusionBValue", (0.0, 1000.0), "DiffusionBValue: 0 s/mm2 (5), 1000 s/mm2 (5)"),
    ("MR", "ComplexImageComponent", ("MAGNITUDE", "PHASE"), "ImageType: AXIAL\\MAGNITUDE (5), AXIAL\\PHASE (5)"),
    ("CT", "ConvolutionKernel", ("B30f", "B70f"), "ConvolutionKernel: B30f (5), B70f (5)"),
    ("CT", "KVP", (80, 140), "KVP: 80 kV (5), 140 kV (5)"),
    ("CT", "RescaleType", ("HU", "Z_EFF"), "RescaleType: HU (5), Z_EFF (5)"),
    ("PT", "Units", ("BQML", "CNTS"), "Units: BQML (5), CNTS (5)"),
    ("MR", "PhotometricInterpretation", ("MONOCHROME1", "MONOCHROME2"), "PhotometricInterpretation: MONOCHROME1 (5)"),
    ("MR", "InversionTime", (900, 2500), "InversionTime: 900 ms (5), 2500 ms (5)"),
    ("MR", "SequenceName", ("*ep_b0", "*ep_b1000#1"), "SequenceName: *ep_b0 (5), *ep_b1000#1 (5)"),
    ("CT", "ContrastBolusAgent", ("", "Iomeprol"), "ContrastBolusAgent: none (5), Iomeprol (5)"),
    ("CT", "SliceThickness", (1, 5), "SliceThickness: 1 mm (5), 5 mm (5)"),
]
AT_ONE_PLACE = [  # tags that may change from slice to slice: they count where a place is taken several times
    ("MR", "FlipAngle", (3, 15), "FlipAngle: 3 degrees (5), 15 degrees (5)"),
    ("MR", "RepetitionTime", (500, 3000), "RepetitionTime: 500 ms (5), 3000 ms (5)"),
    ("MR", "ScanOptions", ("", "MT"), "ScanOptions: none (5), MT (5)"),
    ("MR", "ImageType", (["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "SECONDARY", "M"]), "ImageType: ORIGINAL\\PRIM"),
    ("MR", "TriggerTime", (0, 40, 80), "TriggerTime: 0 ms (5), 40 ms (5), 80 ms (5)"),
    ("MR", "AcquisitionTime", ("101500", "101530"), "AcquisitionTime: 101500 (5), 101530 (5)"),
    ("MR", "ContentTime", ("101500", "101530"), "ContentTime: 101500 (5), 101530 (5)"),
]  # fmt: skip


@pytest.mark.parametrize(("modality", "keyword", "values", "words"), EVERYWHERE + AT_ONE_PLACE)
def test_stacks_at_one_place(tmp_path: Path, modality: str, keyword: str, values: Any, words: str) -> None:
    check(tmp_path, stacks(tmp_path, *values, keyword=keyword, modality=modality), words)


@pytest.mark.parametrize(("modality", "keyword", "values", "words"), EVERYWHERE)
def test_stacks_between_each_other(tmp_path: Path, modality: str, keyword: str, values: Any, words: str) -> None:
    check(tmp_path, stacks(tmp_path, *values, keyword=keyword, modality=modality, between=True), words)


@pytest.mark.parametrize(
    ("modality", "keyword", "values"),
    [
        ("MR", "AcquisitionTime", ("101500", "101503")),  # even slices first, then odd ones
        ("MR", "ContentTime", ("101500", "101503")),
        ("MR", "RepetitionTime", (2100, 2350)),  # triggered by breathing
        ("MR", "TriggerTime", (10, 60)),
        ("MR", "FlipAngle", (70, 71)),
        ("MR", "SliceThickness", (4, 3.999)),
    ],
)
def test_packages_of_one_volume(tmp_path: Path, modality: str, keyword: str, values: Any) -> None:
    """Slices that are acquired in turn are one volume, however their times and triggers differ."""
    stacks(tmp_path, *values, keyword=keyword, modality=modality, between=True)
    assert read_one(tmp_path).geometry.spacing == pytest.approx((2, 3, 2))
    assert read_one(tmp_path, split_mixed=True).geometry.shape == (9, 7, 10)


def block(*values: Any) -> Edit:
    """A tag of ten slices, by their number."""
    return lambda one, number: setattr(one, "AcquisitionNumber", values[number])


@pytest.mark.parametrize(
    "numbers",
    [
        (1, 1, 1, 1, 1, 2, 2, 2, 2, 2),  # the table moves on once
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3),
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),  # each slice is an acquisition
        (1, 2, 1, 3, 1, 2, 2, 3, 1, 3),  # no stacks
        (1, 1, 2, 1, 1, 2, 1, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_acquisition_numbers_of_a_plain_volume(tmp_path: Path, numbers: tuple[int, ...], modality: str) -> None:
    volume = ramp((9, 7, 10))
    put(tmp_path, slices(volume, modality=modality), block(*numbers))
    np.testing.assert_array_equal(read_one(tmp_path).data, volume - (1024.0 if modality == "CT" else 0))
    assert read_one(tmp_path, split_mixed=True).geometry.shape == (9, 7, 10)


def test_blocks_that_share_a_slice_are_no_stacks(tmp_path: Path) -> None:
    heights = (0, 4, 8, 12, 16, 16, 20, 24, 28, 32)
    edit = [
        block(1, 1, 1, 1, 1, 2, 2, 2, 2, 2),
        lambda one, number: setattr(one, "ImagePositionPatient", [-30, -40, heights[number]]),
    ]
    put(tmp_path, slices(ramp((9, 7, 10))), *edit)
    assert refusal(tmp_path).code == "duplicate_positions"


def test_stacks_of_other_spacing_and_extent(tmp_path: Path) -> None:
    """Two acquisitions that share a place but no position: uneven as they lie, each even for itself."""
    first, second = slices(ramp((9, 7, 8))), slices(ramp((9, 7, 4)), AFFINE + np.diag([0, 0, 1.5, 0]))
    same_series(*first, *second)
    for number, made in enumerate((first, second)):
        put(tmp_path / str(number), made, lambda one, _, number=number: setattr(one, "AcquisitionNumber", number + 1))
    assert refusal(tmp_path).message == "the slices differ in AcquisitionNumber: 1 (8), 2 (4)"
    _, scans = parts(tmp_path)
    assert [scan.geometry.spacing[2] for scan in scans] == pytest.approx([4, 5.5])


def test_a_stray_slice_does_not_hide_two_acquisitions(tmp_path: Path) -> None:
    """Twenty slices of two acquisitions and one of a third, evenly spaced as they lie."""
    made = slices(ramp((9, 7, 21)))
    put(tmp_path, made, lambda one, number: setattr(one, "AcquisitionNumber", 3 if number == 20 else 1 + number % 2))
    assert refusal(tmp_path).message == "the slices differ in AcquisitionNumber: 1 (10), 2 (10), 3 (1)"


def test_directions_and_b_values(tmp_path: Path) -> None:
    """Tags that only together tell all volumes apart."""
    made = []
    for number, (b, direction) in enumerate([(0, 0), (1000, 0), (1000, 1), (1000, 2)]):
        for one in slices(ramp() + 100 * number, modality="MR"):
            one.DiffusionBValue = float(b)
            if b:
                one.DiffusionGradientOrientation = np.eye(3)[direction].tolist()
            made.append(one)
    same_series(*made)
    put(tmp_path, made)
    refs = check(
        tmp_path,
        [ramp() + 100.0 * number for number in range(4)],
        "DiffusionBValue: 0 s/mm2 (5), 1000 s/mm2 (15), in DiffusionGradientOrientation: ",
    )
    assert sorted(ref.part for ref in refs) == [
        "DiffusionBValue 0 s/mm2",
        "DiffusionBValue 1000 s/mm2, DiffusionGradientOrientation 0\\0\\1",
        "DiffusionBValue 1000 s/mm2, DiffusionGradientOrientation 0\\1\\0",
        "DiffusionBValue 1000 s/mm2, DiffusionGradientOrientation 1\\0\\0",
    ]


def test_a_tag_that_says_nothing_new_is_not_named(tmp_path: Path) -> None:
    stacks(
        tmp_path,
        (14,) * 5,
        (90,) * 5,
        keyword="EchoTime",
        modality="MR",
        edit=lambda one, _: setattr(one, "AcquisitionNumber", 1 if one.EchoTime < 20 else 2),
    )
    assert refusal(tmp_path).message == "the slices differ in EchoTime: 14 ms (5), 90 ms (5)"


def test_echo_times_that_are_written_differently_are_one(tmp_path: Path) -> None:
    texts = ("4.6", "4.60", "4.6000001", "4.599", "4.605")
    put(tmp_path, slices(ramp(), modality="MR"), lambda one, number: setattr(one, "EchoTime", texts[number]))
    assert read_one(tmp_path).data.shape == SHAPE


@pytest.mark.parametrize("keyword", ["EchoTime", "PatientID", "StudyInstanceUID", "Modality", "Units"])
def test_what_some_slices_do_not_say_is_no_difference(tmp_path: Path, keyword: str) -> None:
    def edit(one: Dataset, number: int) -> None:
        one.EchoTime, one.Units = 14, "BQML"
        if number > 2:
            setattr(one, keyword, None)

    put(tmp_path, slices(ramp(), modality="PT"), edit)
    assert read_one(tmp_path).data.shape == SHAPE


@pytest.mark.parametrize(("keyword", "value"), [("PatientID", "another"), ("StudyInstanceUID", "1.2.3.4")])
def test_several_patients_or_studies(tmp_path: Path, keyword: str, value: str) -> None:
    """Refused wherever their slices lie; neither value is shown; each part belongs to its own subject."""
    volume = ramp((9, 7, 10))
    put(tmp_path, slices(volume), lambda one, number: setattr(one, keyword, value) if number > 5 else None)
    error = refusal(tmp_path)
    assert (error.code, error.message) == ("mixed_series", f"the slices differ in {keyword}: value 1 (6), value 2 (4)")
    refs, scans = parts(tmp_path)
    assert sorted(scan.geometry.shape[2] for scan in scans) == [4, 6]
    assert len({ref.subject for ref in refs}) == (2 if keyword == "PatientID" else 1)


def test_copies_stay_in_the_part_of_their_image(tmp_path: Path) -> None:
    """Two packages of one volume, every file there twice: still one volume, and no part of its own for the copies."""
    stacks(tmp_path / "a", 2100, 2350, keyword="RepetitionTime", modality="MR", between=True)
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").iterdir():
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    scan = read_one(tmp_path, split_mixed=True)
    assert scan.geometry.shape == (9, 7, 10)
    assert scan.warnings == ("10 duplicate files left out",)


# ------------------------------------------------------------------------------------------------------ multi-frame


@pytest.mark.parametrize(
    ("macro", "keyword", "values", "words"),
    [
        ("FrameContent", "FrameAcquisitionNumber", (1, 2), "AcquisitionNumber: 1 (5), 2 (5)"),
        ("FrameContent", "FrameAcquisitionDateTime", ("20240101", "20240102"), "AcquisitionTime: value 1 (5)"),
        ("FrameContent", "StackID", ("1", "2"), "StackID: 1 (5), 2 (5)"),
        ("MRModifier", "InversionTimes", ([900.0], [2500.0]), "InversionTime: 900 ms (5), 2500 ms (5)"),
        ("MRTimingAndRelatedParameters", "FlipAngle", ("3", "15"), "FlipAngle: 3 degrees (5), 15 degrees (5)"),
        ("MRDiffusion", "DiffusionBValue", (0.0, 1000.0), "DiffusionBValue: 0 s/mm2 (5), 1000 s/mm2 (5)"),
        ("CTReconstruction", "ConvolutionKernel", ("B30f", "B70f"), "ConvolutionKernel: B30f (5), B70f (5)"),
        ("CTXRayDetails", "KVP", (80.0, 140.0), "KVP: 80 kV (5), 140 kV (5)"),
        ("CardiacSynchronization", "NominalCardiacTriggerDelayTime", (0.0, 40.0), "TriggerTime: 0 ms (5), 40 ms (5)"),
        ("CardiacSynchronization", "NominalPercentageOfCardiacPhase", (30.0, 70.0), "CardiacPhase: 30 % (5), 70 %"),
        ("TemporalPosition", "TemporalPositionTimeOffset", (0.0, 2.5), "TemporalPositionTimeOffset: 0 s (5), 2.5 s"),
        ("UnassignedPerFrameConvertedAttributes", "EchoTime", ("14", "90"), "EchoTime: 14 ms (5), 90 ms (5)"),
    ],
)
def test_frames_of_several_stacks(tmp_path: Path, macro: str, keyword: str, values: Any, words: str) -> None:
    made = []
    for number, value in enumerate(values):
        for index in range(SHAPE[2]):
            own = plane(4 * index)
            own.update(groups(**{macro: {keyword: value}}))
            made.append(((ramp() + 100 * number)[:, :, index].T, own))
    save(enhanced(made, GEOMETRY), tmp_path / "one")
    check(tmp_path, [ramp() + 0.0, ramp() + 100.0], words)


def test_broken_values_of_tags_that_no_voxel_depends_on(tmp_path: Path) -> None:
    """They are compared as text, and the volume is read."""
    frames = [(ramp()[:, :, n].T, plane(4 * n)) for n in range(SHAPE[2])]
    for _, own in frames:
        own.update(groups(MRDiffusion={"DiffusionBValue": float("nan")}))
    one = enhanced(frames, GEOMETRY)
    one.EchoTime, one.KVP = "1e999", "999999"
    path = save(one, tmp_path / "one")
    path.write_bytes(path.read_bytes().replace(b"999999", b"many  "))
    np.testing.assert_array_equal(read_one(tmp_path).data, ramp())


def test_one_object_for_each_acquisition(tmp_path: Path) -> None:
    """Multi-frame objects of one series whose frames say nothing: the top level tells them apart."""
    made = [
        enhanced([((ramp() + add)[:, :, n].T, plane(4 * n)) for n in range(SHAPE[2])], GEOMETRY) for add in (0, 100)
    ]
    same_series(*made)
    for number, one in enumerate(made):
        one.AcquisitionNumber = number + 1
        save(one, tmp_path / str(number))
    check(tmp_path, [ramp() + 0.0, ramp() + 100.0], "AcquisitionNumber: 1 (5), 2 (5)")


def test_a_broken_part_does_not_hide_the_others(tmp_path: Path) -> None:
    stacks(tmp_path, 1, 2, keyword="AcquisitionNumber", modality="CT")
    refs, _ = dicom.find(tmp_path.iterdir(), SPLIT)
    refs[0].paths[0].write_bytes(refs[0].paths[0].read_bytes()[:-9])
    with pytest.raises(ScanError) as caught:
        reading.read(refs[0], SPLIT)
    assert caught.value.code == "truncated"
    assert reading.read(refs[1], SPLIT).data.shape == SHAPE


def test_a_file_without_a_position_is_not_left_out_of_the_parts(tmp_path: Path) -> None:
    """Nothing says which part it belongs to: the whole is refused, as without the setting."""
    stacks(tmp_path, 14, 90, keyword="EchoTime", modality="MR")
    parts(tmp_path)  # without the damage they are read
    (path, *_) = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    image = dcmread(path)
    del image.ImagePositionPatient
    save(image, path)
    refs, _ = dicom.find([file for file in tmp_path.rglob("*") if file.is_file()], SPLIT)
    assert [len(ref.paths) for ref in refs] == [10]
    with pytest.raises(ScanError, match="ImagePositionPatient"):
        reading.read(refs[0], SPLIT)
