"""What several samplers need: the classes of the training scans, and a refusal where too few are remembered."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Rows = dict[str | None, "NDArray[np.intp]"]


def shares(labels: Sequence[str | None]) -> dict[str | None, float]:
    """Class -> its share of the scans, in the order of the names; scans without a label are a class of their own."""
    counts = Counter(labels)
    return {label: counts[label] / len(labels) for label in sorted(counts, key=lambda one: (one is not None, one))}


def rows(labels: Sequence[str | None]) -> Rows:
    """Class -> positions of its scans."""
    return {label: np.flatnonzero([one == label for one in labels]) for label in shares(labels)}


def require(count: int, *, least: int, sampler: str, what: str = "training scans") -> None:
    """Refuse a model that remembers too little for a sampler.

    Raises:
        ModelError: fewer than `least`; the hint names a sampler that needs none.
    """
    if count < least:
        message = f"the sampler {sampler!r} needs at least {least} {what}, the model remembers {count}"
        raise ModelError(message, hint="train on more scans, or use --set augment.sampler=prior")
