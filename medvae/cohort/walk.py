"""What lies below a folder: files behind links too, in a fixed order, without what is not input unless it is named.

Links are followed wherever they lead, as DataLad, git-annex and the scratch disks of clusters need it; a link to a
folder that the link itself lies in is left out. So are hidden files, folders that a run of medvae wrote, and the
folders of a BIDS dataset that hold no raw scans.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

Kind = Literal["file", "folder", "broken", "other", "nothing"]
_NOT_RAW = ("derivatives", "sourcedata", "code", "stimuli")  # beside the subjects of a BIDS dataset
_HOLD_SCANS = {"derivatives", "sourcedata"}


@dataclass
class Tree:
    """What was found below a folder.

    Attributes:
        files: regular files, those behind links included.
        broken: names that cannot be opened: links to nothing, files of a folder that may not be entered.
        left_out: folders of a BIDS dataset that hold no raw scans.
    """

    files: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Start:
    """A folder to be walked: its name, where it really lies, and where the folders lie through which we came."""

    folder: Path
    real: str
    chain: tuple[str, ...] = ()


def kind_of(path: Path) -> Kind:
    """What a name leads to; "broken" is a link to nothing, or what the system does not let us see."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "broken" if os.path.islink(path) else "nothing"
    except OSError:
        return "broken"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def walk(folder: Path, include: Iterable[str] = ()) -> Tree:
    """Everything below `folder`, sorted: first what really lies there, then what lies behind links to folders.

    Args:
        folder: where to begin; it is walked whatever it is.
        include: globs; a folder of a BIDS dataset that one of them names is not left out.
    """
    tree, seen, globs = Tree(), set[str](), tuple(include)
    todo = [_Start(folder, os.path.realpath(folder))]
    while todo:
        start = todo.pop(0)
        if start.real not in seen:
            todo += _walk_one(start, tree, seen, globs=globs)
    return tree


def _walk_one(start: _Start, tree: Tree, seen: set[str], *, globs: Sequence[str]) -> list[_Start]:
    """Walk the real folders below one; returns the links to folders that were met."""
    links: list[_Start] = []
    for place, folders, names in os.walk(start.folder, onerror=_cannot_list):
        here = Path(place)
        real = os.path.normpath(os.path.join(start.real, os.path.relpath(place, start.folder)))
        if real in seen:  # reached through a link before
            folders[:] = []
            continue
        seen.add(real)
        left_out = _not_raw(here, folders, names, globs=globs)
        tree.left_out += [here / name for name in left_out]
        wanted = [name for name in sorted(folders) if name not in left_out and _is_wanted(here / name)]
        links += [link for name in wanted if (link := _link(here / name, real, start.chain)) is not None]
        folders[:] = [name for name in wanted if not os.path.islink(here / name)]
        _sort_in(here, [name for name in sorted(names) if name[0] != "."], tree)
    return links


def _sort_in(here: Path, names: Iterable[str], tree: Tree) -> None:
    """The files of one folder. One warning says that they cannot be opened."""
    denied = 0
    for name in names:  # what is still being written is not among them: its name begins with a dot
        kind = kind_of(here / name)
        if kind == "file":
            tree.files.append(here / name)
        elif kind == "broken":
            tree.broken.append(here / name)
            denied += not os.path.islink(here / name)
    if denied:
        files = "1 file" if denied == 1 else f"{denied} files"
        log.warning(
            "%s: the folder can be listed but not entered, %s cannot be opened; check its permissions", here.name, files
        )


def _link(path: Path, real: str, chain: tuple[str, ...]) -> _Start | None:
    """Where a link to a folder leads; None for a folder, and for a link that leads back."""
    if not os.path.islink(path):  # as pathlib does, but no error where we may not look
        return None
    target = os.path.realpath(path)
    if any(_holds(target, one) for one in (real, *chain)):
        log.warning("%s: the link leads back to a folder that contains it; skipped", path.name)
        return None
    return _Start(path, target, (*chain, real))


def _holds(outer: str, inner: str) -> bool:
    return Path(inner).is_relative_to(outer)


def _cannot_list(problem: OSError) -> None:
    log.warning("%s: the folder cannot be listed: %s", Path(problem.filename).name, problem.strerror)


def _is_wanted(folder: Path) -> bool:
    """Not hidden, and not written by a run of medvae: its maps and synthetic scans are not input unless named."""
    if folder.name[0] == ".":
        return False
    written = all(os.path.isfile(folder / name) for name in ("run.json", "manifest.jsonl"))
    if written:
        log.warning("%s: skipped a folder that medvae wrote; name it to read its scans", folder.name)
    return not written


def _not_raw(here: Path, folders: Sequence[str], names: Sequence[str], *, globs: Sequence[str]) -> list[str]:
    """The folders of a BIDS dataset that hold no raw scans, except those that a glob names."""
    is_dataset = "dataset_description.json" in names or any(name.startswith("sub-") for name in folders)
    if not is_dataset and "rawdata" not in folders:
        return []
    found = [name for name in folders if name.lower() in _NOT_RAW and not any(_names(glob, name) for glob in globs)]
    scans = [name for name in found if name.lower() in _HOLD_SCANS]
    if scans:
        message = "%s: skipped %s of the BIDS dataset; name the folder, or use include=, to read what is in there"
        log.warning(message, here.name, " and ".join(sorted(scans)))
    return found


def _names(glob: str, folder: str) -> bool:
    """Whether a part of the glob is about this folder, e.g. `derivatives/*`; `*/anat/*` is about none."""
    return any(part.strip("*?") and fnmatchcase(folder, part) for part in glob.split("/")[:-1])
