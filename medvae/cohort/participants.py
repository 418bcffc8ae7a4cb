"""What `participants.tsv` of a BIDS dataset says about its subjects (age, sex, group), as conditions of their scans."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from medvae.cohort import tables
from medvae.cohort.names import plural
from medvae.cohort.rows import COLUMNS, conditions
from medvae.cohort.subjects import dataset
from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from medvae.cohort.names import Candidate

log = logging.getLogger(__name__)

_KEY = "participant_id"
_DERIVED = {"derivatives", "sourcedata", "rawdata"}


def join(found: Iterable[Candidate]) -> list[Candidate]:
    """The candidates with the conditions of their subjects, where BIDS names say who they are."""
    known = cache(_read)  # a table is read once per dataset
    joined: list[Candidate] = []
    without: dict[Path, set[str]] = defaultdict(set)
    for one in found:
        path = _table(dataset(one)) if one.origin == "bids" else None
        said = known(path).get(one.ref.subject.removeprefix("sub-"))
        if path is not None and said is None and known(path):
            without[path].add(one.ref.subject)
        conditions = {**(said or {}), **one.ref.conditions}
        joined.append(replace(one, ref=replace(one.ref, conditions=conditions)) if said else one)
    for path, people in without.items():
        message = "%s has no row for %s, e.g. %s: write a participant_id as its folder is called"
        log.warning(message, path.name, plural(len(people), "subject"), min(people))
    return joined


def _table(root: Path) -> Path | None:
    """The table of the dataset; derivatives and raw data in a folder of their own share the one above it."""
    above = [place.parent for place in (root, *root.parents) if place.name in _DERIVED]
    tables_there = (place / "participants.tsv" for place in (root, *above))
    return next((path for path in tables_there if path.is_file()), None)


def _read(path: Path | None) -> dict[str, dict[str, float | str]]:
    """Conditions by subject; nothing, and a warning, where the table cannot be used."""
    if path is None:
        return {}
    try:
        table = tables.parse(tables.read_text(path), path, ours=(_KEY,))
    except InputError as problem:
        log.warning("%s; its columns are not used", problem)
        return {}
    if _KEY not in table.columns:
        log.warning("%s has no column `%s` between tabs; its columns are not used", path.name, _KEY)
    elif taken := [name for name in table.columns if name in COLUMNS]:
        message = "%s: %s is not used as a condition, because a list has a column of this name; rename it"
        log.warning(message, path.name, ", ".join(taken))
    rows: dict[str, list[dict[str, float | str]]] = defaultdict(list)
    for cells in table.rows:
        if cells.get(_KEY):
            others = {name: cell for name, cell in cells.items() if name != _KEY}
            rows[cells[_KEY].removeprefix("sub-")].append(conditions(others, decimal_comma=table.decimal_comma))
    differ = {name: _differing(several) for name, several in rows.items()}
    told = sorted({name for names in differ.values() for name in names})
    if told:
        message = "%s has several rows of one participant that differ in %s, which is not used for these"
        log.warning(message, path.name, ", ".join(told))
    return {
        name: {key: value for row in several for key, value in row.items() if key not in differ[name]}
        for name, several in rows.items()
    }


def _differing(rows: Sequence[Mapping[str, float | str]]) -> set[str]:
    """The columns in which rows of one participant, e.g. one for each session, do not agree."""
    return {name for row in rows for name in row if any(other.get(name, row[name]) != row[name] for other in rows)}
