"""Masks of known lesions in a folder, and which scan each belongs to: by its file name, or the same path below."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from medvae.cohort.names import scan_id
from medvae.errors import InputError
from medvae.io.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def masks_by_id(truth: Path) -> dict[str, list[Path]]:
    """The masks that may belong to each id: by their path below the folder, and by their name alone."""
    files = sorted(path for path in truth.rglob("*") if path.name.endswith((".nii", ".nii.gz")))
    by_path, by_name = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
    for path in files:
        by_path[scan_id(path, truth)].append(path)
        by_name[stem_of(path.name)].append(path)
    return {**by_name, **by_path}


def only_mask(masks: Mapping[str, Sequence[Path]], name: str) -> Path | None:
    """The mask of a scan, if there is one.

    Args:
        masks: as `masks_by_id` gives them.
        name: id of the scan.

    Raises:
        InputError: two masks could be that of the scan.
    """
    found = masks.get(name, [])
    if len(found) > 1:
        files = ", ".join(path.name for path in found)
        hint = "name each mask by the id of its scan"
        raise InputError(f"several masks could be that of {name}: {files}", path=found[0].parent, hint=hint)
    return found[0] if found else None
