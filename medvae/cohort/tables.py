"""Tables as spreadsheets and scripts write them: CSV or TSV in the usual encodings, empty columns and rows included."""

from __future__ import annotations

import csv
import io
import logging
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_MARKS = {BOM_UTF8: "utf-8-sig", BOM_UTF16_LE: "utf-16", BOM_UTF16_BE: "utf-16"}
_TEXT_HINT = "save it as a CSV file in UTF-8"
_SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Table:
    """The cells of a table, trimmed.

    Attributes:
        columns: names, in their order; those without a name are left out.
        rows: cells by column; a row that ends early lacks the last ones. Empty rows are left out.
        decimal_comma: the separator is not a comma, so that `23,5` may be a number.
        notes: what a user should know, in words.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    decimal_comma: bool
    notes: tuple[str, ...] = ()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or, where it is neither, Windows-1252 (an older Excel).

    Raises:
        InputError: it cannot be opened, or it is not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as problem:
        hint = "check that it exists and that you may read it"
        raise InputError(f"the list cannot be read: {problem.strerror}", path=path, hint=hint) from None
    text = _decoded(raw, path)
    if "\0" in text[:10_000]:
        raise InputError("not a text file", path=path, hint=_TEXT_HINT)
    return text


def _decoded(raw: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError as problem:
        raise InputError(f"not a text file: {problem.reason}", path=path, hint=_TEXT_HINT) from None
    log.warning("%s: not UTF-8, read as Windows-1252; check names with special characters", path.name)
    return text


def parse(text: str, path: Path, *, ours: Collection[str]) -> Table:
    """The table in a text; comma, semicolon or tab separates, whichever gives one of our columns, or the most columns.

    Args:
        text: of the file.
        path: for messages.
        ours: columns that have a meaning. They are found in any case, and none may be there twice.

    Raises:
        InputError: it is not a table, a row is too long, or one of our columns is there twice.
    """
    separator, text = _separator(text, ours)
    try:
        lines = _lines(text, separator)
    except csv.Error as problem:
        raise InputError(f"not a table: {problem}", path=path, hint=_TEXT_HINT) from None
    head, body = (lines[0], lines[1:]) if lines else ([], [])
    names = [name.lower() if name.lower() in ours else name for name in head]
    for n, cells in enumerate(body, start=1):
        if any(cells[len(names) :]):
            hint = "put a value that holds the separator into double quotes"
            raise InputError(f"row {n} has {len(cells)} cells, there are {len(names)} columns", path=path, hint=hint)
    dropped, notes = _unusable(names, body, path, ours=ours)
    kept = [index for index in range(len(names)) if index not in dropped]
    rows = tuple({names[index]: cells[index] for index in kept if index < len(cells)} for cells in body)
    return Table(tuple(names[index] for index in kept), rows, separator != ",", tuple(notes))


def _separator(text: str, ours: Collection[str]) -> tuple[str, str]:
    """The separator, and the text without the line `sep=;` that Excel may begin with."""
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if first.lower().startswith("sep=") and len(first.rstrip("\r")) == 5:
        return first[4], rest

    def fits(separator: str) -> tuple[bool, int]:
        try:
            head = _lines(text, separator, most=1)
        except csv.Error:
            return False, 0
        names = head[0] if head else []
        return any(name.lower() in ours for name in names), len(names)

    return max(_SEPARATORS, key=fits), text


def _lines(text: str, separator: str, *, most: int | None = None) -> list[list[str]]:
    """Lines that are not empty, their cells trimmed."""
    found: list[list[str]] = []
    for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True):
        cells = [cell.strip() for cell in line]
        if any(cells):
            found.append(cells)
        if len(found) == most:
            break
    return found


def _unusable(
    names: Sequence[str], body: Sequence[Sequence[str]], path: Path, *, ours: Collection[str]
) -> tuple[set[int], list[str]]:
    """Columns without a name or with one that two have, and what to tell the user about them."""
    count = Counter(name for name in names if name)
    twice = [name for name, n in count.items() if n > 1]
    for name in twice:
        if name in ours:
            raise InputError(f"{count[name]} columns have the name {name!r}", path=path, hint="keep one of them")
    nameless = {index for index, name in enumerate(names) if not name}
    filled = any(cells[index] for cells in body for index in nameless if index < len(cells))
    notes = ["a column without a name is ignored"] if filled else []
    notes += [f"{count[name]} columns have the name {name!r} and are ignored" for name in twice]
    return nameless | {index for index, name in enumerate(names) if name in twice}, notes
