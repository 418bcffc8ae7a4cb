"""Finding series: by their UIDs alone, every object in exactly one scan, and nothing of the patient in what is said."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_made import NAME, PATIENT, code_of, find_one, put, ramp, read_one, save, slices
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

SETTINGS = ReadSettings()


def test_series_are_told_by_uid_whatever_folders_and_names(tmp_path: Path) -> None:
    one, other = slices(ramp()), slices(ramp() + 1)
    for number, pair in enumerate(zip(one, other, strict=True)):
        for series, image in enumerate(pair):
            save(image, tmp_path / f"folder{(number + series) % 2}" / f"{series}{number}.txt")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    refs, others = dicom.find(files, SETTINGS)
    assert [len(ref.paths) for ref in refs] == [5, 5]
    assert not others
    assert all(ref.id.startswith("series-") for ref in refs)
    for seed in range(3):
        random.Random(seed).shuffle(files)
        assert dicom.find(files, SETTINGS) == (refs, others)


def test_objects_of_a_series_that_are_no_images_of_it(tmp_path: Path) -> None:
    """A localizer, a presentation state and a screenshot in the series of a CT: each kind is a scan of its own."""
    made = slices(ramp())
    extra = slices(ramp())[:4]
    for one in extra:
        one.SeriesInstanceUID = made[0].SeriesInstanceUID
    extra[0].ImageType = extra[1].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    extra[2].SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    del extra[2].PixelData
    extra[3].SOPClassUID = SecondaryCaptureImageStorage
    del extra[3].ImagePositionPatient
    put(tmp_path / "series", made)
    put(tmp_path / "extra", extra)
    refs, _ = dicom.find([file for file in tmp_path.rglob("*") if file.is_file()], SETTINGS)
    told = {}
    for ref in refs:
        try:
            told[f"{reading.read(ref, SETTINGS).data.shape}"] = len(ref.paths)
        except ScanError as problem:
            told[f"{problem.status}: {problem.message}"] = len(ref.paths)
    assert told == {
        "(9, 7, 5)": 5,
        "skipped: a localizer: not an image volume (2 files)": 2,
        "skipped: Grayscale Softcopy Presentation State: not an image volume": 1,
        "skipped: Secondary Capture without a position in space: not an image volume": 1,
    }
    assert len({ref.id for ref in refs}) == 4


@pytest.mark.parametrize(
    ("sop_class", "modality", "kind"),
    [
        (ComputedRadiographyImageStorage, "CR", "Computed Radiography"),
        ("1.3.6.1.4.1.99999.1", "XX", "an object of modality XX"),
    ],
)
def test_other_images_are_no_volumes(tmp_path: Path, sop_class: str, modality: str, kind: str) -> None:
    def edit(one: Dataset, _: int) -> None:
        one.SOPClassUID, one.Modality = sop_class, modality

    put(tmp_path, slices(ramp()), edit)
    with pytest.raises(ScanError, match=kind) as caught:
        read_one(tmp_path)
    assert caught.value.code == "not_image"


def test_a_secondary_capture_in_space_is_read(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "SOPClassUID", SecondaryCaptureImageStorage))
    assert read_one(tmp_path).data.shape == (9, 7, 5)


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    contents = {
        "notes.txt": b"hello",
        "empty": b"",
        "raw": bytes(range(256)) * 4,
        "text.dcm": b"hello\n",
        "empty.IMA": b"",
        "noise.dicom": bytes(range(256)) * 4,
        "pointer.dcm": b"version https://git-lfs.github.com/spec/v1\n",
        "packed.dcm.gz": b"\x1f\x8b\x08",
        "old": b"\x08\x00\x00\x00\x04\x00\x00\x00\x80\x00\x00\x00\x08\x00\x16\x00" + bytes(64),
        "meta": b"\x02\x00\x00\x00UL\x04\x00\x80\x00\x00\x00\x02\x00\x01\x00" + bytes(64),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    refs, others = dicom.find(tmp_path.iterdir(), SETTINGS)
    assert [path.name for path in others] == ["empty", "notes.txt", "raw"]
    assert {ref.path.name: code_of(ref) for ref in refs} == {
        "empty.IMA": "not_a_scan",
        "meta": "malformed",
        "noise.dicom": "not_a_scan",
        "old": "malformed",
        "packed.dcm.gz": "not_a_scan",
        "pointer.dcm": "not_a_scan",
        "text.dcm": "not_a_scan",
    }
    assert len({ref.id for ref in refs}) == len(refs)
    with pytest.raises(ScanError) as caught:
        reading.read(next(ref for ref in refs if ref.path.name == "packed.dcm.gz"), SETTINGS)
    assert caught.value.hint == "decompress it first"


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    refs, others = dicom.find([tmp_path / "gone"], SETTINGS)
    assert [code_of(ref) for ref in refs] == ["unreadable"]
    assert not others


def test_without_a_series_uid_every_object_is_alone(tmp_path: Path) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: delattr(one, "SeriesInstanceUID"))
    refs, _ = dicom.find(tmp_path.iterdir(), SETTINGS)
    assert len(refs) == 5
    assert {code_of(ref) for ref in refs} == {"malformed"}
    assert all(ref.id.startswith("object-") for ref in refs)


def test_without_any_uid_the_content_tells_objects_apart(tmp_path: Path) -> None:
    paths = put(tmp_path, slices(ramp())[:2], lambda one, _: delattr(one, "SeriesInstanceUID"))
    for path in paths:
        raw = path.read_bytes()
        at = raw.index(b"\x08\x00\x18\x00UI")
        path.write_bytes(raw[:at] + b"\x08\x00\x19\x00" + raw[at + 4 :])
    refs, _ = dicom.find(paths, SETTINGS)
    assert len({ref.id for ref in refs}) == 2


def everything_said(files: list[Path], settings: ReadSettings) -> list[str]:
    """Ids, words, errors, warnings and reprs of all scans among files."""
    said = []
    for ref in dicom.find(files, settings)[0]:
        said += [ref.id, ref.subject, ref.part]
        try:
            scan = reading.read(ref, settings)
            said += [repr(scan), *scan.warnings, repr(reading.inspect(ref, settings))]
        except ScanError as problem:
            said += [problem.message, problem.hint or ""]
    return said


@pytest.mark.parametrize("split_mixed", [True, False])
def test_nothing_of_the_patient_is_said(tmp_path: Path, *, split_mixed: bool) -> None:
    """Whatever happens to a series: neither name nor number of the patient in ids, warnings, errors or reprs."""
    edits = {
        "fine": lambda one, _: None,
        "mixed": lambda one, number: setattr(one, "EchoNumbers", number // 2),
        "no geometry": lambda one, _: setattr(one, "PixelSpacing", None),
        "no series": lambda one, _: setattr(one, "SeriesInstanceUID", None),
        "tilt": lambda one, number: setattr(one, "ImagePositionPatient", [number, number, 4 * number]),
        "no pixels": lambda one, _: delattr(one, "PixelData"),
        "lossy": lambda one, _: setattr(one, "LossyImageCompression", "01"),
    }
    for name, edit in edits.items():
        put(tmp_path / name, slices(ramp()), edit)
    for path in put(tmp_path / "cut", slices(ramp())):
        path.write_bytes(path.read_bytes()[:300])
    said = everything_said(
        [file for file in tmp_path.rglob("*") if file.is_file()], ReadSettings(split_mixed=split_mixed)
    )
    assert len(said) > 40
    assert not [text for text in said for secret in (NAME, PATIENT, "Secret", "Zaphod", "4711") if secret in text]


def test_source_holds_what_a_writer_needs_and_nobody(tmp_path: Path) -> None:
    made = slices(ramp())
    for one in made:
        one.PatientBirthDate, one.PatientSex, one.AccessionNumber = "19700203", "O", "ACC-SECRET"
    put(tmp_path, made)
    assert read_one(tmp_path).source == {
        "StudyInstanceUID": made[0].StudyInstanceUID,
        "SeriesInstanceUID": made[0].SeriesInstanceUID,
        "FrameOfReferenceUID": made[0].FrameOfReferenceUID,
        "SOPClassUID": made[0].SOPClassUID,
        "Modality": "CT",
        "SOPInstanceUID": "\\".join(one.SOPInstanceUID for one in made),
    }


@pytest.mark.parametrize(
    ("said", "description"),
    [
        ("Thorax  1.0  B40f ", "Thorax 1.0 B40f"),
        ("", ""),
        ("x" * 100, "x" * 64),
        ("ax\tT1\x00\x1bpost", "ax T1 post"),
        ("T1 of zaphod", ""),
        ("secret-T2", ""),
        ("pat-4711-secret", ""),
        ("4711", ""),
        ("CT pat4711secret", ""),
        ("19600203 thorax", ""),
        ("born 03.02.1960", ""),
        ("20240203 thorax", "20240203 thorax"),
    ],
)
def test_description_is_what_the_series_calls_itself(tmp_path: Path, said: str, description: str) -> None:
    """One line of at most 64 characters, unless it says who the patient is."""

    def edit(one: Dataset, _: int) -> None:
        one.add_new("SeriesDescription", "LT", said)
        one.PatientBirthDate = "19600203"

    put(tmp_path, slices(ramp()), edit)
    assert reading.inspect(find_one(tmp_path), SETTINGS).description == description


@pytest.mark.parametrize(
    ("charset", "coded", "description"),
    [
        (b"NONSENSE", b"Sch\xe4del ", "Schädel"),
        (b"ISO_IR\x00100", b"Sch\xe4del ", "Schädel"),  # what no decoder can be named by
        (b"punycode", b"Sch\xe4del ", "Schädel"),
        (b"ISO_IR 100", b"Sch\xe4del ", "Schädel"),
        (b"ISO_IR 192", b"Sch\xc3\xa4del", "Schädel"),
        (b"\\ISO 2022 IR 87 ", b"T1 \x1b$B;3ED\x1b(B ", "T1 山田"),
    ],
)
def test_description_in_other_character_sets(
    tmp_path: Path, charset: bytes, coded: bytes, description: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "SeriesDescription", "x" * len(coded)))
    for path in tmp_path.iterdir():
        raw = path.read_bytes().replace(b"x" * len(coded), coded)
        at = raw.index(b"\x08\x00\x08\x00CS")
        element = b"\x08\x00\x05\x00CS" + len(charset).to_bytes(2, "little") + charset
        path.write_bytes(raw[:at] + element + raw[at:])
    assert reading.inspect(find_one(tmp_path), SETTINGS).description == description
    assert not caplog.records


def test_matches(tmp_path: Path) -> None:
    (path,) = put(tmp_path, slices(ramp())[:1])
    assert dicom.matches(path)
    assert dicom.matches(tmp_path / "any.DCM")
    (tmp_path / "short").write_bytes(b"DICM")
    assert not dicom.matches(tmp_path / "short")
    assert not dicom.matches(tmp_path / "gone")


def test_uids_do_not_show_in_ids(tmp_path: Path) -> None:
    uid = generate_uid()
    put(tmp_path, slices(ramp()), lambda one, _: setattr(one, "SeriesInstanceUID", uid))
    ref = find_one(tmp_path)
    assert str(uid) not in ref.id
    assert len(ref.id) == len("series-") + 12
    assert np.array_equal(reading.read(ref, SETTINGS).data, ramp() - 1024.0)
