"""Where names leave open who was scanned, the user is told: validation and calibration are kept apart by subject."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from medvae.cohort.names import plural
from medvae.cohort.subjects import dataset, person, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from medvae.cohort.names import Candidate, Origin

log = logging.getLogger(__name__)

_KNOWN: dict[Origin, str] = {
    "list": "named by the list",
    "patient": "by PatientID",
    "study": "by DICOM study",
    "bids": "guessed from BIDS names",
    "scan": "taken as separate subjects",
}
_CURE = "name a list with a column `subject`"
_PARTS = {"derivatives", "sourcedata", "rawdata"}  # of one dataset


def tell(found: Sequence[Candidate]) -> None:
    """One line on how the subjects are known, and a warning where they may be wrong."""
    count = Counter(one.origin for one in found)
    if len(found) > 1 and set(count) - {"list"}:
        known = ", ".join(
            f"{plural(count[origin], 'scan')} {text}" for origin, text in _KNOWN.items() if origin in count
        )
        log.info("subjects: %s", known)
    _warn_of_one_person(found)
    _warn_of_two_datasets(found)


def _warn_of_one_person(found: Iterable[Candidate]) -> None:
    """Scans in one folder that are taken for different subjects, though they look like one person's."""
    groups = _alike([one for one in found if one.origin == "scan" and one.label])  # DICOM that names nobody is damaged
    if groups:
        first = " and ".join("/".join(one.ref.path.parts[-2:]) for one in groups[0][:2])
        log.warning(
            "%d scans share a folder and look like one person's, e.g. %s, but are taken for different subjects; %s",
            sum(map(len, groups)),
            first,
            _CURE,
        )


def _alike(found: Iterable[Candidate]) -> list[list[Candidate]]:
    """Groups of scans of one folder that may be of one person."""
    rooms: dict[Path, list[Candidate]] = defaultdict(list)
    for one in found:
        rooms[one.ref.path.parent].append(one)
    rooms = {folder: members for folder, members in rooms.items() if len(members) > 1}
    again = _names_again(rooms)
    groups = []
    for members in rooms.values():
        repeated = [one for one in members if one.label in again]
        rest = [one for one in members if one.label not in again]
        groups += [group for group in (repeated, *_by_name(rest)) if len(group) > 1]
    return groups


def _names_again(rooms: dict[Path, list[Candidate]]) -> set[str]:
    """Names without a number that are there in several folders, as `pre` and `post` of every patient."""
    count = Counter(name for members in rooms.values() for name in {one.label for one in members})
    return {name for name, n in count.items() if n > 1 and person(name) and not re.search(r"\d", name)}


def _by_name(members: Sequence[Candidate]) -> list[list[Candidate]]:
    """Groups of scans of one person by their names; `scan_n4` belongs to `scan`."""
    there = {_words(one) for one in members}
    groups: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for one in members:
        words = _words(one)
        shorter = next((words[:n] for n in range(1, len(words)) if words[:n] in there), words)
        groups[person("_".join(shorter))].append(one)
    return list(groups.values())


def _words(one: Candidate) -> tuple[str, ...]:
    return tuple(split(one.label))


def _warn_of_two_datasets(found: Iterable[Candidate]) -> None:
    """Subjects of one name in two BIDS datasets, who may be different people."""
    roots: dict[str, set[Path]] = defaultdict(set)
    for one in found:
        if one.origin == "bids":
            roots[one.ref.subject].add(_whole(dataset(one)))
    several = [name for name, places in roots.items() if len(places) > 1]
    if several:
        names = ", ".join(sorted(place.name for place in roots[several[0]]))
        log.warning(
            "%d subjects of the same name, e.g. %s, lie in several datasets (%s) and are taken for the same people; %s",
            len(several),
            several[0],
            names,
            f"{_CURE} if they are not",
        )


def _whole(root: Path) -> Path:
    """The dataset that a folder of derivatives belongs to."""
    return next((place.parent for place in (root, *root.parents) if place.name in _PARTS), root)
