"""From files to scans: every format takes the files that are its own, the ones that go by the file's name first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.io.contract import formats, goes_by_name
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from medvae.settings import ReadSettings


def scans_of(files: Iterable[Path], settings: ReadSettings) -> tuple[list[ScanRef], list[Path]]:
    """The scans among files, and the files that no format knows.

    A file that nobody found to be a scan, but whose name indicates a format, is a scan of that format: reading it says
    what is wrong with it.

    Args:
        files: regular files, in the order in which they are wanted.
        settings: how files are read.

    Returns:
        Scans by format, and the other files. A scan whose id is "" is still to be named after its path.
    """
    refs: list[ScanRef] = []
    rest = list(files)
    for format_ in formats().values():
        found, rest = format_.find(rest, settings)
        refs += found
    promised = {file: name for file in rest if (name := format_by_name(file))}
    refs += [ScanRef("", name, (file,)) for file, name in promised.items()]
    return refs, [file for file in rest if file not in promised]


def format_by_name(path: Path) -> str | None:
    """The format that a file's name indicates, e.g. "nifti" for `a.nii.gz`; None where names say nothing."""
    named = (name for name, one in formats().items() if goes_by_name(one) and one.matches(path))
    return next(named, None)


def format_of(path: Path) -> str:
    """The format to read a file with that `scans_of` does not know: it says what is wrong with the file."""
    return format_by_name(path) or list(formats())[-1]


def stem_of(name: str) -> str:
    """A file's name without the suffix of its format: `a.b` for `a.b.nii.gz`; the whole name for one of no format."""
    suffixes = {suffix for one in formats().values() for suffix in getattr(one, "SUFFIXES", ()) if goes_by_name(one)}
    longest = max((suffix for suffix in suffixes if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(longest)]
