"""Ids of scans: safe as file names, unique within a run, and the same in every run."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from unicodedata import normalize

from medvae.io.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.scan import ScanRef

Origin = Literal["list", "patient", "study", "bids", "scan"]
_LONGEST_ID = 120


@dataclass(frozen=True)
class Candidate:
    """A scan that was found, before ids are unique and subjects are known.

    Attributes:
        ref: the scan.
        root: folder of the input that it was found in; ids and BIDS names count from here.
        origin: how its subject is known: from a list, as a DICOM patient or study, from its BIDS name, or not at all
            ("scan").
    """

    ref: ScanRef
    root: Path
    origin: Origin = "scan"

    @property
    def label(self) -> str:
        """The name of its file without the suffix; "" for DICOM, whose file names say nothing."""
        return "" if self.ref.format == "dicom" else stem_of(self.ref.path.name)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders above it, from the input's own folder down, absolute."""
        return _folders(os.path.abspath(self.ref.path.parent), os.path.abspath(self.root))


@lru_cache(maxsize=10_000)  # asked for several times per scan, and the same for all scans of a folder
def _folders(inner: str, outer: str) -> tuple[Path, ...]:
    below = [part for part in os.path.relpath(inner, outer).split(os.sep) if part not in ("..", ".")]
    above = (Path(inner), *Path(inner).parents)
    return tuple(reversed(above[: len(below) + 1]))


def scan_id(file: Path, root: Path) -> str:
    """The path below `root`, as one name that is safe on every file system."""
    parts = [part for part in Path(os.path.relpath(file, root)).parts if part != ".."]
    text = normalize("NFC", "_".join([*parts[:-1], stem_of(parts[-1])]))
    name = re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "scan"
    return name if len(name.encode()) <= _LONGEST_ID else f"{name[: _LONGEST_ID // 4]}-{digest(name)}"


def digest(text: str, length: int = 12) -> str:
    """The first hexadecimal digits of the SHA-256 of a text."""
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:length]


def spelling(subject: str) -> str:
    """The same for all ways to write a subject: `sub-001`, `001`, `1` and `1.0` (a spreadsheet), `P7` and `p7`."""
    text = normalize("NFC", subject).strip().casefold().removeprefix("sub-")
    number = re.fullmatch(r"0*([0-9]+)(\.0+)?", text)
    return number[1] if number else text


def both_forms(*subjects: str) -> frozenset[str]:
    """Subjects in any spelling, and as `hash_ids` writes them: those of two runs are one if they share a form."""
    plain = frozenset(subjects) | {spelling(one) for one in subjects}
    return plain | {digest(one) for one in plain}


def unique(found: Sequence[Candidate], *, hashed: bool) -> list[ScanRef]:
    """The scans with unique ids: hashes if asked for, a suffix where two are the same on a disk that ignores case.

    The suffix comes from the scan's own path, so that it depends neither on the order of the scans nor on the way in
    which the input was named.
    """
    named = [_hashed(one.ref) if hashed else one.ref for one in found]
    places = _places(found, named)
    for length in (6, 12, 64):  # six digits are enough but once in a million pairs
        count = Counter(ref.id.lower() for ref in named)
        if max(count.values(), default=1) == 1:
            break
        named = [
            ref.with_id(f"{ref.id}-{digest(place, length)}") if count[ref.id.lower()] > 1 else ref
            for ref, place in zip(named, places, strict=True)
        ]
    return named


def _places(found: Sequence[Candidate], named: Sequence[ScanRef]) -> list[str]:
    """The path of each scan below its input; the absolute one where two scans have the same id and path below it."""
    paths = [os.path.abspath(one.ref.path) for one in found]
    below = [os.path.relpath(path, one.root) for one, path in zip(found, paths, strict=True)]
    count = Counter((ref.id.lower(), place) for ref, place in zip(named, below, strict=True))
    places = [
        place if count[ref.id.lower(), place] == 1 else path
        for ref, place, path in zip(named, below, paths, strict=True)
    ]
    return [Path(place).as_posix() for place in places]


def _hashed(ref: ScanRef) -> ScanRef:
    own = ref.subject == ref.id and not ref.subject_given
    new = ref if ref.format == "dicom" else ref.with_id(digest(ref.id))  # the id of a DICOM series is a hash already
    return new if own else replace(new, subject=digest(ref.subject))


def entries(one: Candidate) -> tuple[object, ...]:
    """What a list says about a scan, None where nothing does."""
    ref, subject = one.ref, one.ref.subject if one.origin == "list" else None
    return subject, ref.label, ref.label_map, ref.mask, ref.modality, ref.split, dict(ref.conditions)


def says_nothing(one: Candidate) -> bool:
    """Whether no list says anything of a scan."""
    return not any(entries(one))


def plural(count: int, noun: str) -> str:
    """`1 scan`, `2 scans`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
