"""A list of scans, one row a scan: CSV, TSV or JSON, or a MONAI datalist. Only the list itself is opened here.

The columns are `COLUMNS`; `scan` must be there. Others are ignored, with a warning where one looks like a typing error.
An object of a MONAI datalist has `image`, and `label`: a file is a label map, a number or a text is a class.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, get_args

from medvae.errors import InputError
from medvae.scan import Modality

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

COLUMNS = ("scan", "subject", "label", "label_map", "mask", "modality", "split")
_MODALITIES: dict[str, Modality] = {name: name for name in get_args(Modality)} | {"MRI": "MR", "PET": "PT"}
_IMAGES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".dcm")  # a label that ends so is a file
_SECTIONS = ("training", "validation", "test", "testing")  # of a datalist, where the items are plain texts


@dataclass(frozen=True)
class Row:
    """One row of a list. Paths are as written, relative to the list's folder.

    Attributes:
        where: "row 3", for messages.
        scan: file or folder of the scan.
        subject: who was scanned.
        label: class of the scan.
        label_map: file with a label per voxel.
        mask: file with the foreground.
        modality: of the scan.
        split: "train", "test", or the section of a datalist.
    """

    where: str
    scan: str
    subject: str | None = None
    label: str | None = None
    label_map: str | None = None
    mask: str | None = None
    modality: Modality | None = None
    split: str | None = None


def is_list(path: Path) -> bool:
    """Whether the name is one of a list."""
    return path.suffix.lower() in (".csv", ".tsv", ".json")


def read(path: Path) -> tuple[Row, ...]:
    """The rows of a list, in their order.

    Raises:
        InputError: it cannot be read or parsed, has no column `scan`, or a value in it is not allowed.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"not a text file in UTF-8: {problem.reason}", path=path, hint=_HINT) from None
    except OSError as problem:
        hint = "check that it exists and that you may read it"
        raise InputError(f"the list cannot be read: {problem.strerror}", path=path, hint=hint) from None
    rows = _json(text, path) if path.suffix.lower() == ".json" else _table(text, path)
    if not rows:
        raise InputError("the list has no rows", path=path, hint=_HINT)
    return tuple(rows)


_HINT = f"a list has a column `scan`, and may have {', '.join(COLUMNS[1:])}"


def _table(text: str, path: Path) -> list[Row]:
    """CSV or TSV, whichever of comma, semicolon and tab stands most often in the first line."""
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if any(line)
        ]
    except csv.Error as problem:
        raise InputError(f"not a table: {problem}", path=path, hint=_HINT) from None
    columns = [_column(name.strip()) for name in lines[0]] if lines else []
    _check_columns(columns, path)
    for n, cells in enumerate(lines[1:], start=1):
        if len(cells) > len(columns):
            hint = "put a value that holds the separator into double quotes"
            raise InputError(f"row {n} has {len(cells)} cells, there are {len(columns)} columns", path=path, hint=hint)
    return [
        _row(dict(zip(columns, cells, strict=False)), f"row {n}", path) for n, cells in enumerate(lines[1:], start=1)
    ]


def _column(name: str) -> str:
    """One of ours, in whatever case it is written; any other as it is."""
    return name.lower() if name.lower() in COLUMNS else name


def _check_columns(columns: Sequence[str], path: Path) -> None:
    if "scan" not in columns:
        there = ", ".join(columns)[:200] or "nothing"
        raise InputError(f"no column `scan`; there is: {there}", path=path, hint=_HINT)
    if len(set(columns)) < len(columns):
        raise InputError("two columns have the same name", path=path, hint=_HINT)
    for name in columns:
        near = get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)
        if near and name not in COLUMNS:
            log.warning("%s: column %r is ignored; is %r meant?", path.name, name, near[0])


def _json(text: str, path: Path) -> list[Row]:
    """An array of rows, a MONAI datalist, or the run record of a synthetic set, whose list lies beside it."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputError(
            f"not valid JSON: {problem}", path=path, hint="check it, e.g. with `python -m json.tool`"
        ) from None
    if isinstance(tree, list):
        return [_item(item, f"item {n}", path) for n, item in enumerate(tree, start=1)]
    if isinstance(tree, dict) and {"command", "medvae"} <= set(tree):
        if tree["command"] == "augment":
            return list(read(path.with_name("labels.csv")))
        hint = "name the folder or the list of the scans"
        raise InputError(f"the record of a {tree['command']!r} run lists no scans", path=path, hint=hint)
    return _datalist(tree, path)


def _datalist(tree: Any, path: Path) -> list[Row]:
    sections = (
        {name: items for name, items in tree.items() if _is_section(name, items)} if isinstance(tree, dict) else {}
    )
    if not sections:
        message = "neither an array of rows nor a datalist with training, validation or test"
        raise InputError(message, path=path, hint=_HINT)
    classes, modality = _class_names(tree), _only_modality(tree.get("modality"))
    rows = []
    for section, items in sections.items():
        for n, item in enumerate(items, start=1):
            plain = {"image": item} if isinstance(item, str) else item
            extra = {"split": section} | ({"modality": modality} if modality else {})
            rows.append(_item(extra | plain, f"{section} item {n}", path, classes=classes))
    return rows


def _is_section(name: str, items: Any) -> bool:
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(item, dict) and "image" in item for item in items) or (
        name in _SECTIONS and all(isinstance(item, dict | str) for item in items)
    )


def _class_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """Number of a class -> its name: our `classes`, or MONAI's `labels` (which name the voxels of label maps, too)."""
    if isinstance(tree.get("classes"), list) and tree["classes"]:
        return {str(n): str(name) for n, name in enumerate(tree["classes"])}
    labels = tree.get("labels")
    return {str(n): str(name) for n, name in labels.items()} if isinstance(labels, dict) else {}


def _only_modality(stated: Any) -> str | None:
    """A datalist states one modality a channel, as {"0": "MRI"}; other names than ours say nothing we use."""
    names = set(stated.values()) if isinstance(stated, dict) else {stated}
    return next((name for name in names if isinstance(name, str) and name.upper() in _MODALITIES), None)


def _item(item: Any, where: str, path: Path, *, classes: Mapping[str, str] | None = None) -> Row:
    """One object of a JSON list: a row of ours, or MONAI's, which has `image` where ours has `scan`."""
    if not isinstance(item, dict):
        raise InputError(f"{where} is not an object", path=path, hint=_HINT)
    if "image" not in item:
        return _row(item, where, path)
    image, label = item["image"], item.get("label")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(image, str):
        hint = "a scan has one channel: write a list that names the one to use"
        raise InputError(f"{where}: `image` is not one file", path=path, hint=hint)
    cells = {name: value for name, value in item.items() if name in COLUMNS and name != "label"}
    if isinstance(label, str) and label.lower().endswith(_IMAGES):
        cells, label = {"label_map": label} | cells, item.get("class")
    cells |= {"scan": image, "label": None if label is None else (classes or {}).get(str(label), label)}
    return _row(cells, where, path)


def _row(cells: Mapping[str, Any], where: str, path: Path) -> Row:
    """A row from its cells; an empty cell says nothing."""
    texts = {name: _text(cells[name], f"{where}, {name}", path) for name in COLUMNS if name in cells}
    if not texts.get("scan"):
        raise InputError(f"{where} names no scan", path=path, hint=_HINT)
    modality = texts.pop("modality", None)
    if modality is not None and modality.upper() not in _MODALITIES:
        message = f"{where}: modality {modality!r} is none of {', '.join(get_args(Modality))}"
        raise InputError(message, path=path, hint="correct it, or leave the cell empty")
    known = _MODALITIES[modality.upper()] if modality else None
    return Row(where, modality=known, **cast("dict[str, Any]", texts))


def _text(value: Any, where: str, path: Path) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} is not a text or a number", path=path, hint=_HINT)
    return str(value).strip() or None


def splits(rows: Iterable[Row]) -> tuple[str, ...]:
    """Names of the splits in the rows, in the order in which they come."""
    return tuple(dict.fromkeys(row.split for row in rows if row.split))


def same_split(one: str | None, other: str) -> bool:
    """Whether two names mean one split: `training` is `train`, `val` is `validation`, `testing` is `test`."""
    return one is not None and _split(one) == _split(other)


def _split(name: str) -> str:
    plain = name.strip().lower()
    return {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}.get(plain, plain)
