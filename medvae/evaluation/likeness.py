"""Diversity: how alike the scans of one set are to each other, by structural similarity within classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.metrics import MultiScaleSSIMMetric
from torch.nn import functional as F

from medvae.evaluation.metrics import Draws, Interval, interval
from medvae.prepare.grid import box_around

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.evaluation.image_set import ImageSet

_PAIRS = 100
_LONGEST = 64  # voxels: larger scans are averaged down
_WINDOW = 7
_WEIGHTS = (0.0448, 0.2856, 0.3001)  # of Wang et al.'s five scales the first three, of which small scans have room


@dataclass(frozen=True)
class Similarity:
    """MS-SSIM (Wang et al., Asilomar 2003) of two scans, as MONAI computes it: 1 for the same scan.

    Attributes:
        box: part of the grid that is compared: what is foreground in one of the scans at least.
        low: lowest value of the scans, which becomes 0.
        data_range: from the lowest to the highest value of the scans.
    """

    box: tuple[slice, slice, slice]
    low: float
    data_range: float

    @classmethod
    def fit(cls, training: ImageSet) -> Similarity:
        """Box and range of training scans."""
        x, y, z = box_around(np.asarray(training.masks.any(axis=(0, 1))))
        low, high = float(training.images.min()), float(training.images.max())
        return cls((x, y, z), low, max(high - low, 1e-6))

    def of(self, one: NDArray[np.float16], other: NDArray[np.float16]) -> float:
        """The similarity of two images `(1, X, Y, Z)`."""
        pair = [self._cut(image) for image in (one, other)]
        size = min(pair[0].shape[2:])
        window = min(_WINDOW, size - 1 + size % 2)  # odd
        scales = max(s for s in range(1, len(_WEIGHTS) + 1) if s == 1 or size >= window * 2 ** (s - 1))
        weights = [weight / sum(_WEIGHTS[:scales]) for weight in _WEIGHTS[:scales]]
        metric = MultiScaleSSIMMetric(3, data_range=1.0, kernel_type="uniform", kernel_size=window, weights=weights)
        return float(metric(*pair))

    def _cut(self, image: NDArray[np.float16]) -> Tensor:
        values = (torch.from_numpy(image[(slice(None), *self.box)].astype(np.float32)) - self.low) / self.data_range
        factor = -(-max(values.shape[1:]) // _LONGEST)
        return values[None] if factor == 1 else F.avg_pool3d(values[None], factor)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Similarities of pairs of one class.

    Attributes:
        rows: `(P, 2)`, the scans of each pair.
        values: `(P,)`.
        count: scans in the set.
    """

    rows: NDArray[np.intp] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    count: int

    @property
    def mean(self) -> Interval:
        """Mean over pairs; the interval is that of resampling the scans, each with all its pairs."""
        names = [str(at) for at in range(self.count)]
        times = Draws.from_subjects(names).weights(names)
        weights = times[:, self.rows[:, 0]] * times[:, self.rows[:, 1]]
        with np.errstate(invalid="ignore"):  # a draw may hold no pair
            drawn = (weights @ self.values) / weights.sum(axis=1)
        return interval(float(self.values.mean()), drawn)


def within_class(scans: ImageSet, similarity: Similarity, *, seed: int = 0) -> Pairs | None:
    """Random pairs of different subjects of one class, each scan in at most two; None where there is no pair."""
    order = np.random.default_rng(seed).permutation(len(scans))
    pairs: list[tuple[int, int]] = []
    for name in sorted(set(scans.classes), key=str):
        members = [int(row) for row in order if scans.classes[row] == name]
        ring = zip(members, members[1:] + members[:1], strict=True) if len(members) > 2 else [tuple(members)]
        pairs += [(p[0], p[1]) for p in ring if len(p) == 2 and scans.subjects[p[0]] != scans.subjects[p[1]]]
    if not pairs:
        return None
    some = np.unique(np.linspace(0, len(pairs) - 1, _PAIRS).round().astype(int))  # evenly, so that no class is cut off
    chosen = [pairs[at] for at in some]
    values = [similarity.of(scans.images[one], scans.images[other]) for one, other in chosen]
    return Pairs(np.array(chosen, np.intp), np.array(values), len(scans))
