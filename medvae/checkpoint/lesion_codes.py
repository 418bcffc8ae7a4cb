"""What a checkpoint keeps of the lesions that were learned: codes, sizes, places, axes, and how many a scan has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.checkpoint.arrays import ArraySet
from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

LESION_CODES = "lesion_codes"  # name of the set in a checkpoint
_ARRAYS = ("mean", "log_variance", "changes", "sizes", "axes", "places", "levels", "counts")


@dataclass(frozen=True, eq=False)
class LesionCodes:
    """The lesions that the network of lesion crops was trained on, `n` of them.

    Attributes:
        mean: of the posterior, float32 `(n, C)`.
        log_variance: float32, the same shape.
        changes: mean change of intensity, prepared units, `(n,)`; NaN for a lesion of a mask without its scan.
        sizes: semi-axes, mm, `(n, 3)`.
        axes: principal axes as columns, `(n, 3, 3)`.
        places: centre on the model's grid, RAS+ mm, `(n, 3)`; NaN for a lesion of a mask without its scan.
        levels: mean of what lies below, prepared units, `(n,)`; NaN where it is not known.
        counts: lesions of each scan or mask that has some, `(m,)`.
        sources: id of the scan or mask of each lesion.
        detail: how much fine structure lesions keep, 0 to 1.
        labels: values of the label maps that are lesions; the first one is written for new ones.
    """

    mean: NDArray[np.float32] = field(repr=False)
    log_variance: NDArray[np.float32] = field(repr=False)
    changes: NDArray[np.float64] = field(repr=False)
    sizes: NDArray[np.float64] = field(repr=False)
    axes: NDArray[np.float64] = field(repr=False)
    places: NDArray[np.float64] = field(repr=False)
    levels: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    sources: Sequence[str]
    detail: float
    labels: tuple[int, ...]

    def in_map(self, label_map: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Where a label map has lesions."""
        return lesions_in(label_map, self.labels)

    @property
    def value(self) -> int:
        """What a label map has where there is a new lesion."""
        return self.labels[0] if self.labels else 1

    def to_set(self) -> ArraySet:
        """As a checkpoint keeps it."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        facts = {"sources": list(self.sources), "detail": self.detail, "labels": list(self.labels)}
        return ArraySet(arrays, facts, f"{len(self.sources)} lesions")

    @classmethod
    def from_set(cls, kept: ArraySet) -> LesionCodes:
        """What `to_set` gave."""
        arrays = {name: kept.arrays[name] for name in _ARRAYS}
        facts = kept.facts
        labels = tuple(int(one) for one in facts["labels"])
        return cls(**arrays, sources=list(facts["sources"]), detail=float(facts["detail"]), labels=labels)


def lesion_codes(model: Model) -> LesionCodes:
    """The lesions of a model.

    Raises:
        ModelError: it was trained without.
    """
    if LESION_CODES not in model.sets:
        hint = "train one with lesions.steps above 0 on scans whose label maps mark lesions"
        raise ModelError("the model has learned no lesions", hint=hint)
    return LesionCodes.from_set(model.sets[LESION_CODES])


def lesions_in(label_map: NDArray[np.int16], labels: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of these values; any above 0 where none are named."""
    return np.asarray(np.isin(label_map, labels) if labels else label_map > 0)
