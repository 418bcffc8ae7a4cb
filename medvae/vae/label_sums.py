"""A volume per label, summed over the label maps of training scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_MOST_LABELS = 64  # each label is a volume of weights


class LabelSums:
    """Sums over scans of a volume that is made of each label.

    Args:
        values: the labels that count; () for all that there are.
        least: the lowest of these.

    Attributes:
        sums: by label.
        scans: how many label maps were added.
    """

    def __init__(self, values: Sequence[int], *, least: int) -> None:
        self.values, self.least = tuple(values), least
        self.sums: dict[int, Tensor] = {}
        self.scans = 0

    def add(self, label_map: Tensor, volume: Callable[[Tensor], Tensor]) -> None:
        """One label map.

        Args:
            label_map: `(1, X, Y, Z)`.
            volume: what is summed, from where a label is: `(X, Y, Z)` bool -> `(X, Y, Z)`; zeros where it is nowhere.

        Raises:
            SettingsError: more labels than a network can carry.
        """
        self.scans += 1
        for value in self.values or tuple(int(one) for one in label_map.unique() if one >= self.least):
            one = volume(label_map[0] == value)
            self.sums[value] = self.sums[value] + one if value in self.sums else one
        if len(self.sums) > _MOST_LABELS:
            message = f"the label maps have more than {_MOST_LABELS} labels, each of which is a volume of weights"
            raise SettingsError(message, hint="name some in model.options.labels, or leave the label maps out")

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that were found, ascending."""
        return tuple(sorted(self.sums))
