"""What a network is given besides the image: age, sex, scanner, ... as one vector of numbers per scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import ScanError, SettingsError
from medvae.plugins import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Condition:
    """How one column becomes numbers.

    A number is standardised by the training scans' mean and standard deviation, and followed by a 1 where it is
    missing (its own place is then 0). A word is one-hot among the words of the training scans, with a place of its own
    for a missing one.

    Attributes:
        name: of the column.
        words: of the training scans, sorted; () for a column of numbers.
        mean: of the training scans' numbers.
        sd: their standard deviation, positive.
    """

    name: str
    words: tuple[str, ...] = ()
    mean: float = 0.0
    sd: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers it takes."""
        return len(self.words) + 1 if self.words else 2

    def knows(self, value: float | str) -> bool:
        """Whether the training scans had such a value: this word, or any number."""
        return str(value) in self.words if self.words else not isinstance(value, str)

    def encode(self, value: float | str | None) -> list[float]:
        """The numbers of one value; None, or a number that is not finite, is a missing one.

        Raises:
            ScanError: `unknown_condition`, a word that no training scan had, or a word in place of a number.
        """
        if value is None or (not isinstance(value, str) and not math.isfinite(value)):
            return [0.0] * (self.size - 1) + [1.0]
        if not self.knows(value):
            choices = ", ".join(self.words) or "numbers"
            message = f"condition {self.name!r} is {value!r}, the model was trained with {choices}"
            raise ScanError(message, code="unknown_condition")
        if self.words:
            return [float(str(value) == word) for word in self.words] + [0.0]
        return [(float(value) - self.mean) / self.sd, 0.0]


@dataclass(frozen=True)
class Conditions:
    """All conditions of a model, in a fixed order; a model without any is the special case of none."""

    columns: tuple[Condition, ...] = ()

    @property
    def size(self) -> int:
        """Length of a vector."""
        return sum(column.size for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(column.name for column in self.columns)

    def vector(self, values: Mapping[str, float | str]) -> NDArray[np.float32]:
        """Float32 `(size,)` from values by column; what is not there is missing.

        Raises:
            ScanError: `unknown_condition`, a value of a kind that the training scans did not have.
        """
        return np.array([x for one in self.columns for x in one.encode(values.get(one.name))], np.float32)

    def require(self, given: Mapping[str, float | str]) -> None:
        """Refuse what a caller names and the networks do not take: a misspelt name would count as missing.

        Raises:
            SettingsError: a name that is not one of the columns.
        """
        for name in given:
            if name not in self.names:
                hint = suggest(name, self.names) if self.names else "leave it out, or train with model.conditions"
                raise SettingsError(f"the model has no condition {name!r}", hint=hint)

    def known(self, values: Mapping[str, float | str]) -> dict[str, float | str]:
        """The values without those that `vector` refuses: these are missing then."""
        unknown = {one.name for one in self.columns if one.name in values and not one.knows(values[one.name])}
        return {name: value for name, value in values.items() if name not in unknown}

    def to_json(self) -> list[dict[str, Any]]:
        """As plain data."""
        return [{"name": c.name, "words": list(c.words), "mean": c.mean, "sd": c.sd} for c in self.columns]

    @classmethod
    def from_json(cls, tree: Sequence[Mapping[str, Any]]) -> Conditions:
        """What `to_json` gave."""
        return cls(tuple(Condition(c["name"], tuple(c["words"]), c["mean"], c["sd"]) for c in tree))

    @classmethod
    def fit(cls, names: Sequence[str], scans: Sequence[Mapping[str, float | str]]) -> Conditions:
        """From the training scans' values.

        Raises:
            SettingsError: a column that no scan has.
        """
        return cls(tuple(_fit(name, _values(name, scans), scans) for name in names))


def _fit(name: str, values: Sequence[float | str], scans: Sequence[Mapping[str, float | str]]) -> Condition:
    if not values:
        columns = tuple(sorted({key for one in scans for key in one}))
        hint = suggest(name, columns) if columns else "give a list or participants.tsv with such a column"
        raise SettingsError(f"no training scan has the condition {name!r} (model.conditions)", hint=hint)
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return Condition(name, words=tuple(sorted({str(value) for value in values})))
    varies = max(numbers) > min(numbers)  # of equal numbers the computed SD may be 1e-16
    return Condition(name, mean=float(np.mean(numbers)), sd=float(np.std(numbers)) if varies else 1.0)


def _values(name: str, scans: Sequence[Mapping[str, float | str]]) -> list[float | str]:
    """The values that are not missing."""
    found = (one.get(name) for one in scans)
    return [value for value in found if isinstance(value, str) or (value is not None and math.isfinite(value))]
