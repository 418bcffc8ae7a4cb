"""From folders, files and lists to scans in a fixed order; nothing is read but names and, for DICOM, headers.

- A folder is walked, sorted. Hidden files, what is still being written, links that lead out of the folder, and folders
  that a run of medvae wrote are left out. So are files that a name like `mask`, `label` or `seg`, or a folder `labels`,
  says to be label maps, unless `include` is given or nothing else is there.
- A list (`medvae.lists`) tells label maps, masks and subjects apart by its columns. What a row names is a scan even if
  its file is not there: it ends as `unreadable`.
- `include` and `exclude` are globs as in `fnmatch`, in which `*` crosses folders too. They are compared with the file's
  name and with its path below the folder or list.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from medvae.cohort import lists
from medvae.errors import InputError, ScanError
from medvae.io import discover, reading
from medvae.io.formats import nifti
from medvae.plugins import suggest
from medvae.scan import ScanRef, Selection
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medvae.cohort.lists import Row
    from medvae.scan import Scan

log = logging.getLogger(__name__)

_READS = "medvae reads NIfTI (.nii, .nii.gz, .hdr/.img) and DICOM"
_LABEL_MAP = re.compile(r"mask\b|\b(labels?|labelmap|dseg|seg|segmentation)\b")
_LABEL_FOLDERS = {"labels", "labelstr", "labelsts", "masks", "segmentations"}
_LONGEST_ID = 120


@dataclass(frozen=True)
class Cohort:
    """What was found.

    Attributes:
        refs: the scans, in the order of the inputs and sorted below each; no two have the same id or files.
        ignored: how many files are no scans: neither NIfTI nor DICOM.
    """

    refs: tuple[ScanRef, ...]
    ignored: int


def find(selection: Selection, settings: ReadSettings) -> Cohort:
    """All scans of a selection.

    The id of a NIfTI file is its path below the input (a list's folder, for a list), of a DICOM series a hash of its
    UID. Where two would be the same, both get a suffix made from their paths.

    Raises:
        InputError: a path is not there, a list cannot be read, or there is no scan at all.
    """
    found = _Found()
    empty = []
    for path in selection.inputs:
        there = _look(path, selection, settings)
        found.add(there)
        empty += [] if there.refs else [path]
    if not found.refs:
        raise _nothing(found, selection)
    for path in empty:
        log.warning("%s: no scan in it", path)
    refs = _named(_once(found.refs), hashed=selection.hash_ids)
    return Cohort(tuple(refs), len(found.rest))


def read(path: Path | str, settings: ReadSettings | None = None) -> Scan:
    """Read the one scan that is at `path`: a NIfTI file, a DICOM file, or the folder of a DICOM series.

    Raises:
        InputError: there is none, or more than one.
        ScanError: it cannot be used; the code says why.
    """
    settings = settings or ReadSettings()
    refs = find(Selection((Path(path),)), settings).refs
    if len(refs) == 1:
        return reading.read(refs[0], settings)
    usable = []
    for ref in refs:
        try:
            reading.inspect(ref, settings)
        except ScanError:
            continue
        usable.append(ref)
    if len(usable) != 1:
        message = f"{len(refs)} scans, {len(usable)} of them usable"
        raise InputError(message, path=path, hint="name one file or series; `medvae info` lists them")
    return reading.read(usable[0], settings)


# ------------------------------------------------------------------------------------------------- what lies where


@dataclass
class _Found:
    """Scans so far, the files that are none, and how many were left out by a glob."""

    refs: list[ScanRef] = field(default_factory=list)
    rest: list[Path] = field(default_factory=list)
    excluded: int = 0

    def add(self, other: _Found) -> None:
        self.refs += other.refs
        self.rest += other.rest
        self.excluded += other.excluded


def _look(path: Path, selection: Selection, settings: ReadSettings) -> _Found:
    """What one input holds."""
    if not path.exists():
        raise InputError("there is nothing of this name", path=path, hint=f"check the path {path}")
    if lists.is_list(path) and path.is_file():
        return _listed(path, selection, settings)
    if selection.split is not None:
        hint = "name the list (CSV or JSON) that has the splits, or leave --split out"
        raise InputError("only a list has splits", path=path, hint=hint)
    if path.is_dir():
        files, root = _left_in(_walk(path), path, selection), path
    elif path.is_file():
        files, root = [path], path.parent
    else:
        raise InputError("neither a file nor a folder", path=path, hint=_READS)
    wanted = [file for file in files if _matches(file.relative_to(root), selection)]
    found = _scans(wanted, root, settings)
    found.excluded = len(files) - len(wanted)
    return found


def _walk(folder: Path) -> list[Path]:
    """Regular files below a folder, sorted; no hidden ones, no links out of it, nothing that medvae wrote."""
    files, links = [], []
    root = folder.resolve()
    for place, folders, names in os.walk(folder, onerror=_cannot_list):
        here = Path(place)
        links += [name for name in folders if _leads_out(here / name, root)]
        folders[:] = sorted(name for name in folders if name[0] != "." and not _is_output(here / name))
        for name in sorted(names):
            path = here / name
            if name[0] == "." or not path.is_file():  # also what is still being written: PARTIAL begins with a dot
                continue
            if _leads_out(path, root):
                links.append(name)
            else:
                files.append(path)
    if links:
        log.warning("%d links lead out of the folder (%s) and are left out", len(links), links[0])
    return files


def _leads_out(path: Path, root: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(root)


def _cannot_list(problem: OSError) -> None:
    log.warning("%s: the folder cannot be listed: %s", Path(problem.filename).name, problem.strerror)


def _is_output(folder: Path) -> bool:
    """Whether a run of medvae wrote it: its maps and synthetic scans are no input unless they are named."""
    written = (folder / "run.json").is_file() and (folder / "manifest.jsonl").is_file()
    if written:
        log.warning("%s: a folder that medvae wrote is left out; name it to take its scans", folder.name)
    return written


def _left_in(files: list[Path], root: Path, selection: Selection) -> list[Path]:
    """Without the files whose names say that they are label maps."""
    if selection.include:
        return files
    scans = [file for file in files if not _is_label_map(file.relative_to(root))]
    maps = len(files) - len(scans)
    if not maps or not any(nifti.matches(file) for file in scans):
        return files
    example = next(file for file in files if file not in set(scans)).relative_to(root)
    log.warning("%d files are label maps by their names (%s) and left out; --include takes them", maps, example)
    return scans


def _is_label_map(path: Path) -> bool:
    if not nifti.matches(path):
        return False
    words = re.sub(r"[^a-z]+", " ", _stem(path.name).lower())
    return bool(_LABEL_MAP.search(words)) or path.parent.name.lower() in _LABEL_FOLDERS


def _matches(path: Path, selection: Selection) -> bool:
    def one_of(globs: Iterable[str]) -> bool:
        return any(fnmatchcase(text, glob) for glob in globs for text in (path.as_posix(), path.name))

    return (not selection.include or one_of(selection.include)) and not one_of(selection.exclude)


def _scans(files: Sequence[Path], root: Path, settings: ReadSettings) -> _Found:
    """Files as scans, in whatever format; those that their format does not name are named after their path."""
    refs, rest = discover.scans_of(files, settings)
    named = [ref if ref.id else replace(ref, id=_id(ref.path, root), subject=_subject(ref.path, root)) for ref in refs]
    return _Found(named, rest)


# ------------------------------------------------------------------------------------------------------------ lists


def _listed(path: Path, selection: Selection, settings: ReadSettings) -> _Found:
    """The scans of a list's rows."""
    rows = lists.read(path)
    if selection.split is not None:
        rows = tuple(row for row in rows if lists.same_split(row.split, selection.split)) or _no_split(path, selection)
    wanted = [row for row in rows if _matches(Path(row.scan), selection)]
    found = _Found(excluded=len(rows) - len(wanted))
    for row in wanted:
        found.add(_row(row, path, settings))
    return found


def _no_split(path: Path, selection: Selection) -> tuple[Row, ...]:
    there = lists.splits(lists.read(path))
    hint = suggest(selection.split or "", there) if there else "it has no column `split`"
    raise InputError(f"no row is of split {selection.split!r}", path=path, hint=hint)


def _row(row: Row, path: Path, settings: ReadSettings) -> _Found:
    """The scan of a row, or the scans where it names a folder."""
    scan = _beside(row.scan, row, path)
    files = _left_in(_walk(scan), scan, Selection(())) if scan.is_dir() else [scan] if scan.is_file() else []
    refs = _scans(files, path.parent, settings).refs
    if not refs:  # not there, or not what it should be: reading says what is wrong
        refs = [ScanRef(_id(scan, path.parent), "nifti" if nifti.matches(scan) else "dicom", (scan,))]
    said = {name: getattr(row, name) for name in ("subject", "label", "modality", "split")}
    said |= {name: _beside(text, row, path) for name in ("label_map", "mask") if (text := getattr(row, name))}
    said = {name: value for name, value in said.items() if value is not None}
    return _Found([replace(ref, **said) for ref in refs])


def _beside(text: str, row: Row, path: Path) -> Path:
    """A path in a list is relative to the list."""
    named = path.parent / text
    if named.exists() and not (named.is_file() or named.is_dir()):
        raise InputError(f"{row.where}: {named.name} is neither a file nor a folder", path=path, hint=_READS)
    return named


# ------------------------------------------------------------------------------------------------------------ names


def _id(file: Path, root: Path) -> str:
    """The path below `root`, as one name that is safe on every file system."""
    parts = [part for part in Path(os.path.relpath(file, root)).parts if part != ".."]
    text = normalize("NFC", "_".join([*parts[:-1], _stem(parts[-1])]))
    name = re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "scan"
    return name if len(name.encode()) <= _LONGEST_ID else f"{name[: _LONGEST_ID // 4]}-{_digest(name)}"


def _stem(name: str) -> str:
    """A file's name without the suffixes of NIfTI."""
    return re.sub(r"\.(nii|hdr|img)(\.gz)?$", "", name, flags=re.IGNORECASE)


def _subject(file: Path, root: Path) -> str:
    """The subject of a BIDS path, e.g. `sub-01`, in all its sessions; empty where there is none."""
    parts = Path(os.path.relpath(file, root)).parts
    return next((match.group() for part in parts if (match := re.match(r"sub-[A-Za-z0-9]+", part))), "")


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _once(refs: Iterable[ScanRef]) -> list[ScanRef]:
    """Every scan once, though it may be named twice.

    Raises:
        InputError: the two disagree on what it is.
    """
    seen: dict[tuple[object, ...], ScanRef] = {}
    for ref in refs:  # two parts of a mixed series may lie in the same files
        first = seen.setdefault((ref.frames, *map(os.path.realpath, ref.paths)), ref)
        if _said(first) != _said(ref):
            hint = "name it once, or with the same subject, label, masks and split"
            raise InputError("the scan is there twice, with other entries", path=ref.path, hint=hint)
    return list(seen.values())


def _said(ref: ScanRef) -> tuple[object, ...]:
    subject = None if ref.subject == ref.id else ref.subject
    return subject, ref.label, ref.label_map, ref.mask, ref.modality, ref.split


def _named(refs: Sequence[ScanRef], *, hashed: bool) -> list[ScanRef]:
    """Unique ids: hashes if asked for, a suffix where two are the same on a disk that knows no capitals."""
    if hashed:
        refs = [_hashed(ref) for ref in refs]
    count = Counter(ref.id.lower() for ref in refs)
    return [_renamed(ref, f"{ref.id}-{_suffix(ref)}") if count[ref.id.lower()] > 1 else ref for ref in refs]


def _suffix(ref: ScanRef) -> str:
    """Of the path as it was named, so that it depends on no other scan, nor on the order."""
    return _digest(ref.path.as_posix())[:6]


def _hashed(ref: ScanRef) -> ScanRef:
    own = ref.subject == ref.id
    new = ref if ref.format == "dicom" else _renamed(ref, _digest(ref.id))  # the id of a DICOM series is a hash already
    return new if own else replace(new, subject=_digest(ref.subject))


def _renamed(ref: ScanRef, name: str) -> ScanRef:
    """With another id; a scan whose subject was its id stays its own subject."""
    return replace(ref, id=name, subject=name if ref.subject == ref.id else ref.subject)


def _nothing(found: _Found, selection: Selection) -> InputError:
    """Why there is no scan at all."""
    path = selection.inputs[0] if len(selection.inputs) == 1 else None
    if found.excluded:
        message = f"--include and --exclude leave none of the {found.excluded} files"
        return InputError(message, path=path, hint="a glob is compared with a file's name and its path below the input")
    if not found.rest:
        return InputError("no files in it", path=path, hint=f"check the path; {_READS}")
    kinds = Counter(file.suffix.lower() or "without suffix" for file in found.rest).most_common(3)
    files = "1 file" if len(found.rest) == 1 else f"{len(found.rest)} files"
    return InputError(f"no scan in {files} ({', '.join(f'{n} {kind}' for kind, n in kinds)})", path=path, hint=_READS)
