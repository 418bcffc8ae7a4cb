"""What a format offers, and which formats there are.

A format is one file in `medvae/io/formats`, or an entry point of the group `medvae.formats` in another package. Nothing
else has to be changed: finding, reading, masks, commands and the tests of geometry go through this contract.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from medvae import plugins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.scan import Scan, ScanInfo, ScanRef
    from medvae.settings import ReadSettings


class Format(Protocol):
    """A file format for scans: a module, or any object, with these functions.

    - `matches(path)`: whether the name, or the first bytes, indicate this format. The file may be missing.
    - `find(files, settings)`: the scans among files, and the files that are none. One scan may consist of several
      files. A scan whose id is "" is named after the path of its first file; an id that the format gives itself holds
      nothing of a patient's identity. Files are sorted; the order is kept. What cannot be a scan after all (damaged, a
      half without the other) is still returned as one, and refused by `read`.
    - `inspect(ref, settings)`: geometry, type and unit from headers alone. Raises the ScanError of `read`, as far as
      the headers show it.
    - `read(ref, settings)`: the scan, float32, on its own grid, axes as stored, RAS+ mm. Raises a ScanError with one of
      the codes in `medvae.errors`, or an OSError. `medvae.io.checked.as_scan` does what is the same for all formats.

    May offer as well:

    - `BY_NAME = False`: `matches` opens the file, since names say little. Such a format is asked after all others.
    - `SUFFIXES`: the endings of its names, lower case with the dot; they are not part of a scan's id.
    - `read_values(path, settings)`: float32 values and geometry of a mask or label map, which may be blank.
    - `write(path, data, geometry, *, description, limits=None)`: for `medvae.write`; what it writes, `read` gives back.
    """

    def matches(self, path: Path) -> bool:
        """Whether the name, or the first bytes, indicate this format."""
        ...

    def find(self, files: Sequence[Path], settings: ReadSettings) -> tuple[list[ScanRef], list[Path]]:
        """The scans among files, and the files that are none."""
        ...

    def inspect(self, ref: ScanRef, settings: ReadSettings) -> ScanInfo:
        """What the headers say."""
        ...

    def read(self, ref: ScanRef, settings: ReadSettings) -> Scan:
        """All voxels."""
        ...


def get(name: str) -> Format:
    """The format of this name.

    Raises:
        SettingsError: there is none, or it cannot be imported.
    """
    return formats().get(name) or cast("Format", plugins.load("formats", name))


@cache
def formats() -> dict[str, Format]:
    """All formats by name, in the order in which they are asked: those that go by the file's name first.

    Looked up once a process: finding the scans of a long list asks for each row.
    """
    found = {name: cast("Format", plugins.load("formats", name)) for name in plugins.usable("formats")}
    return dict(sorted(found.items(), key=lambda one: not goes_by_name(one[1])))


def goes_by_name(format_: Format) -> bool:
    """Whether `matches` looks at the name alone."""
    return bool(getattr(format_, "BY_NAME", True))


def offering(member: str, path: Path) -> dict[str, Any]:
    """This optional function of every format that has it and claims the file by its name, by name of the format."""
    able = {name: one for name, one in formats().items() if hasattr(one, member) and goes_by_name(one)}
    return {name: getattr(one, member) for name, one in able.items() if one.matches(path)}
