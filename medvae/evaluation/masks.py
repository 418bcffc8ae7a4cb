"""Masks of known lesions in a folder, and which scan each belongs to: its name, or its path, is the id of a scan."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from medvae.cohort.names import scan_id
from medvae.errors import InputError
from medvae.io.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HINT = "name each mask by the id of its scan"
_NAMED = 10  # that a sentence names


@dataclass(frozen=True)
class Masks:
    """The masks of a folder.

    Attributes:
        folder: where they are.
        by_id: those that may belong to each scan.
    """

    folder: Path
    by_id: Mapping[str, Sequence[Path]] = field(repr=False)

    @classmethod
    def below(cls, folder: Path) -> Self:
        """All masks of a folder, by their path below it, and by their name alone.

        Raises:
            InputError: there is no such folder, or no mask in it.
        """
        if not folder.is_dir():
            message = "the masks are not a folder" if folder.exists() else "no such folder of masks"
            raise InputError(message, path=folder, hint="pass the folder that the masks are in")
        files = sorted(path for path in folder.rglob("*") if path.name.endswith((".nii", ".nii.gz")))
        by_path, by_name = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        for path in files:
            by_path[scan_id(path, folder)].append(path)
            by_name[stem_of(path.name)].append(path)
        if not files:
            raise InputError(
                "no mask in the folder", path=folder, hint="give masks names that end with .nii or .nii.gz"
            )
        return cls(folder, {**by_name, **by_path})

    def of(self, name: str) -> Path | None:
        """The mask of a scan, if there is one.

        Args:
            name: id of the scan.

        Raises:
            InputError: two masks could be that of the scan.
        """
        found = self.by_id.get(name, [])
        if len(found) > 1:
            files = ", ".join(path.relative_to(self.folder).as_posix() for path in found)
            raise InputError(f"several masks could be that of {name}: {files}", path=self.folder, hint=HINT)
        return found[0] if found else None

    def without_scan(self, names: Iterable[str]) -> tuple[str, ...]:
        """Masks that belong to none of the scans, by their path below the folder.

        Args:
            names: ids of the scans.

        Raises:
            InputError: two masks could be that of one scan.
        """
        files = {path for found in self.by_id.values() for path in found}
        others = files - {self.of(name) for name in names}
        return tuple(sorted(path.relative_to(self.folder).as_posix() for path in others))


def unmatched_in_words(names: Sequence[str]) -> str:
    """What a person is told of masks that are of no scan.

    Args:
        names: their paths below the folder, at least one.
    """
    count = "1 mask belongs" if len(names) == 1 else f"{len(names)} masks belong"
    return f"{count} to no scan that has maps: {shortened(names)}"


def shortened(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
