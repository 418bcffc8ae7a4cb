"""Scans that a list names: what its rows say, and what is wrong with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import pytest
from dicom_made import put, ramp, slices
from finding import listed, look, refusal, touch

from medvae.cohort.lists import tell_of_splits
from medvae.errors import ScanError
from medvae.io import reading
from medvae.scan import ScanRef
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path


def ids(*inputs: Path, **more: Any) -> list[str]:
    return [ref.id for ref in look(*inputs, **more).refs]


def test_a_row_says_all_about_its_scan(tmp_path: Path) -> None:
    touch(tmp_path, "img/a.nii", "l.nii", "m.nii")
    (ref,) = listed(tmp_path, "scan,subject,label,label_map,mask,modality,split\nimg/a.nii,p,ill,l.nii,m.nii,MR,test\n")
    assert ref == ScanRef(
        "img_a",
        "nifti",
        (tmp_path / "img/a.nii",),
        subject="p",
        label="ill",
        label_map=tmp_path / "l.nii",
        mask=tmp_path / "m.nii",
        modality="MR",
        split="test",
        subject_given=True,
    )


def test_a_row_whose_file_is_not_there_ends_as_unreadable(tmp_path: Path) -> None:
    touch(tmp_path, "text.txt")
    refs = listed(tmp_path, "scan\ngone.nii.gz\nno_such_folder\n../up/x.nii\n")
    assert [(ref.id, ref.format) for ref in refs] == [("gone", "nifti"), ("no_such_folder", "dicom"), ("up_x", "nifti")]
    for ref in refs:
        with pytest.raises(ScanError) as caught:
            reading.read(ref, ReadSettings())
        assert caught.value.code == "unreadable"


def test_a_row_may_name_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "series", slices(ramp()))
    touch(tmp_path, "many/a.nii", "many/b.nii", "many/b_mask.nii")
    refs = listed(tmp_path, "scan,label\nseries,well\nmany,ill\n")
    assert [(ref.format, ref.label) for ref in refs] == [("dicom", "well"), ("nifti", "ill"), ("nifti", "ill")]


def test_splits(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    text = "scan,split\na.nii,training\nb.nii,test\n"
    assert [ref.id for ref in listed(tmp_path, text, split="train")] == ["a"]
    problem = refusal(tmp_path / "list.csv", split="tset")
    assert "no row is of split 'tset'" in str(problem)
    assert "'test'" in (problem.hint or "")
    (tmp_path / "plain.csv").write_text("scan\na.nii\n", "utf-8")
    assert "add a column `split`" in (refusal(tmp_path / "plain.csv", split="x").hint or "")
    for path in (tmp_path, tmp_path / "a.nii"):
        assert "only a list has splits" in str(refusal(path, split="train"))


def test_splits_that_are_used_together_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii")
    refs = listed(tmp_path, "scan,split\na.nii,train\nb.nii,Training \nc.nii,test\nd.nii,\n")
    tell_of_splits([refs[0], refs[1], refs[3]])
    assert not caplog.records
    tell_of_splits(refs)
    assert "scans of the splits Training, test are all used; choose one with split=" in caplog.text


def test_globs_choose_among_rows(tmp_path: Path) -> None:
    refs = listed(tmp_path, "scan\nt1/a.nii\nt2/a.nii\n", include=("t2/*",))
    assert [ref.id for ref in refs] == ["t2_a"]
    assert "leave none of the 2 files" in str(refusal(tmp_path / "list.csv", exclude=("*",)))


def test_a_datalist_and_the_output_of_augment_are_lists(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"training": [{"image": "images/a.nii.gz", "label": 3}]}), "utf-8"
    )
    (tmp_path / "labels.csv").write_text("scan,label\nimages/a.nii.gz,3\n", "utf-8")
    (tmp_path / "run.json").write_text(json.dumps({"command": "augment", "medvae": "1"}), "utf-8")
    for name, split in (("dataset.json", "training"), ("labels.csv", None), ("run.json", None)):
        (ref,) = look(tmp_path / name).refs
        assert (ref.id, ref.label, ref.split) == ("images_a", "3", split)


def test_conditions_come_from_the_other_columns(tmp_path: Path) -> None:
    put(tmp_path / "series", slices(ramp()))
    touch(tmp_path, "a.nii", "many/b.nii", "many/c.nii")
    refs = listed(tmp_path, "scan,age,sex\na.nii,20,F\nmany,n/a,M\nseries,61.5,\n")
    assert [ref.conditions for ref in refs] == [{"age": 20.0, "sex": "F"}, {"sex": "M"}, {"sex": "M"}, {"age": 61.5}]


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    (ref,) = listed(tmp_path, "scan,label_map\nimages\\a.nii,labels\\a.nii\n")
    assert (ref.path, ref.label_map) == (tmp_path / "images" / "a.nii", tmp_path / "labels" / "a.nii")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_that_are_composed_otherwise_than_in_the_name_of_the_file(tmp_path: Path, form: Any) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    touch(tmp_path, normalize(other, "Mü/é.nii"), normalize(other, "Mü/é_mask.nii"))
    (ref,) = listed(tmp_path, normalize(form, "scan,mask\nMü\\é.nii,Mü/é_mask.nii\n"))
    assert ref.path.is_file()
    assert ref.mask is not None
    assert ref.mask.is_file()


def test_paths_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "home/scans/a.nii", "~b.nii")
    first, second = listed(tmp_path, "scan\n~/scans/a.nii\n~b.nii\n")
    assert (first.path, second.path) == (tmp_path / "home" / "scans" / "a.nii", tmp_path / "~b.nii")


def test_a_list_beside_its_folder_says_more_of_the_scans(tmp_path: Path) -> None:
    touch(tmp_path, "scans/a.nii", "scans/b.nii")
    (tmp_path / "list.csv").write_text("scan,label\nscans/b.nii,ill\n", "utf-8")
    for inputs in ((tmp_path / "scans", tmp_path / "list.csv"), (tmp_path / "list.csv", tmp_path / "scans")):
        assert {ref.path.name: ref.label for ref in look(*inputs).refs} == {"a.nii": None, "b.nii": "ill"}


LISTS = {
    "split.csv": "scan,subject,age,split\na.nii,p1,20,train\nb.nii,p2,30,test\n",
    "dataset.json": '{"training": [{"image": "./a.nii", "label": "m.nii"}]}',
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_beside_the_scans_is_offered(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "s/a.nii", "s/b.nii")
    (tmp_path / "s" / name).write_text(LISTS[name], "utf-8")
    assert len(ids(tmp_path / "s")) == 2
    knows = {"split.csv": "subjects, splits, age", "dataset.json": "splits, label maps"}[name]
    assert f"s holds a list, {name}: name it as the input to use its {knows}" in caplog.text
    caplog.clear()
    look(tmp_path / "s" / name)
    look(tmp_path / "s", tmp_path / "s" / name)
    assert "holds a list" not in caplog.text, "it is used"
    assert f"name the list {tmp_path / 's' / name}" in (refusal(tmp_path / "s", split="train").hint or "")


def test_a_list_of_series_beside_their_folders_is_offered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, place in (("p1", "p1"), ("p2", "p2/DICOM")):
        put(tmp_path / "s" / place, slices(ramp()))
        (tmp_path / "s" / "list.csv").write_text(f"scan,label\n{name},ill\n", "utf-8")
        caplog.clear()
        look(tmp_path / "s")
        assert "s holds a list, list.csv: name it as the input to use its labels" in caplog.text


def test_other_tables_beside_the_scans_are_not_offered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "other.csv").write_text("scan\nsomewhere/else.nii\n", "utf-8")
    (tmp_path / "participants.tsv").write_text("file\tscan\na.nii\t\n", "utf-8")
    (tmp_path / "broken.json").write_text("{", "utf-8")
    (tmp_path / "a.json").write_text("{}", "utf-8")
    assert ids(tmp_path) == ["a"]
    assert not caplog.records


def test_a_scan_named_twice_is_one_unless_the_two_disagree(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    assert len(listed(tmp_path, "scan,label\na.nii,x\n./a.nii,x\n")) == 1
    (tmp_path / "list.csv").write_text("scan,label\na.nii,x\na.nii,y\n", "utf-8")
    assert "twice, with different entries" in str(refusal(tmp_path / "list.csv"))
