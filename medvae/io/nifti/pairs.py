"""NIfTI in two files: which `.hdr` and `.img` belong together, whatever the capitals of their suffixes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"(.+)\.(hdr|img)(\.gz)?", re.IGNORECASE)


class _Half(NamedTuple):
    """The parts of a name: `scan`, `hdr`, `.gz`, in the file's own capitals."""

    stem: str
    suffix: str
    zipped: str


def half_of(path: Path) -> Literal["hdr", "img"] | None:
    """Which half of a pair the name says it is; None for a single file."""
    half = _parse(path.name)
    return cast('Literal["hdr", "img"]', half.suffix.lower()) if half else None


def pair_of(path: Path) -> tuple[Path, ...]:
    """Header and image file, in this order; the file alone where it is not a half, or the other half is missing."""
    half = _parse(path.name)
    if half is None:
        return (path,)
    other = _partner(path, half)
    if other is None:
        return (path,)
    return (path, other) if half_of(path) == "hdr" else (other, path)


def _parse(name: str) -> _Half | None:
    match = _NAME.fullmatch(name)
    return _Half(match[1], match[2], match[3] or "") if match else None


def _partner(path: Path, half: _Half) -> Path | None:
    """The other half: with the same capitals if it is there, else with any; zipped like this one if there are both."""
    other = "img" if half.suffix.lower() == "hdr" else "hdr"
    other = other.upper() if half.suffix.isupper() else other
    ends = dict.fromkeys((half.zipped, ".gz", ""))
    exact = (path.with_name(f"{half.stem}.{other}{end}") for end in ends)
    return next((one for one in exact if one.is_file()), None) or _in_other_capitals(path, half)


def _in_other_capitals(path: Path, half: _Half) -> Path | None:
    """`SCAN.Hdr` with `scan.IMG`, as archives from Windows have it; None where several files could be meant."""
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return None
    beside = [one for name in names if (one := _parse(name)) and one.stem.lower() == half.stem.lower()]
    mine = [one for one in beside if one.suffix.lower() == half.suffix.lower()]
    others = [one for one in beside if one.suffix.lower() != half.suffix.lower()]
    same_stem = [one for one in others if one.stem == half.stem]
    if not same_stem and len({one.stem for one in mine}) > 1:  # A.hdr is no half of a.img if there is an a.hdr
        return None
    likely = sorted(same_stem or others, key=lambda one: one.zipped.lower() != half.zipped.lower())
    found = (path.with_name(f"{one.stem}.{one.suffix}{one.zipped}") for one in likely)
    return next((one for one in found if one.is_file()), None)
