"""What `participants.tsv` of a BIDS dataset says about its subjects (age, sex, group), as conditions of their scans."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from medvae.cohort import tables
from medvae.cohort.rows import conditions
from medvae.cohort.subjects import dataset
from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from medvae.cohort.names import Candidate

log = logging.getLogger(__name__)

_KEY = "participant_id"
_DERIVED = {"derivatives", "sourcedata", "rawdata"}


def join(found: Iterable[Candidate]) -> list[Candidate]:
    """The candidates with the conditions of their subjects, where BIDS names say who they are."""
    known = cache(_read)  # a table is read once per dataset
    return [_joined(one, known(_table(dataset(one)))) if one.origin == "bids" else one for one in found]


def _joined(one: Candidate, participants: Mapping[str, Mapping[str, float | str]]) -> Candidate:
    said = participants.get(one.ref.subject.removeprefix("sub-"), {})
    return replace(one, ref=replace(one.ref, conditions={**said, **one.ref.conditions})) if said else one


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
    rows = [cells for cells in table.rows if cells.get(_KEY)]
    return {
        cells[_KEY].removeprefix("sub-"): conditions({name: cell for name, cell in cells.items() if name != _KEY})
        for cells in rows
    }
