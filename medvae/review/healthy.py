"""What a reader's verdicts say about the scans of a Reference: who is read as healthy, and who is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvae.errors import InputError, ScanError
from medvae.review.verdicts import NO_LESION, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from medvae.review.verdicts import Said
    from medvae.run.outcomes import Outcome

HEALTHY = "healthy"
LESION, OPEN = "read_as_lesion", "not_read_as_healthy"
_REASONS = {LESION: "a reader called a candidate a lesion", OPEN: "a candidate is unsure or without a verdict"}
_JUDGED = "judged"  # fact of an outcome


@dataclass(frozen=True)
class Readings:
    """What a reader said about whole scans.

    Attributes:
        by_scan: `HEALTHY`, `LESION`, `OPEN`, or "" where there was nothing to judge, by the hash of a scan.
    """

    by_scan: Mapping[str, str]

    @classmethod
    def of(cls, path: Path | None) -> Readings:
        """From JSON that the pages of `detect` exported; None: nothing was read.

        Raises:
            InputError: no file of verdicts, or one that does not say which scans it is about.
        """
        if path is None:
            return UNREAD
        said = [one for one in read(path) if one.scan_hash]
        if not said:
            hint = "run detect again, and export the verdicts from its pages"
            raise InputError("the verdicts do not name the scans that they are on", path=path, hint=hint)
        found: dict[str, str] = {}
        for one in said:
            found[one.scan_hash] = _worse(found.get(one.scan_hash, ""), _reading(one))
        return cls(found)

    def check(self, scan_hash: str) -> dict[str, str | None]:
        """Facts for the outcome of a scan that may enter the Reference.

        Args:
            scan_hash: of the scan.

        Raises:
            ScanError: its verdicts do not let it in.
        """
        reading = self.by_scan.get(scan_hash, "")
        if reading in _REASONS:
            raise ScanError(_REASONS[reading], code=reading)
        return {_JUDGED: reading} if reading else {}

    def require(self, outcomes: Sequence[Outcome], *, path: Path) -> None:
        """Refuse verdicts that belong to none of the scans.

        Raises:
            InputError: no scan has a verdict.
        """
        if not sum(_counts(outcomes)):
            hint = "pass the file that the pages of these scans exported"
            raise InputError("no verdicts on any of these scans", path=path, hint=hint)


UNREAD = Readings({})


def in_words(outcomes: Sequence[Outcome], *, n: int) -> str:
    """How the verdicts chose, and how far p would change if the scans that were not sure were healthy.

    Args:
        outcomes: of all scans that were given.
        n: healthy scans of the Reference.
    """
    healthy, lesions, unsure = _counts(outcomes)
    used = sum(one.status == "ok" for one in outcomes)
    text = f"verdicts: {healthy} read as healthy, {lesions} with a lesion, {unsure} unsure or not judged"
    text += f" (left out); {used - healthy} without verdicts, taken as healthy"
    if not unsure:
        return text
    return f"{text}; the smallest p would be {(unsure + 1) / (n + unsure + 1):.3f} if the unsure ones were healthy"


def _counts(outcomes: Iterable[Outcome]) -> tuple[int, int, int]:
    """Scans that were read as healthy, with a lesion, and neither."""
    each = list(outcomes)
    healthy = sum(one.facts.get(_JUDGED) == HEALTHY and one.status == "ok" for one in each)
    return healthy, sum(one.code == LESION for one in each), sum(one.code == OPEN for one in each)


def _reading(said: Said) -> str:
    """Healthy only if every candidate was called something that is not a lesion."""
    verdicts = [said.candidates.get(str(number + 1), "") for number in range(said.found)]
    if "lesion" in verdicts:
        return LESION
    if not all(verdict in NO_LESION for verdict in verdicts):
        return OPEN
    return HEALTHY if verdicts else ""


def _worse(one: str, other: str) -> str:
    """Of two readings of one scan, the one that lets fewer in."""
    return max(one, other, key=("", HEALTHY, OPEN, LESION).index)
