"""Lists of scans: CSV, TSV, JSON, MONAI datalists; what is not allowed is named with its row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from medvae.cohort import lists
from medvae.cohort.lists import Row
from medvae.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def rows(folder: Path, content: str | bytes | Any, name: str = "list.csv") -> tuple[Row, ...]:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return lists.read(path)


def refusal(folder: Path, content: Any, name: str = "list.csv") -> InputError:
    with pytest.raises(InputError) as caught:
        rows(folder, content, name)
    assert caught.value.hint
    assert str(caught.value).startswith(f"{name}: ")
    return caught.value


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_with_any_separator(tmp_path: Path, mark: str) -> None:
    head = "scan,subject,label,label_map,mask,modality,split,site"
    text = f"\ufeff{head}\r\na.nii,p1,ill,l.nii,m.nii,mri,train,3\r\nb.nii,,,,,,,\r\n"
    first, second = rows(tmp_path, text.replace(",", mark))
    assert first == Row("row 1", "a.nii", "p1", "ill", "l.nii", "m.nii", "MR", "train", {"site": 3.0})
    assert second == Row("row 2", "b.nii")


def test_quotes_blanks_and_short_rows(tmp_path: Path) -> None:
    found = rows(tmp_path, '\n scan , label\n\n"a, b.nii", \nc.nii\n')
    assert [(row.scan, row.label) for row in found] == [("a, b.nii", None), ("c.nii", None)]


@pytest.mark.parametrize("path", ["a.csv", "a.TSV", "b.json"])
def test_lists_are_known_by_name(tmp_path: Path, path: str) -> None:
    assert lists.is_list(tmp_path / path)
    assert not lists.is_list(tmp_path / f"{path}.gz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no column `scan`; there is: nothing"),
        ("image,label\na,b\n", "no column `scan`; there is: image, label"),
        ("scan,Scan\na,b\n", "2 columns have the name 'scan'"),
        ("scan,label\nn/a,x\n,y\n", "the column `scan` is empty"),
        ("scan,label\n", "the list has no rows"),
        ("scan,label\na.nii,x\n,y\n", "row 2 names no scan"),
        ("scan,label\na.nii,x,y\n", "row 1 has 3 cells, there are 2 columns"),
        ("scan,modality\na.nii,XR\n", "row 1: modality 'XR' is not one of CT, MR, PT, SHAPE"),
        ('scan\n"a.nii\n', "not a table"),
        (b"PK\x03\x04\0\0scan\n", "not a text file"),
        (b"scan\n\x81.nii\n", "not a text file"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: Any, said: str) -> None:
    assert said in str(refusal(tmp_path, content))


def test_a_list_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        lists.read(tmp_path / "gone.csv")

    def denied(*_: Any, **__: Any) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", denied)
    with pytest.raises(InputError, match="Permission denied"):
        lists.read(tmp_path / "mine.csv")


def test_our_columns_in_any_case(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "Scan,SUBJECT,Label_Map\na,b,c\n")
    assert (row.scan, row.subject, row.label_map) == ("a", "b", "c")


def test_a_column_that_looks_like_a_typing_error_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows(tmp_path, "scan,subjct,lable,hospital\na,b,c,d\n")
    assert [record.getMessage() for record in caplog.records] == [
        "list.csv: column 'subjct' is kept as a condition; did you mean 'subject'?",
        "list.csv: column 'lable' is kept as a condition; did you mean 'label'?",
    ]


def test_columns_of_other_tools_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows(tmp_path, "scan,participant_id,Patient ID,seg,site,split,subset\na,b,c,d,e,f,g\n")
    assert [record.getMessage() for record in caplog.records] == [
        "list.csv: column 'participant_id' is kept as a condition; did you mean 'subject'?",
        "list.csv: column 'Patient ID' is kept as a condition; did you mean 'subject'?",
        "list.csv: column 'seg' is kept as a condition; did you mean 'label_map'?",
    ]
    caplog.clear()
    rows(tmp_path, {"training": [{"image": "a.nii", "patient_id": 7, "site": "x"}]}, "d.json")
    assert [record.getMessage() for record in caplog.records] == [
        "d.json: column 'patient_id' is kept as a condition; did you mean 'subject'?"
    ]


EXCEL = {
    "empty columns and rows at the end": "\ufeffscan;subject;;\r\na.nii;p1;;\r\nb.nii;p2;;\r\n;;;\r\n ; ;;\r\n",
    "a line that names the separator": "sep=;\r\nscan;subject\r\na.nii;p1\r\nb.nii;p2\r\n",
    "rows longer than the header": "scan,subject\na.nii,p1,\nb.nii,p2,,\n",
    "an index of pandas": ",scan,subject\n0,a.nii,p1\n1,b.nii,p2\n",
    "other columns of one name": "scan,subject,note,note\na.nii,p1,x,y\nb.nii,p2,,\n",
    "quoted cells": '"scan";"subject"\n"a.nii";"p1"\n"b.nii";"p2"\n',
    "separators in a quoted name": '"age; in years","a;b",scan,subject\n,,a.nii,p1\n,,b.nii,p2\n',
    "blanks before quotes": 'scan, subject\n"a.nii", "p1"\n"b.nii", "p2"\n',
    "line ends of an old Mac": "scan,subject\ra.nii,p1\rb.nii,p2\r",
}


@pytest.mark.parametrize("text", EXCEL.values(), ids=EXCEL)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, text: str) -> None:
    assert rows(tmp_path, text.encode()) == (Row("row 1", "a.nii", "p1"), Row("row 2", "b.nii", "p2"))


def test_columns_that_are_ignored_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows(tmp_path, "scan,note,note,\na.nii,x,y,z\n")
    assert [record.getMessage() for record in caplog.records] == [
        "list.csv: a column without a name is ignored",
        "list.csv: 2 columns have the name 'note' and are ignored",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_in_the_encodings_of_spreadsheets(
    tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    (row,) = rows(tmp_path, "scan,subject\nMüller.nii,Zoë\n".encode(encoding))
    assert (row.scan, row.subject) == ("Müller.nii", "Zoë")
    assert ("Windows-1252" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize("word", ["", "n/a", "N/A", "NA", "na", "nan", "NaN", " n/a ", "#N/A"])
def test_a_missing_value_is_missing_in_every_column(tmp_path: Path, word: str) -> None:
    head = "scan,subject,label,label_map,mask,modality,split,age,sex"
    (row,) = rows(tmp_path, f"{head}\na.nii{f',{word}' * 8}\n")
    assert row == Row("row 1", "a.nii")


def test_other_columns_are_conditions(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "scan,age,sex,T,code,span,far\na.nii,20.5,F,-1e3,007,18-25,1e999\n")
    assert row.conditions == {"age": 20.5, "sex": "F", "T": -1000.0, "code": 7.0, "span": "18-25", "far": "1e999"}
    (row,) = rows(tmp_path, "scan;age;place\na.nii;20,5;1,2,3\n")
    assert row.conditions == {"age": 20.5, "place": "1,2,3"}, "a decimal comma"
    (row,) = rows(tmp_path, 'scan,age\na.nii,"20,5"\n')
    assert row.conditions == {"age": "20,5"}, "which a table with commas does not have"


def test_an_array_of_rows(tmp_path: Path) -> None:
    tree = [
        {"scan": "a.nii", "label": 1.0, "subject": 7, "other": [], "age": 20, "sex": "F", "fat": True},
        {"scan": "b.nii", "label": None, "age": float("nan"), "sex": "n/a"},
    ]
    assert rows(tmp_path, tree, "list.json") == (
        Row("item 1", "a.nii", subject="7", label="1", conditions={"age": 20.0, "sex": "F", "fat": "true"}),
        Row("item 2", "b.nii"),
    )


def test_arrays_of_one_file_in_a_datalist(tmp_path: Path) -> None:
    items = [{"image": ["a.nii"], "label": ["l.nii"]}, {"image": "b.nii", "label": [1]}]
    assert rows(tmp_path, {"training": items}, "d.json") == (
        Row("training item 1", "a.nii", label_map="l.nii", split="training"),
        Row("training item 2", "b.nii", label="1", split="training"),
    )


def test_a_datalist_with_classes_and_label_maps(tmp_path: Path) -> None:
    tree = {
        "labels": {"0": "background", "1": "lesion"},
        "modality": {"0": "MRI"},
        "training": [
            {"image": "a.nii.gz", "label": "la.nii.gz"},
            {"image": ["b.nii.gz"], "label": 1, "modality": "CT", "age": "31", "fold": 0},
            {"image": "c.nii.gz", "label": "l.NII", "class": "ill"},
            {"image": "f.nii.gz", "label": "l.nrrd"},
        ],
        "test": ["d.nii.gz"],
        "fold": [{"image": "e.nii.gz", "label": "well"}],
        "numTest": 1,
        "empty": [],
    }
    assert rows(tmp_path, tree, "dataset.json") == (
        Row("training item 1", "a.nii.gz", label_map="la.nii.gz", modality="MR", split="training"),
        Row(
            "training item 2",
            "b.nii.gz",
            label="lesion",
            modality="CT",
            split="training",
            conditions={"age": 31.0, "fold": 0.0},
        ),
        Row("training item 3", "c.nii.gz", label="ill", label_map="l.NII", modality="MR", split="training"),
        Row("training item 4", "f.nii.gz", label_map="l.nrrd", modality="MR", split="training"),
        Row("test item 1", "d.nii.gz", modality="MR", split="test"),
        Row("fold item 1", "e.nii.gz", label="well", modality="MR", split="fold"),
    )
    ours = {"classes": ["well", "ill"], "modality": "flair", "training": [{"image": "a.nii", "label": 1}]}
    assert rows(tmp_path, ours, "dataset.json") == (Row("training item 1", "a.nii", label="ill", split="training"),)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ({}, "neither an array of rows nor a datalist"),
        ("7", "neither an array of rows nor a datalist"),
        ([], "the list has no rows"),
        (["a.nii"], "item 1 is not an object"),
        ([{"label": "x"}], "item 1 names no scan"),
        ([{"scan": ["a", "b"]}], "item 1, scan is not a text or a number"),
        ({"training": [{"image": ["t1.nii", "t2.nii"]}]}, "training item 1: `image` is not one file"),
        ({"command": "detect", "medvae": "1"}, "the record of a 'detect' run lists no scans"),
    ],
)
def test_json_that_is_no_list(tmp_path: Path, tree: Any, said: str) -> None:
    assert said in str(refusal(tmp_path, tree, "list.json"))


NO_LISTS = {
    "x.json": '{"MagneticFieldStrength": 3}',
    "run.json": '{"command": "detect", "medvae": "1"}',
    "sub-01_scans.tsv": "filename\tacq_time\nanat/a.nii\tn/a\n",
    "participants.tsv": "file\tscan\na.nii\t\n",
}


@pytest.mark.parametrize("name", NO_LISTS)
def test_what_is_no_list_of_scans_has_a_code_of_its_own(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path, NO_LISTS[name], name).code == lists.NO_LIST
    assert refusal(tmp_path, "scan,modality\na.nii,XR\n").code != lists.NO_LIST, "a list with a mistake"


def test_the_record_of_synthetic_scans_stands_for_their_list(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("scan,label\nimages/a.nii.gz,ill\n", "utf-8")
    found = rows(tmp_path, {"command": "augment", "medvae": "1"}, "run.json")
    assert found == (Row("row 1", "images/a.nii.gz", label="ill"),)


def test_names_of_splits() -> None:
    assert lists.splits([Row("1", "a", split="test"), Row("2", "b"), Row("3", "c", split="test")]) == ("test",)
    assert lists.same_split("training", "Train ")
    assert lists.same_split("val", "validation")
    assert lists.same_split("testing", "test")
    assert not lists.same_split("train", "test")
    assert not lists.same_split(None, "train")
