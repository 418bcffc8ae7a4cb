"""Masks of known lesions in a folder, and which scan each belongs to: by its file name, or the same path below."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from medvae.cohort.names import scan_id
from medvae.errors import InputError
from medvae.io.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        """All masks of a folder, by their path below it, and by their name alone."""
        files = sorted(path for path in folder.rglob("*") if path.name.endswith((".nii", ".nii.gz")))
        by_path, by_name = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        for path in files:
            by_path[scan_id(path, folder)].append(path)
            by_name[stem_of(path.name)].append(path)
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
            hint = "name each mask by the id of its scan"
            raise InputError(f"several masks could be that of {name}: {files}", path=self.folder, hint=hint)
        return found[0] if found else None
