"""Is a sample a copy: how near it lies to the training scans, beside how near these lie to each other.

A screen for near-copies, no proof of anonymity. Images are compared on the model's grid, in prepared intensities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

COPY_QUANTILE = 0.05  # so often the distance of scans of different people is below the threshold
_CHUNK = 1 << 24  # values that are compared at once


@dataclass(frozen=True)
class Nearest:
    """The training scan nearest to something.

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
        """Nearest over second nearest: near 1 for a scan of someone new, near 0 for a copy; NaN where unknown."""
        return self.distance / self.second if self.second > 0 else float("nan")

    @classmethod
    def among(
        cls, distances: NDArray[np.float64], ids: Sequence[str], *, subjects: Sequence[str], without: str | None = None
    ) -> Nearest | None:
        """The least of `distances` `(n,)`, leaving out the scans of the subject `without`; None if no scan is left."""
        allowed = np.array([one != without for one in subjects])
        if not allowed.any():
            return None
        best = int(np.where(allowed, distances, np.inf).argmin())
        others = allowed & np.array([one != subjects[best] for one in subjects])
        second = float(distances[others].min()) if others.any() else float("nan")
        return cls(ids[best], float(distances[best]), second)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Training scans to compare images with.

    Attributes:
        ids: of the scans.
        subjects: who was scanned.
        where: bool `(X, Y, Z)`, the voxels that any of them has in its foreground.
        images: `(n, V)`, their values at those voxels.
        masks: bool `(n, V)`, their foreground at those voxels.
        background: prepared value outside a foreground.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    where: NDArray[np.bool_] = field(repr=False)
    images: NDArray[np.floating] = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    background: float = 0.0

    @classmethod
    def of(
        cls,
        images: NDArray[np.floating],
        masks: NDArray[np.bool_],
        *,
        ids: Sequence[str],
        subjects: Sequence[str],
        background: float = 0.0,
    ) -> Gallery:
        """From images and masks `(n, 1, X, Y, Z)`, background outside the masks."""
        where = np.asarray(masks.any(axis=(0, 1)))
        return cls(tuple(ids), tuple(subjects), where, images[:, 0][:, where], masks[:, 0][:, where], background)

    def distances(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Root mean squared difference to each scan over the union of both foregrounds, `(n,)`.

        Args:
            image: `(1, X, Y, Z)`, background outside its mask.
            mask: `(1, X, Y, Z)`.
        """
        beyond = image[mask & ~self.where].astype(np.float64) - self.background  # there all scans are background
        extra = (float(np.square(beyond).sum()), beyond.size)
        return self._distances(image[0][self.where].astype(np.float32), mask[0][self.where], extra=extra)

    def nearest(
        self, image: NDArray[np.float32], mask: NDArray[np.bool_], *, without: str | None = None
    ) -> Nearest | None:
        """The scan nearest to an image, leaving out those of the subject `without`."""
        return Nearest.among(self.distances(image, mask), self.ids, subjects=self.subjects, without=without)

    def between(self) -> tuple[Nearest | None, ...]:
        """Each scan's nearest scan of another subject; None where there is no other."""
        found = []
        for image, mask, subject in zip(self.images, self.masks, self.subjects, strict=True):
            distances = self._distances(image.astype(np.float32), mask)
            found.append(Nearest.among(distances, self.ids, subjects=self.subjects, without=subject))
        return tuple(found)

    def _distances(
        self, image: NDArray[np.float32], mask: NDArray[np.bool_], *, extra: tuple[float, int] = (0.0, 0)
    ) -> NDArray[np.float64]:
        union = np.array([np.count_nonzero(row | mask) for row in self.masks]) + extra[1]
        return _rms(self.images, image, squares=extra[0], count=union)


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of training scans to compare a code with.

    Attributes:
        ids: of the scans.
        subjects: who was scanned.
        points: `(n, D)`, posterior means over `scale`.
        scale: `(D,)`, standard deviation of the aggregated posterior, so that all dimensions count alike.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    points: NDArray[np.float32] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(
        cls,
        means: NDArray[np.float32],
        log_variances: NDArray[np.float32],
        *,
        ids: Sequence[str],
        subjects: Sequence[str],
    ) -> Codes:
        """From the posteriors of the training scans, `(n, d...)`."""
        flat = means.reshape(len(means), -1)
        variance = flat.var(axis=0) + np.exp(log_variances).reshape(len(means), -1).mean(axis=0)
        scale = np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32)
        return cls(tuple(ids), tuple(subjects), flat / scale, scale)

    def nearest(self, z: NDArray[np.float32], *, without: str | None = None) -> Nearest | None:
        """The scan whose code is nearest to `z`, root mean squared difference over the dimensions."""
        distances = _rms(self.points, z.ravel() / self.scale, count=self.scale.size)
        return Nearest.among(distances, self.ids, subjects=self.subjects, without=without)

    def between(self) -> tuple[Nearest | None, ...]:
        """Each scan's nearest scan of another subject, by their codes."""
        pairs = zip(self.points, self.subjects, strict=True)
        return tuple(self.nearest(point * self.scale, without=who) for point, who in pairs)


@dataclass(frozen=True)
class Verdict:
    """What the audit says of one sample.

    Attributes:
        image: the nearest training scan by the images; None where the model keeps none.
        code: the nearest by the codes; None for samples without a code.
        copy: whether it is nearer to one training scan, and lies less between several, than scans of different people
            do; None where unknown.
    """

    image: Nearest | None
    code: Nearest | None
    copy: bool | None

    def scores(self) -> dict[str, float | str | None]:
        """As columns of a table; None where unknown."""
        return _columns(self.image, self.code) | {"copy": None if self.copy is None else "yes" if self.copy else "no"}


@dataclass(frozen=True, eq=False)
class Audit:
    """The screen for near-copies of a model's training scans.

    Attributes:
        gallery: the training scans that the model keeps; None if it keeps none.
        codes: the codes of all training scans.
        real: nearest other subject of each kept training scan, in the gallery's order.
        real_codes: the same by the codes, in the order of the codes.
        threshold: copies are nearer than this; NaN where unknown.
        ratio_threshold: and have a lower ratio of nearest to second nearest; NaN where unknown.
        threshold_of: what both were measured on, in words.
    """

    gallery: Gallery | None
    codes: Codes
    real: tuple[Nearest | None, ...]
    real_codes: tuple[Nearest | None, ...]
    threshold: float
    ratio_threshold: float
    threshold_of: str

    @property
    def known(self) -> bool:
        """Whether copies can be told."""
        return bool(np.isfinite(self.threshold))

    def real_rows(self) -> list[dict[str, float | str | None]]:
        """What real scans keep from those of other people, one row a training scan, as columns of a table."""
        images = dict(zip(self.gallery.ids, self.real, strict=True)) if self.gallery is not None else {}
        pairs = zip(self.codes.ids, self.real_codes, strict=True)
        return [{"id": one, **_columns(images.get(one), code)} for one, code in pairs]

    def judge(self, image: NDArray[np.float32], mask: NDArray[np.bool_], z: NDArray[np.float32] | None) -> Verdict:
        """Judge a sample: image and mask `(1, X, Y, Z)` in prepared intensities, and its code if it has one.

        Distance alone would not do: an average of all people lies nearer to each of them than they lie to each other,
        and copies nobody. A copy is near to one person and far from the next.
        """
        near = None if self.gallery is None else self.gallery.nearest(image, mask)
        code = None if z is None else self.codes.nearest(z)
        copy = None
        if near is not None and self.known:
            singled_out = not near.ratio >= self.ratio_threshold  # also where there is no one else to compare with
            copy = near.distance < self.threshold and singled_out
        return Verdict(near, code, copy)


def fit(model: Model, *, copies: Iterable[NDArray[np.float32]] | None = None) -> Audit:
    """Measure how near the training scans of different subjects lie to each other, and how near a copy would lie.

    Args:
        model: the checkpoint.
        copies: of the kept training scans, `(1, X, Y, Z)`: what the sampler would give if it only copied them, draws of
            their posteriors. Those are smooth, and smooth images lie nearer to all scans than scans lie to each other.
            None where samples are as sharp as scans: then the scans themselves are the copies.
    """
    latents, training = model.latents, model.training
    subject_of = dict(zip(latents.ids, latents.subjects, strict=True))
    codes = Codes.of(latents.mean, latents.log_variance, ids=latents.ids, subjects=latents.subjects)
    if not training.ids:
        nothing = "unknown: the model keeps no training scans"
        return Audit(None, codes, (), codes.between(), float("nan"), float("nan"), nothing)
    gallery = Gallery.of(
        training.images,
        training.masks,
        ids=training.ids,
        subjects=[subject_of[one] for one in training.ids],
        background=training.intensities[0].background,
    )
    real = gallery.between()
    images = (one.astype(np.float32) for one in training.images) if copies is None else copies
    thresholds = copy_thresholds(gallery, images, training.masks)
    of = "training scans" if copies is None else "reconstructions of training scans"
    return Audit(gallery, codes, real, codes.between(), *thresholds, of)


def copy_thresholds(
    gallery: Gallery, copies: Iterable[NDArray[np.float32]], masks: NDArray[np.bool_]
) -> tuple[float, float]:
    """Thresholds of the distance and of the ratio of nearest to second nearest; NaN where there is one subject alone.

    The distance: the 5% quantile of what the copies keep from scans of other subjects. The ratio: in the middle between
    what scans of other people have (5% quantile) and what the copies themselves have (95% quantile).

    Args:
        gallery: the training scans.
        copies: one of each, `(1, X, Y, Z)`.
        masks: of the copies, `(n, 1, X, Y, Z)`.
    """
    others, ratios = [], []
    for row, (image, mask, subject) in enumerate(zip(copies, masks, gallery.subjects, strict=True)):
        distances = gallery.distances(image, mask)
        other = Nearest.among(distances, gallery.ids, subjects=gallery.subjects, without=subject)
        if other is not None:
            others.append(other)
            ratios.append(distances[row] / max(other.distance, 1e-12))
    if not others:
        return float("nan"), float("nan")
    known = [one.ratio for one in others if np.isfinite(one.ratio)] or [1.0]
    middle = (np.quantile(known, COPY_QUANTILE) + np.quantile(ratios, 1 - COPY_QUANTILE)) / 2
    return float(np.quantile([one.distance for one in others], COPY_QUANTILE)), float(middle)


def _columns(image: Nearest | None, code: Nearest | None) -> dict[str, float | str | None]:
    columns: dict[str, float | str | None] = {
        "nearest": None if image is None else image.id,
        "distance": None if image is None else image.distance,
        "second_distance": None if image is None else image.second,
        "ratio": None if image is None else image.ratio,
        "code_nearest": None if code is None else code.id,
        "code_distance": None if code is None else code.distance,
    }
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in columns.items()}


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
