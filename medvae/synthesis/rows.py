"""What is known of the samples of a set after they were written, and how a table of them is written."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CONDITION = "condition "  # before the name of a condition among the scores (numbers) and facts (words) of a result
# which column names the training scan that each comparison of the copy screen finds
NEAREST = {"image": "nearest", "registered": "registered_nearest", "region": "region_nearest"}


@dataclass(frozen=True)
class Row:
    """What is known of one sample of a set after it was written: the fields of its `Result`.

    Attributes:
        id: of the sample.
        scores: numbers by name.
        facts: words by name.
        warnings: what a user of the sample should know.
    """

    id: str
    scores: Mapping[str, Any] = field(repr=False)
    facts: Mapping[str, str | None] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def index(self) -> int:
        """Number of the sample in its set."""
        return int(self.scores["index"])

    @property
    def attempt(self) -> int:
        """Draws of it that were rejected."""
        return int(self.scores["draws"]) - 1

    @property
    def rejected(self) -> list[str]:
        """Why draws of it were rejected, one word per draw."""
        return _words(self.facts["rejected"])

    @property
    def sources(self) -> list[str]:
        """Ids of the training scans that it was derived from."""
        return _words(self.facts["sources"])

    @property
    def copy_by(self) -> list[str]:
        """The comparisons that take it for a near-copy."""
        return _words(self.facts["copy_by"])

    @property
    def donor_found(self) -> bool:
        """Whether the copy screen, which is not told the sources, takes it for a near-copy of one of them."""
        return any(self.facts[NEAREST[kind]] in self.sources for kind in self.copy_by)

    @property
    def distance(self) -> float:
        """Distance to the nearest training scan; 0 where it is not known."""
        return float(self.scores["distance"] or 0.0)

    @property
    def conditions(self) -> dict[str, float | str]:
        """What it was decoded with, by column."""
        found = {**self.scores, **self.facts}.items()
        return {key.removeprefix(CONDITION): v for key, v in found if key.startswith(CONDITION) and v is not None}


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, separator: str = ",") -> str:
    """Rows as CSV (or TSV); numbers with all their digits, what is None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n", delimiter=separator)
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _exact(value) if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose numbers have six digits."""
    return {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}


def _exact(value: float) -> str:
    """The shortest text that is read as the same number."""
    return repr(float(value)).removesuffix(".0")


def _words(text: str | None) -> list[str]:
    return [one for one in (text or "").split(";") if one]
