"""What several samplers need: the classes and conditions of training scans, an error where there are too few."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.kept import Latents
    from medvae.synthesis.draws import ConditionValues

Rows = dict[str | None, "NDArray[np.intp]"]


def shares(labels: Sequence[str | None]) -> dict[str | None, float]:
    """Class -> its share of the scans, in the order of the names; scans without a label are a class of their own."""
    counts = Counter(labels)
    return {label: counts[label] / len(labels) for label in sorted(counts, key=lambda one: (one is not None, one))}


def shares_of_kept(latents: Latents, kept: Collection[str | None]) -> dict[str | None, float]:
    """`shares` of all training scans, as far as scans of their class are kept as images."""
    return shares([label for label in latents.labels if label in kept])


def rows(labels: Sequence[str | None]) -> Rows:
    """Class -> positions of its scans."""
    return {label: np.flatnonzero([one == label for one in labels]) for label in shares(labels)}


def at_point(members: NDArray[np.intp], point: float) -> int:
    """One of the scans of a class: points that are spread evenly over [0, 1) take each nearly as often."""
    return int(members[int(point * len(members))])


def conditions(latents: Latents, row: int) -> ConditionValues:
    """Conditions of one training scan; empty where none are known."""
    return dict(latents.conditions[row]) if latents.conditions else {}


def require(count: int, *, least: int, sampler: str, what: str = "training scans") -> None:
    """Raise an error for a model that holds too few training scans for a sampler.

    Raises:
        ModelError: fewer than `least`; the hint names a sampler that needs none.
    """
    if count < least:
        message = f"the sampler {sampler!r} needs at least {least} {what}, the model holds {count}"
        raise ModelError(message, hint="train on more scans, or set augment.sampler=prior")
