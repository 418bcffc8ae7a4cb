"""Who was scanned, where no list and no DICOM header says it: by the names of BIDS; else everyone is a subject.

BIDS calls a file `sub-<label>[_<key>-<value>...]_<suffix>` and puts it below a folder `sub-<label>`. Real folders stray
from it: labels hold `_` or `-` (`sub-ADNI_002_S_0295`), files are called `T1.nii.gz`, and a folder `sub-acute` holds a
whole group. Different people must not become one, nor one person several.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from medvae.cohort.names import Candidate

_ENTITY = re.compile(r"[a-z]+-.+")  # as `ses-1` or `run-2`
_SHOWN = re.compile(  # what a scan shows, not whose it is
    r"t[12](w|ce|c|n|f|gd|map|star|starw|rho)?|m?p2?rage|mp2?rage|unit1|spgr|stir|flair|pd|pdw|pdt2|dwi|dti|adc|fa|md|bold|"
    r"sbref|epi|asl|m0scan|swi|tof|mra|angio|inplanet[12]|r[12]map|chimap|phase(diff|[12])?|magnitude[12]?|fieldmap|"
    r"ct|cta|cbct|pet|mri?|mask|dseg|probseg|seg|label|brain|head",
    re.IGNORECASE,
)
_DATATYPES = {"anat", "func", "dwi", "fmap", "perf", "pet", "ct", "swi", "mrs"}
_VISIT = re.compile(  # a folder of one person's scans, not of another person
    r"(visit|session|ses|scan|time|timepoint|tp|day|week|month|year|baseline|followup|run|series|v|t)[ _-]?\d{1,2}|"
    r"(19|20)\d\d[-_.]?\d\d[-_.]?\d\d",
    re.IGNORECASE,
)
_SCANS_OF_ONE = 10  # a folder `sub-01` with more scans that are numbered differently is not taken for one person's


def guess(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the subjects that BIDS names give; those whom nobody names stay their own subjects."""
    unknown = [one for one in found if one.origin in ("scan", "study") and "sub-" in os.path.abspath(one.ref.path)]
    people = _people(unknown)
    names = {id(one): _from_name(one) or _from_folder(one, people) for one in unknown}
    there = set(names.values())
    guessed = []
    for one in found:
        subject = _shortest(names.get(id(one), ""), there)
        ref = replace(one.ref, subject=subject, subject_given=True) if subject else one.ref
        guessed.append(replace(one, ref=ref, origin="bids") if subject else one)
    return guessed


def _shortest(subject: str, there: Collection[str]) -> str:
    """`sub-01` for `sub-01_n4` where there is a `sub-01`, too."""
    words = subject.split("_")
    starts = ("_".join(words[:n]) for n in range(1, len(words)))
    return next((start for start in starts if start in there and _has_digit(start)), subject)


def dataset(one: Candidate) -> Path:
    """The root of the BIDS dataset: the folder above the subject's, or the file's own where there is none."""
    own = one.folders[-1]
    return next((folder.parent for folder in (own, *own.parents) if folder.name == one.ref.subject), own)


def split(name: str) -> list[str]:
    """The words of a file's name."""
    return [word for word in re.split(r"[_\-. ]+", name) if word]


def person(name: str) -> tuple[str, ...]:
    """The words of a file's name, of any convention, that say whose scan it is; none for `T1` or `brain_flair`."""
    words = split(name)
    while words and _SHOWN.fullmatch(words[0]):
        words.pop(0)
    return tuple(_before_description(words))


# --------------------------------------------------------------------------------------------------- by BIDS names


def _from_name(one: Candidate) -> str:
    """From a file that is called `sub-...`: the folder of this name above it, or the words that say who it is."""
    name = one.label
    if not name.startswith("sub-"):
        return ""
    for folder in reversed(one.folders):
        if folder.name.startswith("sub-") and f"{name}_".startswith(f"{folder.name}_"):
            return folder.name
    first, *words = name.split("_")
    return "_".join([first, *_before_description(words, numbered=_has_digit(first))])


def _before_description(words: Sequence[str], *, numbered: bool = False) -> list[str]:
    """The words before the first entity or sequence, and before those that follow the last one with a digit.

    Args:
        words: of a name.
        numbered: whether a word with a digit comes before them: `01_brain` is `01`, `AB_CD` stays.
    """
    end = next((n for n, word in enumerate(words) if _ENTITY.fullmatch(word) or _SHOWN.fullmatch(word)), len(words))
    digits = [n for n, word in enumerate(words[:end]) if _has_digit(word)]
    if digits or numbered:
        end = digits[-1] + 1 if digits else 0
    return list(words[:end])


def _from_folder(one: Candidate, people: Collection[Path]) -> str:
    """From a folder `sub-...` above a file of any name."""
    return next((folder.name for folder in reversed(one.folders) if folder in people), "")


def _people(found: Iterable[Candidate]) -> set[Path]:
    """The folders `sub-...` that belong to one person each."""
    scans: dict[Path, set[tuple[str, ...]]] = defaultdict(set)
    sure = set()
    for one in found:
        above, name = one.folders, one.label
        for folder, inner in zip(above, [*above[1:], None], strict=True):
            if not folder.name.startswith("sub-"):
                continue
            if name.startswith(folder.name) or (inner is not None and _is_of_bids(inner)):
                sure.add(folder)
            else:
                scans[folder].add(person(name) or _patient(folder, inner))
    return sure | {folder for folder, names in scans.items() if _is_person(folder, names, beside=scans)}


def _patient(group: Path, folder: Path | None) -> tuple[str, ...]:
    """The words of a folder in `sub-acute` that say whose scans it holds; none for a visit or a date."""
    is_numbered = folder is not None and _has_digit(folder.name) and not _has_digit(group.name)
    return person(folder.name) if folder is not None and is_numbered and not _VISIT.fullmatch(folder.name) else ()


def _is_of_bids(folder: Path) -> bool:
    """Whether it is what BIDS puts into the folder of a subject."""
    return folder.name.startswith("ses-") or folder.name.lower() in _DATATYPES


def _is_person(folder: Path, names: Collection[tuple[str, ...]], *, beside: Iterable[Path]) -> bool:
    """Whether a folder `sub-...` that is not built as BIDS wants it holds the scans of one person.

    One with a digit (`sub-01`) does where its scans are numbered alike, or where there are more such folders beside it;
    a word (`sub-acute`) does where no scan in it has a name of its own.
    """
    if not _has_digit(folder.name):
        return not any(names)
    numbered = [name for name in names if any(map(_has_digit, name))]
    alike = [one for one in beside if one.parent == folder.parent and _has_digit(one.name)]
    return len(numbered) < 2 or (len(alike) > 1 and len(numbered) <= _SCANS_OF_ONE)


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))
