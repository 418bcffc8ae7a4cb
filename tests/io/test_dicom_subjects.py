"""Who was scanned: by PatientID, by study where that is a placeholder, by more of the header where people share it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from dicom_made import NAME, PATIENT, find_one, put, ramp, same_series, slices

from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ReadSettings()
PLACEHOLDERS = [
    "ANONYMOUS", "Anonymous ", "anonymized", "ANONYMISED", "Anon", "de-identified", "DEIDENTIFIED", "Unknown",
    "UNKNOWN PATIENT", "Anonymous^Patient", "NO_ID", "No Patient ID", "None", "N/A", "n.a.", "removed", "REDACTED",
    "0", "0000000", "xxx", "XXXX-XX", "---", "***", "?", "", None,
]  # fmt: skip
REAL = ["1", "10", "4711", "x1", "ANON-0001", "Anonymous12", "sub-01", "patient-1", "LUNG1-001", "Unknown-7", "NA12878"]


def series(folder: Path, *, parts: int = 1, **tags: str | None) -> list[str]:
    """Put series of one study into a folder, with elements of their own; returns their subjects."""
    made = [slices(ramp()) for _ in range(parts)]
    for number, images in enumerate(made):
        for one in images:
            one.StudyInstanceUID = made[0][0].StudyInstanceUID
            for keyword, value in tags.items():
                setattr(one, keyword, value)
        put(folder / str(number), images)
    return subjects(folder)


def subjects(folder: Path) -> list[str]:
    refs, _ = dicom.find([file for file in folder.rglob("*") if file.is_file()], SETTINGS)
    return [ref.subject for ref in refs]


@pytest.mark.parametrize("patient", PLACEHOLDERS)
def test_a_placeholder_is_nobody(tmp_path: Path, patient: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Each study is a subject, with all its series, wherever they are found; a warning says so and what to do."""
    for name in "abc":
        series(tmp_path / name, parts=2, PatientID=patient)
    a, a2, b, b2, c, c2 = subjects(tmp_path)
    assert (a, b, c) == (a2, b2, c2)
    assert len({a, b, c}) == 3
    assert [subjects(tmp_path / name)[0] for name in "abc"] == [a, b, c]
    (record,) = (record for record in caplog.records if "6 series" in record.getMessage())
    said = record.getMessage()
    assert "PatientID is a placeholder in 6 series" in said
    assert f"({(patient or '').strip() or 'missing'})" in said
    assert "name the subjects in a list" in said


@pytest.mark.parametrize("patient", REAL)
def test_a_number_is_one_person_in_all_studies(tmp_path: Path, patient: str) -> None:
    found = {subject for name in "abc" for subject in series(tmp_path / name, PatientID=patient)}
    assert set(subjects(tmp_path)) == found
    assert len(found) == 1
    assert all(subject.startswith("patient-") for subject in found)


def test_one_anonymous_study_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(set(series(tmp_path, parts=3, PatientID="ANONYMOUS"))) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "people",
    [
        [{"PatientSex": "M"}, {"PatientSex": "F"}],
        [{"PatientBirthDate": "19700203"}, {"PatientBirthDate": "19701104"}],
        [{"PatientBirthDate": "19700101"}, {"PatientBirthDate": "19820405"}],
        [{"PatientName": "Adams^Abel"}, {"PatientName": "Brown^Bea"}],
        [{"PatientName": "LUNG 001"}, {"PatientName": "LUNG 002"}],
    ],
)
def test_people_who_share_a_number(
    tmp_path: Path, people: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Each is a subject, in two studies each; the warning names PatientID and nobody."""
    for number, tags in enumerate([*people, *people]):
        series(tmp_path / str(number), **tags)
    caplog.clear()
    one, other, again, other_again = subjects(tmp_path)
    assert (one, other) == (again, other_again)
    assert one != other
    (record,) = caplog.records
    assert "PatientID is the same for different people (name, birth date or sex differ) in 4 series" in record.message
    assert not [secret for secret in (PATIENT, "Adams", "1970", "LUNG") if secret in record.message]


@pytest.mark.parametrize(
    "headers",
    [
        [{"PatientSex": "M"}, {"PatientSex": ""}, {"PatientSex": "O"}],
        [{"PatientBirthDate": "19700203"}, {"PatientBirthDate": "19700101"}, {"PatientBirthDate": "19000101"}],
        [{"PatientName": "Doe^Jane"}, {"PatientName": "DOE JANE"}, {"PatientName": "Doe^Jane^Mary"}],
        [{"PatientName": "Doe^Jane"}, {"PatientName": "ANONYMOUS"}, {"PatientName": ""}],
        [{"PatientName": name, "PatientBirthDate": "19700203"} for name in ("Doe^Jane", "Smith^Jane")],  # married
    ],
)
def test_what_one_person_may_be_called(tmp_path: Path, headers: list[dict[str, str]]) -> None:
    for number, tags in enumerate(headers):
        series(tmp_path / str(number), **tags)
    assert len(set(subjects(tmp_path))) == 1


def test_who_may_be_either_is_a_subject_of_its_own(tmp_path: Path) -> None:
    for number, sex in enumerate(("M", "F", "")):
        series(tmp_path / str(number), PatientSex=sex)
    assert len(set(subjects(tmp_path))) == 3


def test_people_in_one_anonymous_study(tmp_path: Path) -> None:
    """One study UID for all, from de-identification that went wrong: what is left of the people tells them apart."""
    made = [slices(ramp()) for _ in range(4)]
    for number, images in enumerate(made):
        for one in images:
            one.PatientID, one.PatientSex = "ANONYMOUS", "MF"[number % 2]
            one.StudyInstanceUID = made[0][0].StudyInstanceUID
        put(tmp_path / str(number), images)
    one, other, again, other_again = subjects(tmp_path)
    assert (one, other) == (again, other_again)
    assert one != other


def test_one_number_for_everybody_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be one person in many studies or a cohort under one number: nothing tells, so both are named."""
    for name in "abc":
        series(tmp_path / name)
    assert not caplog.records
    assert len(set(subjects(tmp_path))) == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("PatientID is the same in all 3 series of 3 studies: they count as one subject")
    assert PATIENT not in record.message
    caplog.clear()
    series(tmp_path / "d", PatientID="another")
    subjects(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("missing", [("StudyInstanceUID",), ("StudyInstanceUID", "FrameOfReferenceUID")])
def test_without_a_study_the_place_or_the_series_is_the_subject(tmp_path: Path, missing: tuple[str, ...]) -> None:
    for name in "ab":
        made, more = slices(ramp()), slices(ramp())
        for one, other in zip(made, more, strict=True):
            other.FrameOfReferenceUID = one.FrameOfReferenceUID
            for keyword in missing:
                delattr(one, keyword)
                delattr(other, keyword)
        put(tmp_path / name / "1", made, lambda one, _: delattr(one, "PatientID"))
        put(tmp_path / name / "2", more, lambda one, _: delattr(one, "PatientID"))
    assert len(set(subjects(tmp_path))) == (2 if len(missing) == 1 else 4)


def test_damaged_files_are_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "a", PatientID="ANONYMOUS")
    (tmp_path / "damaged.dcm").write_bytes(b"no DICOM")
    assert subjects(tmp_path)[1].startswith("object-")
    assert not caplog.records


def test_the_first_number_of_a_series_counts(tmp_path: Path) -> None:
    """Some slices have lost it."""
    whole, part = slices(ramp()), slices(ramp())
    same_series(whole[0], *part)
    put(tmp_path / "whole", whole)
    put(tmp_path / "part", part, lambda one, number: delattr(one, "PatientID") if number < 3 else None)
    assert find_one(tmp_path / "part").subject == find_one(tmp_path / "whole").subject


def test_a_subject_does_not_show_who_it_is(tmp_path: Path) -> None:
    people = [{"PatientSex": "M"}, {"PatientSex": "F"}, {"PatientID": "ANONYMOUS"}]
    for number, tags in enumerate(people):
        series(tmp_path / str(number), **tags)
    found = subjects(tmp_path)
    assert len(set(found)) == 3
    assert not [text for text in found for secret in (PATIENT, NAME, "ANON") if secret.lower() in text.lower()]
