"""The training scan nearest to an image or to a latent code.

Images are compared on the model's grid, in prepared intensities, after the best of some small moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medvae.synthesis import moves

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_CHUNK = 1 << 24  # values that are compared at once


@dataclass(frozen=True)
class Nearest:
    """The nearest training scan.

    Attributes:
        id: of the training scan.
        distance: to it.
        second: distance to the nearest training scan of another subject; NaN where there is none.
    """

    id: str
    distance: float
    second: float

    @property
    def ratio(self) -> float:
        """Nearest over second nearest: near 1 for a scan of a new person, near 0 for a copy; NaN where unknown."""
        return self.distance / self.second if self.second > 0 else float("nan")


def find_nearest(
    distances: NDArray[np.float64], ids: Sequence[str], *, subjects: Sequence[str], without: str | None = None
) -> Nearest | None:
    """The smallest of `distances` `(n,)`, leaving out the scans of the subject `without`; None if no scan is left."""
    allowed = np.array([one != without for one in subjects])
    if not allowed.any():
        return None
    best = int(np.where(allowed, distances, np.inf).argmin())
    others = allowed & np.array([one != subjects[best] for one in subjects])
    second = float(distances[others].min()) if others.any() else float("nan")
    return Nearest(ids[best], float(distances[best]), second)


def nearest_subjects(
    distances: NDArray[np.float64], subjects: Sequence[str], *, count: int, without: str | None = None
) -> list[int]:
    """Rows of the nearest scan of each of the `count` nearest subjects, nearest first, leaving out one of them."""
    best: dict[str, int] = {}
    for row in np.argsort(distances, kind="stable").tolist():
        if subjects[row] != without:
            best.setdefault(subjects[row], row)
    return list(best.values())[:count]


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Training scans to compare images with.

    Attributes:
        ids: of the scans.
        subjects: who was scanned.
        region: bool `(C, X, Y, Z)`, the voxels that are foreground in at least one of the scans.
        values: `(n, V)`, intensities of the scans in the region.
        inside: bool `(n, V)`, foreground of the scans in the region.
        background: prepared value outside a foreground.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    region: NDArray[np.bool_] = field(repr=False)
    values: NDArray[np.floating] = field(repr=False)
    inside: NDArray[np.bool_] = field(repr=False)
    background: float = 0.0

    @classmethod
    def from_scans(
        cls,
        images: NDArray[np.floating],
        masks: NDArray[np.bool_],
        *,
        ids: Sequence[str],
        subjects: Sequence[str],
        background: float = 0.0,
    ) -> TrainingImages:
        """From images `(n, C, X, Y, Z)` and masks `(n, 1, X, Y, Z)`, background outside the masks."""
        masks = np.broadcast_to(masks, images.shape)
        region = np.asarray(masks.any(axis=0))
        return cls(tuple(ids), tuple(subjects), region, images[:, region], masks[:, region], background)

    def distances(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Root mean squared difference to each scan over the union of both foregrounds, `(n,)`.

        Args:
            image: `(C, X, Y, Z)`, background outside its mask.
            mask: `(1, X, Y, Z)`.
        """
        mask = np.broadcast_to(mask, image.shape)
        beyond = image[mask & ~self.region].astype(np.float64) - self.background  # all scans are background there
        inside = mask[self.region]
        union = np.array([np.count_nonzero(row | inside) for row in self.inside]) + beyond.size
        squares = float(np.square(beyond).sum())
        return _rms(self.values, image[self.region].astype(np.float32), squares=squares, count=union)

    def moved(
        self, image: NDArray[np.float32], mask: NDArray[np.bool_], *, without: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The image and its mask after the move (`moves.MOVES`) that brings the image nearest to a scan.

        One move for all scans: a copy that was moved is brought back, and others gain nothing by moves of their own.

        Args:
            image: as for `distances`.
            mask: as for `distances`.
            without: the scans of this subject have no say in the move.
        """
        at, known = self._probed
        best, squares = moves.best_moves(image.astype(np.float32), known, at, fill=self.background)
        others = np.array([subject != without for subject in self.subjects])
        move = moves.MOVES[best[np.where(others, squares, np.inf).argmin()]]
        return move.apply(image, fill=self.background), move.apply(mask, fill=False)

    def scan(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Image and mask of a scan, `(C, X, Y, Z)`."""
        image, mask = np.full(self.region.shape, self.background, np.float32), np.zeros(self.region.shape, bool)
        image[self.region], mask[self.region] = self.values[row], self.inside[row]
        return image, mask

    @cached_property
    def _probed(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The voxels that moves are compared on, as places in a flattened image, and the scans' values there."""
        chosen = moves.probe(self.region)
        return np.flatnonzero(self.region)[chosen], self.values[:, chosen].astype(np.float32)


@dataclass(frozen=True, eq=False)
class TrainingCodes:
    """Latent codes of training scans to compare a code with.

    Attributes:
        ids: of the scans.
        subjects: who was scanned.
        points: `(n, D)`, posterior means over `scale`.
        scale: `(D,)`, standard deviation of the aggregated posterior, so that all dimensions have the same weight.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    points: NDArray[np.float32] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)

    @classmethod
    def from_posteriors(
        cls,
        means: NDArray[np.float32],
        log_variances: NDArray[np.float32],
        *,
        ids: Sequence[str],
        subjects: Sequence[str],
    ) -> TrainingCodes:
        """From the posteriors of the training scans, `(n, d...)`."""
        flat = means.reshape(len(means), -1)
        variance = flat.var(axis=0) + np.exp(log_variances).reshape(len(means), -1).mean(axis=0)
        scale = np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32)
        return cls(tuple(ids), tuple(subjects), flat / scale, scale)

    def nearest(self, z: NDArray[np.float32], *, without: str | None = None) -> Nearest | None:
        """The scan whose code is nearest to `z`, by root mean squared difference over the dimensions."""
        distances = _rms(self.points, z.ravel() / self.scale, count=self.scale.size)
        return find_nearest(distances, self.ids, subjects=self.subjects, without=without)

    def nearest_other_subjects(self) -> Iterator[Nearest | None]:
        """For each scan the nearest scan of another subject; None where there is no other subject."""
        for point, subject in zip(self.points, self.subjects, strict=True):
            yield self.nearest(point * self.scale, without=subject)


def _rms(
    points: NDArray[np.floating],
    point: NDArray[np.float32],
    *,
    count: NDArray[np.intp] | int,
    squares: float = 0.0,
) -> NDArray[np.float64]:
    """By differences, not by scalar products: a copy has distance 0, not the root of a rounding error."""
    total = np.empty(len(points), np.float64)
    step = max(1, _CHUNK // max(1, point.size))
    for start in range(0, len(points), step):
        difference = points[start : start + step].astype(np.float32) - point
        total[start : start + step] = np.square(difference, out=difference).sum(axis=1, dtype=np.float64)
    result: NDArray[np.float64] = np.sqrt((total + squares) / np.maximum(count, 1))
    return result
