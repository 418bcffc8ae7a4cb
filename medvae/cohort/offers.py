"""Lists that lie in a folder beside its scans: the user is told, as they name subjects, labels and splits."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from medvae.cohort import lists
from medvae.errors import InputError
from medvae.io.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from medvae.cohort.lists import Row

log = logging.getLogger(__name__)

_OF_BIDS = re.compile(
    r"(participants|samples|sessions|.*_(scans|sessions|events|channels|physio|blood))\.(tsv|json)|"
    r"(sub-.*|dataset_description)\.json"
)
_MOST = 20  # lists that are looked into
_LARGEST = 10 * 2**20  # bytes
_KNOWS = {"subject": "subjects", "label": "labels", "split": "splits", "label_map": "label maps", "mask": "masks"}


def tell(folder: Path, files: Iterable[Path], scans: Collection[Path], *, named: Iterable[Path]) -> None:
    """Warn of every list directly in a folder that names scans of it, unless it is an input itself.

    Args:
        folder: an input.
        files: those below it that are not scans.
        scans: those that are, each by its first file; a row may name a folder above it, as that of a DICOM series.
        named: all inputs.
    """
    inputs, stems = set(named), {stem_of(path.name) for path in scans}
    places = set(scans).union(*(path.parents for path in scans))
    likely = [path for path in files if path.parent == folder and lists.is_list(path) and path not in inputs]
    for path in [path for path in likely if path.stem not in stems and not is_sidecar(path)][:_MOST]:
        rows = _rows(path)
        if any(folder / row.scan in places for row in rows):
            known = [text for name, text in _KNOWS.items() if any(getattr(row, name) for row in rows)]
            known += sorted({name for row in rows for name in row.conditions})
            what = ", ".join(known) or "rows"
            log.warning("%s holds a list, %s: name it as the input to use its %s", folder.name, path.name, what)


def lists_in(folder: Path) -> list[Path]:
    """The lists directly in a folder that have splits."""
    likely = sorted(path for path in folder.iterdir() if lists.is_list(path) and not is_sidecar(path))
    return [path for path in likely[:_MOST] if lists.splits(_rows(path))]


def is_sidecar(path: Path) -> bool:
    """Whether the name is one of the files that BIDS puts beside scans."""
    return bool(_OF_BIDS.fullmatch(path.name))


def _rows(path: Path) -> tuple[Row, ...]:
    try:
        return lists.read(path, warn=False) if path.stat().st_size <= _LARGEST else ()
    except (InputError, OSError):
        return ()
