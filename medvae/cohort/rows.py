"""One row of a list: which columns are ours, what counts as missing, what is a number. Nothing is opened here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, cast, get_args

from medvae.errors import InputError
from medvae.scan import Modality

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMNS = ("scan", "subject", "label", "label_map", "mask", "modality", "split")
HINT = f"write a column `scan` and, as needed, {', '.join(COLUMNS[1:])}; other columns are conditions"
NO_LIST = "no_list"  # code of the error where a file is no list of scans at all, e.g. a sidecar
MODALITIES: dict[str, Modality] = {name: name for name in get_args(Modality)} | {"MRI": "MR", "PET": "PT"}
_MISSING = {"", "n/a", "na", "nan", "#n/a", "<na>"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


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
        conditions: every other column that has a value, by its name: a number, or a word.
    """

    where: str
    scan: str
    subject: str | None = None
    label: str | None = None
    label_map: str | None = None
    mask: str | None = None
    modality: Modality | None = None
    split: str | None = None
    conditions: Mapping[str, float | str] = field(default_factory=dict)


def is_missing(text: str) -> bool:
    """Whether a cell says nothing: empty, or `n/a` as BIDS, R, pandas and Excel write it."""
    return text.strip().lower() in _MISSING


def row(cells: Mapping[str, Any], where: str, path: Path, *, decimal_comma: bool = False) -> Row:
    """A row from its cells, by column; a missing cell says nothing.

    Raises:
        InputError: it names no scan, or a value is not allowed.
    """
    texts = {name: _text(cells[name], f"{where}, {name}", path) for name in COLUMNS if name in cells}
    if not texts.get("scan"):
        raise InputError(f"{where} names no scan", path=path, hint=HINT)
    modality = texts.pop("modality", None)
    if modality is not None and modality.upper() not in MODALITIES:
        message = f"{where}: modality {modality!r} is not one of {', '.join(get_args(Modality))}"
        raise InputError(message, path=path, hint="correct it, or leave the cell empty")
    known = MODALITIES[modality.upper()] if modality else None
    others = conditions(cells, decimal_comma=decimal_comma)
    return Row(where, modality=known, conditions=others, **cast("dict[str, Any]", texts))


def conditions(cells: Mapping[str, Any], *, decimal_comma: bool = False) -> dict[str, float | str]:
    """The values of all columns that are not in `COLUMNS`; a missing one, or one that is not plain, is left out.

    Args:
        cells: by column.
        decimal_comma: whether `23,5` is a number, as in tables whose separator is not a comma.
    """
    values = {name: _value(cell, decimal_comma) for name, cell in cells.items() if name and name not in COLUMNS}
    return {name: value for name, value in values.items() if value is not None}


def _value(cell: Any, decimal_comma: bool) -> float | str | None:
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return float(cell) if isfinite(cell) else None
    if not isinstance(cell, str) or is_missing(cell):
        return None
    text = cell.strip()
    found = number(text, decimal_comma=decimal_comma)
    return text if found is None else found


def number(text: str, *, decimal_comma: bool) -> float | None:
    """The finite number that a cell of a table is; None where it is none."""
    plain = text.replace(",", ".") if decimal_comma else text
    return float(plain) if _NUMBER.fullmatch(plain) and isfinite(float(plain)) else None


def _text(value: Any, where: str, path: Path) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} is not a text or a number", path=path, hint=HINT)
    text = str(value).strip()
    return None if is_missing(text) else text
