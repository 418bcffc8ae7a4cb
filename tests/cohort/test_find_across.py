"""Several inputs are as good as one: a DICOM series over two of them is one scan, and people are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dicom_made import put, ramp, slices

from medvae.cohort.find import find
from medvae.errors import InputError
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path


def person(folder: Path, **tags: Any) -> None:
    put(folder, slices(ramp()), lambda one, _: [setattr(one, name, value) for name, value in tags.items()])


@pytest.mark.parametrize("split_mixed", [False, True])
def test_a_series_over_two_folders_is_one_scan(tmp_path: Path, *, split_mixed: bool) -> None:
    made = slices(ramp())
    put(tmp_path / "a", made[::2])
    put(tmp_path / "b", made[1::2])
    person(tmp_path / "b" / "other", PatientID="another")
    settings = ReadSettings(split_mixed=split_mixed)
    whole = find(tmp_path, settings)
    both = find([tmp_path / "a", tmp_path / "b"], settings)
    assert [len(ref.paths) for ref in whole] == [5, 5]
    assert {(ref.id, ref.subject, frozenset(ref.paths)) for ref in both} == {
        (ref.id, ref.subject, frozenset(ref.paths)) for ref in whole
    }
    files = [file for name in "ab" for file in (tmp_path / name).iterdir() if file.is_file()]
    assert [len(ref.paths) for ref in find(files, settings)] == [5]


def test_people_who_share_a_number_over_two_folders_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, patient, sex in (("a", "Adams^A", "M"), ("b", "Brown^B", "F")):
        person(tmp_path / name, PatientID="001", PatientName=patient, PatientSex=sex)
    both = find([tmp_path / "a", tmp_path / "b"])
    assert "PatientID is the same for different people" in caplog.text
    assert set(both.subjects) == set(find(tmp_path).subjects)
    assert len(both.subjects) == 2


def test_a_folder_that_is_given_twice_is_used_once(tmp_path: Path) -> None:
    person(tmp_path / "a", PatientID="001")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert len(find([tmp_path / "a", tmp_path / "link"])) == 1
    assert len(find([tmp_path, tmp_path / "a"])) == 1


def test_a_name_that_begins_with_a_tilde_need_not_be_a_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person(tmp_path / "~no-users-name", PatientID="001")
    monkeypatch.chdir(tmp_path)
    assert len(find("~no-users-name")) == 1
    with pytest.raises(InputError, match="no such file or folder"):
        find("~nobody-is-called-so")
