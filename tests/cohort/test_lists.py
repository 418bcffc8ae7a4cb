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
    assert first == Row("row 1", "a.nii", "p1", "ill", "l.nii", "m.nii", "MR", "train")
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
        ("scan,scan\na,b\n", "two columns have the same name"),
        ("scan,label\n", "the list has no rows"),
        ("scan,label\na.nii,x\n,y\n", "row 2 names no scan"),
        ("scan,label\na.nii,x,y\n", "row 1 has 3 cells, there are 2 columns"),
        ("scan,modality\na.nii,XR\n", "row 1: modality 'XR' is none of CT, MR, PT, SHAPE"),
        ('scan\n"a.nii\n', "not a table"),
        (b"scan\n\xff\xfe.nii\n", "not a text file in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: Any, said: str) -> None:
    assert said in str(refusal(tmp_path, content))


def test_a_list_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        lists.read(tmp_path / "gone.csv")

    def denied(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_text", denied)
    with pytest.raises(InputError, match="Permission denied"):
        lists.read(tmp_path / "mine.csv")


def test_our_columns_in_any_case(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "Scan,SUBJECT,Label_Map\na,b,c\n")
    assert (row.scan, row.subject, row.label_map) == ("a", "b", "c")


def test_a_column_that_looks_like_a_typing_error_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows(tmp_path, "scan,subjct,lable,hospital\na,b,c,d\n")
    assert [record.getMessage() for record in caplog.records] == [
        "list.csv: column 'subjct' is ignored; is 'subject' meant?",
        "list.csv: column 'lable' is ignored; is 'label' meant?",
    ]


def test_an_array_of_rows(tmp_path: Path) -> None:
    tree = [{"scan": "a.nii", "label": 1.0, "subject": 7, "other": []}, {"scan": "b.nii", "label": None}]
    assert rows(tmp_path, tree, "list.json") == (
        Row("item 1", "a.nii", subject="7", label="1"),
        Row("item 2", "b.nii"),
    )


def test_a_datalist_with_classes_and_label_maps(tmp_path: Path) -> None:
    tree = {
        "labels": {"0": "background", "1": "lesion"},
        "modality": {"0": "MRI"},
        "training": [
            {"image": "a.nii.gz", "label": "la.nii.gz"},
            {"image": ["b.nii.gz"], "label": 1, "modality": "CT"},
            {"image": "c.nii.gz", "label": "l.NII", "class": "ill"},
        ],
        "test": ["d.nii.gz"],
        "fold": [{"image": "e.nii.gz", "label": "well"}],
        "numTest": 1,
        "empty": [],
    }
    assert rows(tmp_path, tree, "dataset.json") == (
        Row("training item 1", "a.nii.gz", label_map="la.nii.gz", modality="MR", split="training"),
        Row("training item 2", "b.nii.gz", label="lesion", modality="CT", split="training"),
        Row("training item 3", "c.nii.gz", label="ill", label_map="l.NII", modality="MR", split="training"),
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
