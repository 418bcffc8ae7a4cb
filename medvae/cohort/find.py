"""From folders, files and lists to scans in a fixed order; nothing is read but names, lists and DICOM headers.

- A folder is walked (`medvae.cohort.walk`). Files that a name like `mask`, `label` or `seg`, or a folder `labels`, says
  to be label maps are left out, unless `include` is given or nothing else is there.
- A list (`medvae.cohort.lists`) tells label maps, masks, subjects and conditions by its columns. What a row names is a
  scan even if its file is not there: it ends as `unreadable`. So does a link to nothing that is called like a scan.
- Files that are named one by one may come from a shell's glob: those that are not scans are left out.
- `include` and `exclude` are globs as in `fnmatch`, in which `*` crosses folders too. They are compared with the file's
  name and with its path below the folder or list.

Voxels are read only where two files may hold the same scan (`medvae.cohort.twins`).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from medvae.cohort import doubts, participants, subjects, twins
from medvae.cohort.gather import READS, Found, gather
from medvae.cohort.names import Candidate, entries, plural, says_nothing, unique
from medvae.errors import InputError, SettingsError
from medvae.scan import ScanRef, Selection
from medvae.settings import ReadSettings, Settings

if TYPE_CHECKING:
    from medvae.cohort.names import Origin

Wanted = Selection | Path | str | ScanRef
log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Cohort(Sequence[ScanRef]):
    """The scans that were found: a sequence of `ScanRef`, in the order of the inputs and sorted below each.

    No two have the same id or files.

    Attributes:
        refs: the scans.
        ignored: how many files are in no format that medvae reads, except those that were named one by one, which
            cause a warning.
        origins: per scan, how its subject is known: "list", "patient" (the PatientID of DICOM), "study" (of DICOM
            without a usable PatientID), "bids" (the names of BIDS), or "scan": nothing says who was scanned, and the
            scan is a subject of its own.
    """

    refs: tuple[ScanRef, ...]
    ignored: int = 0
    origins: tuple[Origin, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Who was scanned, everyone once, in the order of the scans."""
        return tuple(dict.fromkeys(ref.subject for ref in self.refs))

    def __len__(self) -> int:
        return len(self.refs)

    @overload
    def __getitem__(self, index: int) -> ScanRef: ...

    @overload
    def __getitem__(self, index: slice) -> Cohort: ...

    def __getitem__(self, index: int | slice) -> ScanRef | Cohort:
        if isinstance(index, slice):
            return Cohort(self.refs[index], origins=self.origins[index])
        return self.refs[index]

    def __repr__(self) -> str:
        return f"Cohort({plural(len(self), 'scan')} of {plural(len(self.subjects), 'subject')})"


def find(what: Wanted | Iterable[Wanted], settings: ReadSettings | Settings | None = None) -> Cohort:
    """All scans of folders, files, lists or a selection.

    The id of a NIfTI file is its path below the input (a list's folder, for a list), of a DICOM series a hash of its
    UID. Where two would be the same, both get a suffix made from their paths
    (below the input, unless these are the same, too).

    Args:
        what: a path, a `Selection`, a `ScanRef`, a `Cohort`, or several paths and scans.
        settings: how files are read.

    Raises:
        InputError: a path is not there, a list cannot be read, or there is no scan at all.

    Example:
        >>> cohort = medvae.find("scans")
        >>> all(ref.subject in cohort.subjects for ref in cohort)
        True
    """
    if isinstance(what, Cohort):
        return what
    selection, given = _understood(what)
    options = read_settings(settings)
    found = gather(selection, options) if selection.inputs else Found()
    once = _once([*found.scans, *given])
    if not once:
        raise _nothing(found, selection)
    scans = twins.without(participants.join(subjects.guess(once)), options, said=[entries(one) for one in once])
    doubts.tell(scans)
    refs = unique(scans, hashed=selection.hash_ids)
    return Cohort(tuple(refs), len(found.rest), tuple(one.origin for one in scans))


def read_settings(settings: object) -> ReadSettings:
    """The settings for reading, whichever a caller has.

    Raises:
        SettingsError: it is something else, e.g. the name of a preset.
    """
    if settings is None:
        return ReadSettings()
    if isinstance(settings, Settings):
        return settings.read
    if isinstance(settings, ReadSettings):
        return settings
    hint = "pass what medvae.load_settings returns"
    raise SettingsError(f"settings are needed, not {type(settings).__name__} {settings!r}", hint=hint)


def _understood(what: Wanted | Iterable[Wanted]) -> tuple[Selection, list[Candidate]]:
    """Where to look, and the scans that were given themselves."""
    if isinstance(what, Selection):
        return what, []
    one = isinstance(what, str | Path | ScanRef) or not isinstance(what, Iterable)
    several: list[object] = [what] if one else list(cast("Iterable[object]", what))
    wrong = [type(one).__name__ for one in several if not isinstance(one, str | Path | ScanRef)]
    if wrong:
        message = f"scans are found from paths, ScanRefs or a Selection, not from {wrong[0]}"
        raise InputError(message, hint="save an image in memory with medvae.write first, and give its path")
    paths = tuple(Path(one) for one in several if isinstance(one, str | Path))
    return Selection(paths), [Candidate(one, one.path.parent, "list") for one in several if isinstance(one, ScanRef)]


def _once(found: Iterable[Candidate]) -> list[Candidate]:
    """Every scan once, though it may be named twice; what a list says about it wins over what says nothing.

    Raises:
        InputError: two lists or rows disagree on what it is.
    """
    seen: dict[tuple[object, ...], Candidate] = {}
    for one in found:  # two parts of a mixed series may lie in the same files
        key = (one.ref.frames, *map(_file, one.ref.paths))
        first = seen.setdefault(key, one)
        if first is one:
            continue
        if os.path.abspath(first.ref.path) != os.path.abspath(one.ref.path):
            log.warning("%s and %s are the same file: it is used once", first.ref.id, one.ref.id)
        if says_nothing(one):
            continue
        if says_nothing(first):
            seen[key] = one
        elif entries(first) != entries(one):
            hint = "name it once, or with the same subject, label, masks, split and conditions"
            raise InputError("the scan is listed twice, with different entries", path=one.ref.path, hint=hint)
    return list(seen.values())


def _file(path: Path) -> object:
    """The same for all names of a file: links to it, and hard links."""
    try:
        there = path.stat()
    except OSError:  # reading says what is wrong
        return os.path.realpath(path)
    return (there.st_dev, there.st_ino) if there.st_nlink > 1 and there.st_ino else os.path.realpath(path)


def _nothing(found: Found, selection: Selection) -> InputError:
    """Why there is no scan at all."""
    path = selection.inputs[0] if len(selection.inputs) == 1 else None
    if found.excluded:
        message = f"include= and exclude= leave none of the {found.excluded} files"
        hint = "correct the glob: it is compared with a file's name and path below the input"
        return InputError(message, path=path, hint=hint)
    if found.left_out:
        names = ", ".join(sorted({folder.name for folder in found.left_out}))
        return InputError(f"no scan except in {names}", path=path, hint=f"name one of them, e.g. {found.left_out[0]}")
    if not found.rest:
        return InputError("no files in it", path=path, hint=f"check the path; {READS}")
    kinds = Counter(Path(file).suffix.lower() or "without suffix" for file in found.rest)
    sheets = {".xlsx", ".xls", ".ods"} & set(kinds)
    hint = f"save the {sheets.pop()} file as CSV to use it as a list" if sheets else READS
    shown = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
    return InputError(f"no scan in {plural(len(found.rest), 'file')} ({shown})", path=path, hint=hint)
