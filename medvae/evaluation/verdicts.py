"""What a reader said about the candidates, from the JSON that the pages export: counts, and how many were lesions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy import stats

from medvae.errors import InputError
from medvae.review.found import FINDINGS, Found
from medvae.review.verdicts import NO_LESION, read

if TYPE_CHECKING:
    from pathlib import Path

VERDICTS = ("lesion", *NO_LESION, "unsure")
_LEVEL = 0.95


@dataclass(frozen=True)
class Verdicts:
    """A reader's verdicts on the candidates of a run.

    Attributes:
        scans: of the run that the reader said something of.
        others: scans in the file that are not of this run, or whose result has changed since.
        candidates: of the run.
        counts: candidates by verdict.
    """

    scans: int
    others: int
    candidates: int
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As `evaluation.json` has it."""
        return {
            "scans": self.scans,
            "others": self.others,
            "candidates": self.candidates,
            "judged": sum(self.counts.values()),
            "counts": self.counts,
            "precision": self._precision(),
        }

    def _precision(self) -> list[float] | None:
        """Share of lesions among the candidates with a verdict that is sure, with its exact 95% interval.

        Clopper and Pearson (Biometrika 1934): candidates count as independent of each other.
        """
        lesions = self.counts["lesion"]
        sure = lesions + sum(self.counts[name] for name in NO_LESION)
        if not sure:
            return None
        interval = stats.binomtest(lesions, sure).proportion_ci(_LEVEL, method="exact")
        return [lesions / sure, float(interval.low), float(interval.high)]


def read_verdicts(path: Path, out: Path) -> Verdicts:
    """The verdicts in a file that belong to a run of `detect`.

    Args:
        path: JSON that a page or the worklist exported.
        out: the folder of the run.

    Raises:
        InputError: the file holds no verdicts, or none of this run.
        ScanError: a `findings.json` of the run is damaged.
    """
    found = [Found.read(path.parent) for path in sorted(out.glob(f"scans/*/{FINDINGS}"))]
    run = {one.key: one.tree["candidates"] for one in found}
    said = read(path)
    known = {one.key: one.candidates for one in said if one.key in run}
    if not known:
        hint = "pass the file that the pages of this run exported"
        raise InputError("no verdicts on scans of this run", path=path, hint=hint)
    counts = Counter[str]()
    for key, verdicts in known.items():
        numbers = {str(one["number"]) for one in run[key]}
        counts.update(verdict for number, verdict in verdicts.items() if number in numbers and verdict in VERDICTS)
    total = sum(len(candidates) for candidates in run.values())
    return Verdicts(len(known), len(said) - len(known), total, {name: counts[name] for name in VERDICTS})
