"""From inputs (folders, files, lists) to candidates, in the order of the inputs and sorted below each."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from medvae.cohort import lists, offers
from medvae.cohort.choose import excluding, is_label_map, matches, without_label_maps
from medvae.cohort.names import Candidate, digest, plural, scan_id
from medvae.cohort.walk import kind_of, walk
from medvae.errors import InputError
from medvae.io.contract import formats, goes_by_name
from medvae.io.discover import format_by_name, format_of, scans_of, stem_of
from medvae.plugins import suggest
from medvae.scan import ScanRef, Selection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from medvae.cohort.lists import Row
    from medvae.cohort.names import Origin
    from medvae.cohort.walk import Kind
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)

_SERIES = "series-"  # how ids of DICOM series begin
READS = "give NIfTI (.nii, .nii.gz, .hdr/.img) or DICOM files"


@dataclass
class Found:
    """Scans so far, the files that are none, how many a glob left out and which did, and folders that were left out."""

    scans: list[Candidate] = field(default_factory=list)
    rest: list[Path] = field(default_factory=list)
    excluded: int = 0
    used: set[str] = field(default_factory=set)
    left_out: list[Path] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Take in what another place holds."""
        self.scans += other.scans
        self.rest += other.rest
        self.excluded += other.excluded
        self.used |= other.used
        self.left_out += other.left_out


def gather(selection: Selection, settings: ReadSettings) -> Found:
    """What all inputs hold.

    Raises:
        InputError: a path is not there, or a list cannot be read.
    """
    inputs = {path: _checked(path) for path in map(_path, selection.inputs)}
    named: dict[Path, list[Path]] = defaultdict(list)  # files of one folder belong together: they may be one series
    for path, kind in inputs.items():
        if kind != "folder" and not lists.is_list(path):
            named[path.parent].append(path)
    found, skipped, empty = Found(), list[Path](), list[Path]()
    places: list[list[Candidate]] = []  # the scans of folders and named files, by input
    for path, kind in inputs.items():
        if kind == "folder":
            there = _in_folder(path, selection, settings, named=inputs)
            places.append(there.scans)
            empty += [] if there.scans else [path]
        elif lists.is_list(path):
            there = _in_list(path, selection, settings, of_glob=_of_glob(path, inputs))
            skipped += there.rest
        else:
            there = _in_files(named.pop(path.parent, ()), selection, settings)
            places.append(there.scans)
            skipped += there.rest
        found.add(there)
    found.scans = _across(found.scans, places, settings)
    _warn_of_globs(found, selection)
    if found.scans:
        _warn(empty, skipped)
        found.rest = [file for file in found.rest if file not in skipped]  # they are told of
    return found


def _across(scans: list[Candidate], places: Sequence[list[Candidate]], settings: ReadSettings) -> list[Candidate]:
    """Files of one DICOM series are one scan, and people with one PatientID are told apart, as if in one folder.

    Args:
        scans: of all inputs.
        places: those of folders and named files, by input. What a list names stays as its rows say.
        settings: how files are read.
    """
    series = [[one for one in place if one.ref.id.startswith(_SERIES)] for place in places]
    in_places = Counter(name for place in series for name in {n for one in place for n in (_uid(one), one.ref.subject)})
    if max(in_places.values(), default=0) < 2:
        return scans
    files = {os.path.realpath(path): (path, one) for place in series for one in place for path in one.ref.paths}
    owners = dict(files.values())
    refs, _ = scans_of(list(owners), settings)
    again: dict[int, list[Candidate]] = defaultdict(list)  # by the candidate that has its first file
    for ref in refs:
        again[id(owners[ref.path])].append(_candidate(ref, owners[ref.path].root))
    old = {id(one) for place in series for one in place}
    return [new for one in scans for new in (again[id(one)] if id(one) in old else [one])]


def _uid(one: Candidate) -> str:
    """What the parts of a mixed series have in common in their ids."""
    return "-".join(one.ref.id.split("-")[:2])


def _warn(empty: Iterable[Path], skipped: Sequence[Path]) -> None:
    """Warn of inputs that add nothing to the others."""
    for path in empty:
        log.warning("%s: no scan in it", path)
    if skipped:
        log.warning("skipped %s without a scan (%s)", plural(len(skipped), "named file"), skipped[0].name)


def _warn_of_globs(found: Found, selection: Selection) -> None:
    """Warn of each `exclude` that leaves out nothing: the name of a folder alone is the path of no file."""
    for glob in sorted(set(selection.exclude) - found.used):
        log.warning("exclude=%s leaves out no file; to leave out a folder, write e.g. '%s/*'", glob, glob.strip("/"))


def _of_glob(path: Path, inputs: Mapping[Path, Kind]) -> bool:
    """Whether a list may have been named by a shell's glob: other things beside it are named, too."""
    beside = [kind for other, kind in inputs.items() if other.parent == path.parent and not lists.is_list(other)]
    return "file" in beside or (bool(beside) and path.suffix.lower() != ".csv")  # BIDS has no CSV beside its folders


def _path(path: Path | str) -> Path:
    return Path(os.path.expanduser(path))  # leaves `~name` where no user has that name


def _checked(path: Path) -> Kind:
    """What an input is.

    Raises:
        InputError: it is not there, or is neither a file nor a folder.
    """
    kind = kind_of(path)
    if kind == "nothing":
        hint = "give the folder, and the glob as include=" if "*" in path.name else "check the path"
        raise InputError(f"no such file or folder: {path}", hint=hint)
    if kind == "other":
        raise InputError("neither a file nor a folder", path=path, hint=READS)
    return kind


# ------------------------------------------------------------------------------------------------- folders and files


def _in_folder(path: Path, selection: Selection, settings: ReadSettings, *, named: Iterable[Path]) -> Found:
    if selection.split is not None:
        raise _no_list(path, selection)
    found = _below(path, path, selection, settings)
    offers.tell(path, found.rest, [one.ref.path for one in found.scans], named=named)
    return found


def _below(
    folder: Path, root: Path, selection: Selection, settings: ReadSettings, *, apart: Collection[str] = ()
) -> Found:
    """The scans below a folder, named from `root` on, without the files (real paths) that are kept apart."""
    tree = walk(folder, selection.include)
    broken = set(tree.broken)
    files: Sequence[Path] = [*tree.files, *tree.broken]
    if apart:
        files = [file for file in files if not (format_by_name(file) and os.path.realpath(file) in apart)]
    there = [file.relative_to(folder) for file in files]
    files = without_label_maps(files, folder, selection, settings)
    wanted = [file for file in files if matches(file.relative_to(folder), selection)]
    found = _scans([file for file in wanted if file not in broken], root, settings)
    found.scans += _unreadable([file for file in wanted if file in broken], root, beside=found.scans)
    found.excluded = len(files) - len(wanted)
    found.used = excluding(there, selection)
    found.used |= {glob for glob in selection.exclude if any(out.name in glob for out in tree.left_out)}
    found.left_out = tree.left_out
    return found


def _in_files(files: Sequence[Path], selection: Selection, settings: ReadSettings) -> Found:
    """Files of one folder that were named one by one."""
    if files and selection.split is not None:
        raise _no_list(files[0], selection)
    wanted = [file for file in files if matches(Path(file.name), selection)]
    kinds = {file: kind_of(file) for file in wanted}
    there = [file for file, kind in kinds.items() if kind == "file"]
    broken = [file for file, kind in kinds.items() if kind != "file"]
    root = wanted[0].parent if wanted else Path()
    found = _scans(there, root, settings) if wanted else Found()
    masks = [file.name for file in there if is_label_map(file.relative_to(root))]
    if 0 < len(masks) < len(found.scans):
        log.warning("%s looks like a label map, and is read as a scan because it is named; leave it out", masks[0])
    found.scans += _unreadable(broken, root, beside=found.scans)
    found.rest += [file for file in broken if _format(file) is None]
    found.excluded = len(files) - len(wanted)
    found.used = excluding([Path(file.name) for file in files], selection)
    return found


def _scans(files: Sequence[Path], root: Path, settings: ReadSettings) -> Found:
    """Files as scans, in whatever format; those that their format does not name are named after their path."""
    refs, rest = scans_of(files, settings)
    return Found([_candidate(ref, root) for ref in refs], rest)


def _candidate(ref: ScanRef, root: Path) -> Candidate:
    if not ref.id:
        return Candidate(replace(ref, id=scan_id(ref.path, root), subject=""), root)
    known: Origin = "study" if ref.subject.startswith("study-") else "patient"
    return Candidate(ref, root, "scan" if ref.subject == ref.id else known)


def _unreadable(files: Iterable[Path], root: Path, *, beside: Iterable[Candidate]) -> list[Candidate]:
    """Files that cannot be opened but are called like scans: reading says so. A DICOM folder counts once."""
    there = {(one.ref.path.parent, one.label) for one in beside}
    groups: dict[tuple[str, Path, str], list[Path]] = defaultdict(list)
    for file in files:
        name = _format(file)
        if name is not None and (file.parent, stem_of(file.name)) not in there:
            groups[name, file.parent, stem_of(file.name) if goes_by_name(formats()[name]) else ""].append(file)
    return [
        Candidate(ScanRef(_unread_id(members[0], stem, root), name, tuple(members)), root)
        for (name, _, stem), members in groups.items()
    ]


def _format(file: Path) -> str | None:
    """The format whose name a file has that cannot be opened."""
    return next((name for name, one in formats().items() if one.matches(file)), None)


def _unread_id(file: Path, stem: str, root: Path) -> str:
    """From the path for a format whose files have names; else a hash, as folders of DICOM tell who was scanned."""
    return scan_id(file, root) if stem else f"object-{digest(scan_id(file.parent, root))}"


def _no_list(path: Path, selection: Selection) -> InputError:
    there = offers.lists_in(path) if path.is_dir() else []
    hint = f"name the list {there[0]}" if there else "name the list (CSV or JSON) that has the splits"
    return InputError("only a list has splits", path=path, hint=f"{hint}, or leave split= out")


# ------------------------------------------------------------------------------------------------------------ lists


def _in_list(path: Path, selection: Selection, settings: ReadSettings, *, of_glob: bool) -> Found:
    """The scans of a list's rows; nothing where it is not a list but a sidecar that a shell's glob has named."""
    if of_glob and offers.is_sidecar(path):
        return Found(rest=[path])
    try:
        rows = lists.read(path)
    except InputError as problem:
        if not of_glob or problem.code != lists.NO_LIST:
            raise
        log.warning("skipped %s", problem)
        return Found(rest=[path])
    if selection.split is not None:
        rows = tuple(row for row in rows if lists.same_split(row.split, selection.split)) or _no_split(path, selection)
    wanted = [row for row in rows if matches(Path(row.scan), selection)]
    found = Found(excluded=len(rows) - len(wanted), used=excluding([Path(row.scan) for row in rows], selection))
    named = (text for row in wanted for text in (row.mask, row.label_map) if text)
    apart = {os.path.realpath(_place(text, path.parent)) for text in named}
    for row in wanted:
        found.scans += _row(row, path, settings, apart=apart)
    return found


def _no_split(path: Path, selection: Selection) -> tuple[Row, ...]:
    there = lists.splits(lists.read(path, warn=False))
    hint = "add a column `split` (there is none), or leave split= out"
    hint = suggest(selection.split or "", there) if there else hint
    raise InputError(f"no row is of split {selection.split!r}", path=path, hint=hint)


def _row(row: Row, path: Path, settings: ReadSettings, *, apart: Collection[str]) -> list[Candidate]:
    """The scan of a row, or the scans where it names a folder, whose masks and label maps (`apart`) are none."""
    scan = _beside(row.scan, row, path)
    kind = kind_of(scan)
    found = Found()
    if kind == "folder":
        found = _below(scan, path.parent, Selection(()), settings, apart=apart)
    elif kind == "file":
        found = _scans([scan], path.parent, settings)
    if not found.scans:  # not there, or not what it should be: reading says what is wrong
        found.scans = [Candidate(ScanRef(scan_id(scan, path.parent), format_of(scan), (scan,)), path.parent)]
    said = {name: getattr(row, name) for name in ("subject", "label", "modality", "split", "conditions")}
    said |= {name: _beside(text, row, path) for name in ("label_map", "mask") if (text := getattr(row, name))}
    said = {name: value for name, value in said.items() if value is not None}
    said |= {"subject_given": True} if "subject" in said else {}
    scans = [replace(one, ref=replace(one.ref, **said)) for one in found.scans]
    return [replace(one, origin="list") for one in scans] if "subject" in said else scans


def _beside(text: str, row: Row, path: Path) -> Path:
    named = _place(text, path.parent)
    if kind_of(named) == "other":
        raise InputError(f"{row.where}: {named.name} is neither a file nor a folder", path=path, hint=READS)
    return named


def _place(text: str, folder: Path) -> Path:
    """What a list in `folder` names: from there, or from `~`.

    A list from Windows may have `\\` in it, and one of another system may compose letters such as `ü` otherwise.
    """
    plain = text.replace("\\", "/")
    ways = (text, plain, os.path.expanduser(plain), normalize("NFC", plain), normalize("NFD", plain))
    return next((folder / way for way in ways if kind_of(folder / way) != "nothing"), folder / plain)
