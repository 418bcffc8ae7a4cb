"""Where names leave open who was scanned, the user is told: validation and calibration are kept apart by subject."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from medvae.cohort.names import plural, spelling
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
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")  # of nnU-Net: `case_0000`, `case_0001`
_MOST_CHANNELS = 8
_VISIT = re.compile(  # a folder or a word that tells visits of one person apart
    r"(visit|session|ses|timepoint|tp|day|week|month|year|baseline|bl|follow[ _-]?up|fu|pre|post)([ _-]?\d{1,3})?|"
    r"([vmy]|mr)\d{1,3}|(19|20)\d\d[-_.]?(0\d|1[0-2])[-_.]?[0-3]\d([ _T].*)?",
    re.IGNORECASE,
)
_REPEAT = re.compile(r"(frame|phase|run|rep|echo)\d{1,3}", re.IGNORECASE)  # a word of a name: several of one visit
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
    _warn_of_visits(found)
    _warn_of_spellings(found)
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
        groups += [group for group in (repeated, *_by_name(rest), *_by_channel(members)) if len(group) > 1]
    return groups


def _by_channel(members: Sequence[Candidate]) -> list[list[Candidate]]:
    """The channels of each case in a folder of nnU-Net; none where numbers of four digits may be those of people."""
    cases: dict[str, list[Candidate]] = defaultdict(list)
    numbers: dict[str, list[int]] = defaultdict(list)
    for one in members:
        if (found := _CHANNEL.fullmatch(one.label)) is not None:
            cases[found[1]].append(one)
            numbers[found[1]].append(int(found[2]))
    several = [case for case, found in numbers.items() if 1 < len(found) <= _MOST_CHANNELS]
    several = [case for case in several if sorted(numbers[case]) == list(range(len(numbers[case])))]
    is_of_nnunet = members[0].ref.path.parent.name.lower().startswith("images")
    return [cases[case] for case in several] if len(several) > 1 or is_of_nnunet else []


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


def _warn_of_visits(found: Iterable[Candidate]) -> None:
    """Scans whose paths differ in a visit or a date, but are taken for different subjects: `P1/2020-01-31/t1.nii`."""
    groups: dict[object, list[Candidate]] = defaultdict(list)
    visits = set()
    for one in found:
        who, of_visit = _without_visit(one) if one.origin == "scan" and one.label else (None, False)
        if who is not None:
            groups[who].append(one)
            visits |= {who} if of_visit else set()
    people = [members for who, members in groups.items() if who in visits and len(members) > 1]
    if people:
        first = " and ".join("/".join(one.ref.path.parts[-3:]) for one in people[0][:2])
        message = "%d scans look like visits of the same people, e.g. %s, but are taken for different subjects; %s"
        log.warning(message, sum(map(len, people)), first, _CURE)


def _without_visit(one: Candidate) -> tuple[object, bool]:
    """Whose scan it is by its path without visits, None where no number says it; and whether it names a visit."""
    folders = [folder.name for folder in one.folders[1:]]
    words = person(one.label)
    named = tuple(word for word in words if not (_VISIT.fullmatch(word) or _REPEAT.fullmatch(word)))
    kept = [name for name in folders if not _VISIT.fullmatch(name)]
    own = next((n for n, name in enumerate(kept) if _is_in(split(name), words)), len(kept))  # `002_S_0295` of ADNI
    numbered = named if named != words else (*kept[-1:], *named)
    is_known = any(re.search(r"\d", word) for word in numbered)
    who = (one.root, *kept[: own + 1], named)
    return (who if is_known else None), len(kept) < len(folders) or named != words


def _is_in(part: Sequence[str], words: Sequence[str]) -> bool:
    """Whether words with a number follow each other in others."""
    places = (tuple(words[n : n + len(part)]) for n in range(len(words)))
    return bool(re.search(r"\d", "".join(part))) and tuple(part) in places


def _warn_of_spellings(found: Iterable[Candidate]) -> None:
    """Subjects that differ in zeros, case or `sub-` alone, as after a list went through a spreadsheet."""
    written: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.origin in ("list", "bids"):
            written[spelling(one.ref.subject)].add(one.ref.subject)
    several = [sorted(ways) for ways in written.values() if len(ways) > 1]
    if several:
        message = "%s written in several ways, e.g. %s, and taken for different people; write each in one way"
        is_are = "1 subject is" if len(several) == 1 else f"{len(several)} subjects are"
        log.warning(message, is_are, " and ".join(several[0][:2]))


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
            "%s of the same name, e.g. %s, lie in several datasets (%s) and are taken for the same people; %s",
            plural(len(several), "subject"),
            several[0],
            names,
            f"{_CURE} if they are not",
        )


def _whole(root: Path) -> Path:
    """The dataset that a folder of derivatives belongs to."""
    return next((place.parent for place in (root, *root.parents) if place.name in _PARTS), root)
