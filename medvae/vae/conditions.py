"""What a network is given besides the image: age, sex, scanner, ... as one vector of numbers per scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import SettingsError

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

    def encode(self, value: float | str | None) -> list[float]:
        """The numbers of one value; None is a missing one.

        Raises:
            SettingsError: a word that no training scan had, or a word in the place of a number.
        """
        if self.words:
            word = None if value is None else str(value)
            if word is not None and word not in self.words:
                message = f"condition {self.name!r} is {word!r}, the model knows {', '.join(self.words)}"
                raise SettingsError(message, hint="correct the value, or leave it empty")
            return [float(word == known) for known in (*self.words, None)]
        if value is None:
            return [0.0, 1.0]
        if isinstance(value, str):
            message = f"condition {self.name!r} is {value!r}, the model knows numbers"
            raise SettingsError(message, hint="correct the value, or leave it empty")
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
            SettingsError: a value that the training scans did not have the kind of.
        """
        return np.array([x for one in self.columns for x in one.encode(values.get(one.name))], np.float32)

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
        return cls(tuple(_fit(name, [one[name] for one in scans if name in one], scans) for name in names))


def _fit(name: str, values: Sequence[float | str], scans: Sequence[Mapping[str, float | str]]) -> Condition:
    if not values:
        there = ", ".join(sorted(Counter(key for one in scans for key in one))) or "none"
        hint = f"columns that there are: {there}"
        raise SettingsError(f"no training scan has the condition {name!r} (model.conditions)", hint=hint)
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return Condition(name, words=tuple(sorted({str(value) for value in values})))
    return Condition(name, mean=float(np.mean(numbers)), sd=float(np.std(numbers)) or 1.0)
