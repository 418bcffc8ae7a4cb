"""Which of the files that are there are wanted: by globs, and without the label maps that lie beside scans."""

from __future__ import annotations

import logging
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from medvae.cohort.walk import kind_of
from medvae.io.discover import format_by_name, scans_of, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from medvae.scan import Selection
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)

_LABEL_MAP = re.compile(
    r"mask\b|\b(labels?|labelmap|d?seg|aseg|wmparc|probseg|segmentation|parcellation)\b|"  # FreeSurfer, fMRIPrep
    r"\b(gt|msk|ground ?truth)$"  # ACDC, ISLES
)
_LABEL_FOLDERS = {"labels", "labelstr", "labelsts", "masks", "segmentations"}


def matches(path: Path, selection: Selection) -> bool:
    """Whether the globs want a file; they are compared with its name and with its path below the input."""

    def one_of(globs: Iterable[str]) -> bool:
        return any(fnmatchcase(text, glob) for glob in globs for text in (path.as_posix(), path.name))

    return (not selection.include or one_of(selection.include)) and not one_of(selection.exclude)


def excluding(paths: Iterable[Path], selection: Selection) -> set[str]:
    """The globs of `exclude` that match at least one of the paths."""
    texts = {text for path in paths for text in (path.as_posix(), path.name)} if selection.exclude else set()
    return {glob for glob in selection.exclude if any(fnmatchcase(text, glob) for text in texts)}


def without_label_maps(
    files: Sequence[Path], root: Path, selection: Selection, settings: ReadSettings
) -> Sequence[Path]:
    """Without the files whose names say that they are label maps, unless nothing else is there or globs choose."""
    if selection.include:
        return files
    scans = [file for file in files if not is_label_map(file.relative_to(root))]
    count, kept = len(files) - len(scans), set(scans)
    if not count or not any(_is_scan(file, settings) for file in scans):
        return files
    example = next(file for file in files if file not in kept).relative_to(root)
    what = "a file that looks like a label map" if count == 1 else f"{count} files that look like label maps"
    them = "it" if count == 1 else "them"
    hint = f"name {them} in a list (CSV), in the column scan or label_map, to use {them}"
    log.warning("skipped %s (%s); %s", what, example, hint)
    return scans


def _is_scan(file: Path, settings: ReadSettings) -> bool:
    """Whether a file is one, or part of one: by its name, or else by its header."""
    return format_by_name(file) is not None or (kind_of(file) == "file" and bool(scans_of([file], settings)[0]))


def is_label_map(path: Path) -> bool:
    """Whether the name says so; compared are the file's name and its folder's."""
    if format_by_name(path) is None:
        return False
    words = re.sub(r"[^a-z]+", " ", stem_of(path.name).lower())
    return bool(_LABEL_MAP.search(words)) or path.parent.name.lower() in _LABEL_FOLDERS
