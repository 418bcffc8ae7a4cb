"""Which subjects are held out to watch a fit: by subject, never by scan."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def held_out(subjects: Sequence[str], *, share: float, seed: int) -> frozenset[str]:
    """The validation subjects: `share` of them, at least one of three or more, none where the share is 0.

    A subject's rank is the hash of seed and name, so that the choice does not depend on the order of the scans, and
    adding scans moves few subjects from one side to the other.
    """
    names = sorted(set(subjects), key=lambda name: sha256(f"{seed}/{name}".encode()).hexdigest())
    if share <= 0 or len(names) < 3:
        return frozenset()
    return frozenset(names[: max(1, round(share * len(names)))])
