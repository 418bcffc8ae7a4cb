"""From files, whatever their names, to series: files of one SeriesInstanceUID and kind are one scan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from medvae.errors import ScanError
from medvae.io.dicom.frames import image_of, kind_of
from medvae.io.dicom.header import SUFFIXES, read_header
from medvae.io.dicom.mixture import split
from medvae.io.dicom.subjects import Person, person_of, subjects_of
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from medvae.io.dicom.frames import Frame, Image
    from medvae.io.dicom.header import Header

_Key = tuple[str, str]  # series and kind
_Part = tuple[str, list[bool]]  # in words, and for each frame of the series whether it belongs to it


@dataclass(frozen=True)
class _Member:
    """A file of a series; with its header where the series may have to be split."""

    path: Path
    key: _Key
    person: Person
    header: Header | None = None


def find_series(files: Iterable[Path], *, split_mixed: bool) -> tuple[list[ScanRef], list[Path]]:
    """The series among files, from their headers, and the files that are no DICOM.

    Args:
        files: regular files.
        split_mixed: each part of a mixed series is a scan.

    Returns:
        Scans in the order of their first files, and the other files, both sorted.
    """
    groups: dict[_Key, list[_Member]] = {}
    others = []
    for path in sorted(files):
        member = _look(path, keep=split_mixed)
        if member is None:
            others.append(path)
        else:
            groups.setdefault(member.key, []).append(member)
    found = [
        (ref, _person(ref, members))
        for key, members in groups.items()
        for ref in _refs(key, members, split_mixed=split_mixed and not key[1])
    ]
    subjects = subjects_of([person for _, person in found])
    return [replace(ref, subject=subject or ref.id) for (ref, _), subject in zip(found, subjects, strict=True)], others


def _look(path: Path, *, keep: bool) -> _Member | None:
    """What a file is part of, None if it is not DICOM; with its header if that is to be kept."""
    try:
        return _identify(path, keep=keep)
    except OSError:  # reading it raises the error again
        return _Member(path, ("", f"unreadable {path}"), Person())


def _identify(path: Path, *, keep: bool) -> _Member | None:
    try:
        header = read_header(path)
    except ScanError as problem:
        if problem.code == "not_a_scan" and not path.name.lower().endswith(SUFFIXES):
            return None
        return _Member(path, ("", _content(path)), Person())
    tags = header.tags
    if series := tags.text("SeriesInstanceUID"):
        key = series, "" if header.problem else kind_of(header)
    else:
        key = "", tags.text("SOPInstanceUID") or _content(path)
    return _Member(path, key, person_of(tags), header if keep else None)


def _person(ref: ScanRef, members: Sequence[_Member]) -> Person:
    """Who was scanned, from the first file of a scan that has a PatientID."""
    paths = set(ref.paths)
    people = [member.person for member in members if member.path in paths]
    return next((person for person in people if person.patient), people[0])


def _refs(key: _Key, members: Sequence[_Member], *, split_mixed: bool) -> list[ScanRef]:
    """The scans of files with one key."""
    name = f"series-{_digest(''.join(key))}" if key[0] else f"object-{_digest(key[1])}"
    whole = ScanRef(name, "dicom", tuple(member.path for member in members))
    if not split_mixed:
        return [whole]
    try:
        images = [image_of(member.header) for member in members if member.header]
    except ScanError:  # reading it raises the error again
        return [whole]
    if any(not image.frames for image in images):  # nothing says which part it belongs to: reading the whole refuses it
        return [whole]
    parts = _parts(images)
    if len(parts) < 2:
        return [whole]
    paths = [frame.path for image in images for frame in image.frames]
    return [_part(whole, number, part, paths=paths) for number, part in enumerate(parts, start=1)]


def _parts(images: Sequence[Image]) -> list[_Part]:
    """The parts of a series; copies of a frame are in the part that it is in."""
    kinds: list[tuple[object, ...]] = []
    first: dict[tuple[object, ...], Frame] = {}
    for image in images:
        for frame in image.frames:
            uid = image.header.tags.text("SOPInstanceUID") or str(frame.path)
            kinds.append((uid, frame.number, frame.position, *frame.traits.values()))
            first.setdefault(kinds[-1], frame)
    names = list(first)
    parts = [(part.words, {names[member] for member in part.members}) for part in split(list(first.values()))]
    return [(", ".join(words), [kind in members for kind in kinds]) for words, members in parts]


def _part(whole: ScanRef, number: int, part: _Part, *, paths: Sequence[Path]) -> ScanRef:
    """One part of a series: the files that have frames of it, and which of their frames they are."""
    words, inside = part
    files = {path for path, is_inside in zip(paths, inside, strict=True) if is_inside}
    chosen = [is_inside for path, is_inside in zip(paths, inside, strict=True) if path in files]
    return replace(
        whole,
        id=f"{whole.id}-{number}",
        paths=tuple(path for path in whole.paths if path in files),
        part=words,
        frames=() if all(chosen) else tuple(index for index, is_chosen in enumerate(chosen) if is_chosen),
    )


def _content(path: Path) -> str:
    """A hash of the content, for files without any other identifier."""
    digest = sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
