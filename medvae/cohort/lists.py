"""A list of scans, one row per scan: CSV, TSV or JSON, or a MONAI datalist. Only the list itself is opened here.

The columns are `COLUMNS`; `scan` must be there. Every other column is a condition of the scan.
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from typing import TYPE_CHECKING

from medvae.cohort import datalist, tables
from medvae.cohort.rows import COLUMNS, HINT, NO_LIST, Row, is_missing, row
from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from medvae.scan import ScanRef

__all__ = ["COLUMNS", "NO_LIST", "Row", "is_list", "read", "same_split", "splits", "tell_of_splits"]

log = logging.getLogger(__name__)

_ELSEWHERE = {
    **dict.fromkeys(("participant", "participantid", "patient", "patientid", "person", "personid", "sub"), "subject"),
    **dict.fromkeys(("segmentation", "seg"), "label_map"),
    **dict.fromkeys(("partition", "subset"), "split"),
}  # names of columns in lists of other tools, without `_`: ours


def is_list(path: Path) -> bool:
    """Whether the name is one of a list."""
    return path.suffix.lower() in (".csv", ".tsv", ".json")


def read(path: Path, *, warn: bool = True) -> tuple[Row, ...]:
    """The rows of a list, in their order.

    Args:
        path: of the list.
        warn: tell what looks like a mistake.

    Raises:
        InputError: it cannot be read or parsed, has no column `scan`, or a value in it is not allowed. The code is
            `NO_LIST` where it is no list of scans at all.
    """
    rows, notes = _rows(path)
    if warn:
        for note in notes:
            log.warning("%s: %s", path.name, note)
    if not rows:
        raise InputError("the list has no rows", path=path, hint=HINT)
    return tuple(rows)


def _rows(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    """The rows, and what a user should be told of the list."""
    text = tables.read_text(path)
    if path.suffix.lower() != ".json":
        return _table(text, path)
    found = datalist.parse(text, path)
    if not isinstance(found, list):
        return _rows(found)
    ours = [name for name in COLUMNS if any(getattr(row, name) for row in found)]
    return found, _typing_errors([*ours, *sorted({name for row in found for name in row.conditions})])


def _table(text: str, path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    table = tables.parse(text, path, ours=COLUMNS)
    if "scan" not in table.columns:
        there = ", ".join(table.columns)[:200] or "nothing"
        raise InputError(f"no column `scan`; there is: {there}", code=NO_LIST, path=path, hint=HINT)
    if table.rows and all(is_missing(cells.get("scan", "")) for cells in table.rows):
        raise InputError("the column `scan` is empty", code=NO_LIST, path=path, hint=HINT)
    rows = [
        row(cells, f"row {n}", path, decimal_comma=table.decimal_comma) for n, cells in enumerate(table.rows, start=1)
    ]
    return rows, [*table.notes, *_typing_errors(table.columns)]


def _typing_errors(columns: Sequence[str]) -> list[str]:
    """Columns whose names are nearly one of ours, or that other tools have in its place."""
    found = []
    for name in columns:
        near = next(iter(get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)), None)
        other = _ELSEWHERE.get(name.lower().replace("_", "").replace(" ", ""))
        meant = near or (other if other not in columns else None)
        if meant and name not in COLUMNS:
            found.append(f"column {name!r} is kept as a condition; did you mean {meant!r}?")
    return found


def splits(rows: Iterable[Row]) -> tuple[str, ...]:
    """Names of the splits in the rows, in the order in which they come."""
    return tuple(dict.fromkeys(row.split for row in rows if row.split))


def same_split(one: str | None, other: str) -> bool:
    """Whether two names mean one split: `training` is `train`, `val` is `validation`, `testing` is `test`."""
    return one is not None and _split(one) == _split(other)


def tell_of_splits(refs: Iterable[ScanRef]) -> None:
    """Warn where scans of several splits are used together, e.g. those held back for a test in a training."""
    names = {_split(ref.split): ref.split for ref in refs if ref.split}
    if len(names) > 1:
        log.warning("scans of the splits %s are all used; choose one with split=", ", ".join(sorted(names.values())))


def _split(name: str) -> str:
    plain = name.strip().lower()
    return {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}.get(plain, plain)
