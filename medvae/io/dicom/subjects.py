"""Who was scanned: one subject per PatientID, unless the PatientID is a placeholder or several people share it.

Names, birth dates and numbers of patients stay in here: only hashes leave it, and no message quotes them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations
from typing import TYPE_CHECKING

from medvae.io.dicom.text import decoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.io.dicom.tags import Tags

log = logging.getLogger(__name__)

# What de-identification writes instead of a PatientID or PatientName, in small letters without anything between them.
_WORDS = """
anon anonym anonyme anonymised anonymisiert anonymized anonymous anonymousid anonymouspatient anonymizedpatient
anonpatient anonimo anonimizado blank confidential default deid deidentified deidentifiedpatient deleted dummy
dummypatient empty hidden id masked na name nan nil noid noname none nopatient nopatientid null notavailable
notprovided patient patientid patientname pseudonym redacted removed subject undefined unidentified unknown
unknownpatient unnamed unspecified
"""
_PLACEHOLDERS = frozenset(_WORDS.split())
_NO_BIRTH_DATES = frozenset(("19000101", "11111111", "00000000"))
_SEXES = frozenset("MF")
_MANY_STUDIES = 3  # from here on, one PatientID for all of them is worth a line


@dataclass(frozen=True, slots=True)
class Person:
    """Who was scanned, from the header of one file. The repr shows none of it.

    Attributes:
        patient: PatientID; "" where it is missing.
        name: the parts of PatientName in capitals, sorted; () where it is missing or a placeholder.
        birth: PatientBirthDate as YYYYMMDD; "" where it is missing or a placeholder.
        sex: "M", "F" or "".
        study: StudyInstanceUID; FrameOfReferenceUID or SeriesInstanceUID where it is missing.
    """

    patient: str = field(default="", repr=False)
    name: tuple[str, ...] = field(default=(), repr=False)
    birth: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    study: str = field(default="", repr=False)

    @property
    def placeholder(self) -> bool:
        """Whether the PatientID is missing, or what de-identification writes instead of one."""
        return _is_placeholder(self.patient)

    @property
    def key(self) -> tuple[str, str]:
        """What one subject has in common: the PatientID, or the study where that is a placeholder."""
        return ("study", self.study) if self.placeholder else ("patient", self.patient)

    @property
    def identity(self) -> tuple[str, ...]:
        """What distinguishes people who share a key."""
        return self.birth, self.sex, *self.name


def person_of(tags: Tags) -> Person:
    """Who was scanned, from a header."""
    name = decoded(tags, "PatientName").split("=")[0].upper()
    birth, sex = tags.text("PatientBirthDate"), tags.text("PatientSex").upper()
    return Person(
        patient=tags.text("PatientID"),
        name=() if _is_placeholder(name) else tuple(sorted(set(re.findall(r"[^\W_]+", name)))),
        birth=birth if re.fullmatch(r"\d{8}", birth) and birth not in _NO_BIRTH_DATES else "",
        sex=sex if sex in _SEXES else "",
        study=next(filter(None, map(tags.text, ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"))), ""),
    )


def subjects_of(people: Sequence[Person]) -> list[str]:
    """The subject of each series: a hash; "" where the header has no identifier.

    - A PatientID is one subject, in however many studies.
    - With a placeholder (ANONYMOUS, 0000, ...) or no PatientID, each study is one subject.
    - Where people of different name, birth date or sex share a PatientID, each of them is one subject.

    A warning names PatientID where subjects do not simply follow from it. It quotes placeholders only.
    """
    groups: dict[tuple[str, str], list[Person]] = {}
    for person in people:
        groups.setdefault(person.key, []).append(person)
    shared = {key for key, group in groups.items() if _differ(group)}
    _warn(people, shared)
    return [_subject(person, groups[person.key] if person.key in shared else []) for person in people]


def _subject(person: Person, others: Sequence[Person]) -> str:
    """The subject of a person; `others` are all people of the same key where they are not one person."""
    kind, value = person.key
    if not value:
        return ""
    if not others:
        return f"{kind}-{_digest(value)}"
    alike = sorted({other.identity for other in others if not _different(person, other)}, reverse=True)
    ambiguous = _differ([other for other in others if other.identity in alike])
    return f"{kind}-{_digest(value, *(person.identity if ambiguous else alike[0]))}"


def _is_placeholder(text: str) -> bool:
    words = re.findall(r"[^\W_]+", text.lower())
    letters = "".join(words)
    return {letters} <= _PLACEHOLDERS or set(words) <= _PLACEHOLDERS or not letters.strip("0") or not letters.strip("x")


def _differ(group: Sequence[Person]) -> bool:
    """Whether there are different people in a group."""
    return any(_different(*pair) for pair in combinations({person.identity: person for person in group}.values(), 2))


def _different(one: Person, other: Person) -> bool:
    """Whether two headers cannot belong to one person. Missing values are compatible with all others.

    A name may change or be spelt differently, so it counts only where no birth date is known.
    """
    if one.sex and other.sex and one.sex != other.sex:
        return True
    if one.birth and other.birth:
        rounded = one.birth.endswith("0101") or other.birth.endswith("0101")  # to the year, by de-identification
        return one.birth[:4] != other.birth[:4] if rounded else one.birth != other.birth
    names = set(one.name), set(other.name)
    return all(names) and not (names[0] <= names[1] or names[1] <= names[0])


def _warn(people: Sequence[Person], shared: set[tuple[str, str]]) -> None:
    people = [person for person in people if person.study]  # the others are damaged files
    unnamed = [person for person in people if person.placeholder]
    if len({person.study for person in unnamed}) > 1:
        words = ", ".join(sorted({person.patient.strip()[:20] or "missing" for person in unnamed}))
        log.warning(
            "PatientID is a placeholder in %d series (%s): each study counts as one subject; "
            "if one person has several studies, name the subjects in a list",
            len(unnamed),
            words,
        )
    if shared:
        log.warning(
            "PatientID is the same for different people (name, birth date or sex differ) in %d series: "
            "they count as different subjects; if this is wrong, name the subjects in a list",
            sum(person.key in shared for person in people),
        )
    studies = len({person.study for person in people})
    if len({person.patient for person in people}) == 1 and not (shared or unnamed) and studies >= _MANY_STUDIES:
        log.warning(
            "PatientID is the same in all %d series of %d studies: they count as one subject; "
            "if they are different people, name the subjects in a list",
            len(people),
            studies,
        )


def _digest(*values: str) -> str:
    return sha256("\\".join(values).encode("latin-1", "backslashreplace")).hexdigest()[:12]
