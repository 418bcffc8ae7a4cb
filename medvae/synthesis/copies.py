"""Screen for near-copies: distance of each sample to the training scans, beside their distances to each other.

A screen only, not a proof of anonymity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from medvae.run.work import Progress, ignore
from medvae.synthesis.nearest import TrainingCodes, TrainingImages, find_nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.synthesis.nearest import Nearest

T = TypeVar("T")
_STAGE = "copy screen"
COPY_QUANTILE = 0.05  # share of scans of different people that are nearer to each other than the threshold


@dataclass(frozen=True)
class CopyCheck:
    """What the screen finds for one sample.

    Attributes:
        image: the nearest training scan by the images; None where the model keeps none.
        code: the nearest by the latent codes; None for samples without a code.
        copy: True if the sample is nearer to one training scan than scans of different people usually are, and
            clearly nearer to it than to anybody else; None where unknown.
    """

    image: Nearest | None
    code: Nearest | None
    copy: bool | None

    @property
    def scores(self) -> dict[str, float | None]:
        """The distances, as columns of `audit.csv`; None where unknown."""
        image = (None, None, None) if self.image is None else (self.image.distance, self.image.second, self.image.ratio)
        values = (*image, None if self.code is None else self.code.distance)
        names = ("distance", "second_distance", "ratio", "code_distance")
        return {name: _known(value) for name, value in zip(names, values, strict=True)}

    @property
    def facts(self) -> dict[str, str | None]:
        """Names of the nearest scans and "yes" or "no" for a copy, as columns of `audit.csv`; None where unknown."""
        nearest, code = (None if one is None else one.id for one in (self.image, self.code))
        copy = None if self.copy is None else "yes" if self.copy else "no"
        return {"nearest": nearest, "code_nearest": code, "copy": copy}


@dataclass(frozen=True, eq=False)
class CopyScreen:
    """The screen for near-copies of a model's training scans.

    Attributes:
        images: the training scans that the model keeps; None if it keeps none.
        codes: the codes of all training scans.
        real: for each kept training scan the nearest scan of another subject, in the order of `images`.
        real_codes: the same by the codes, in the order of `codes`.
        threshold: copies are nearer than this; NaN where unknown.
        ratio_threshold: and have a lower ratio of nearest to second nearest; NaN where unknown.
        thresholds_from: what both were measured on, in words.
    """

    images: TrainingImages | None
    codes: TrainingCodes
    real: tuple[Nearest | None, ...]
    real_codes: tuple[Nearest | None, ...]
    threshold: float
    ratio_threshold: float
    thresholds_from: str

    @property
    def known(self) -> bool:
        """Whether near-copies can be found."""
        return bool(np.isfinite(self.threshold))

    @property
    def real_copies(self) -> str:
        """How many training scans the same rule takes for copies of another subject's scan, e.g. "1 of 20"."""
        known = [one for one in self.real if one is not None]
        return f"{sum(self._is_copy(one) for one in known)} of {len(known)}"

    def real_rows(self) -> list[dict[str, float | str | None]]:
        """The distances between training scans of different subjects, one row per scan, as columns of `audit.csv`."""
        images = {} if self.images is None else dict(zip(self.images.ids, self.real, strict=True))
        rows: list[dict[str, float | str | None]] = []
        for one, code in zip(self.codes.ids, self.real_codes, strict=True):
            check = CopyCheck(images.get(one), code, None)
            rows.append({"id": one, **check.scores, **check.facts})
        return rows

    def check(self, image: NDArray[np.float32], mask: NDArray[np.bool_], z: NDArray[np.float32] | None) -> CopyCheck:
        """Compare a sample with the training scans.

        Distance alone would not do: an average of all people is nearer to each of them than they are to each other,
        and copies nobody. A copy is near to one person and far from the next.

        Args:
            image: `(1, X, Y, Z)`, prepared intensities.
            mask: bool `(1, X, Y, Z)`, its foreground.
            z: its latent code; None if it has none.
        """
        near = None if self.images is None else self.images.nearest(image, mask)
        code = None if z is None else self.codes.nearest(z)
        copy = self._is_copy(near) if near is not None and self.known else None
        return CopyCheck(near, code, copy)

    def _is_copy(self, near: Nearest) -> bool:
        singled_out = not near.ratio >= self.ratio_threshold  # also where there is no one else to compare with
        return near.distance < self.threshold and singled_out


def fit(
    model: Model,
    *,
    copies: Iterable[NDArray[np.float32]] | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> CopyScreen:
    """Measure how near training scans of different subjects are to each other, and how near a copy would be.

    Args:
        model: the checkpoint.
        copies: of the kept training scans, `(1, X, Y, Z)`: what a sampler that only copied them would give, decoded
            draws of their posteriors. Those are smooth, and smooth images are nearer to all scans than scans are to
            each other. None where samples are as sharp as scans: then the scans themselves are the copies.
        on_progress: called at the start, and after each kept scan: once for its copy, once for the scan itself.
    """
    latents, training = model.latents, model.training
    subject_of = dict(zip(latents.ids, latents.subjects, strict=True))
    codes = TrainingCodes.from_posteriors(
        latents.mean, latents.log_variance, ids=latents.ids, subjects=latents.subjects
    )
    between_codes = tuple(codes.nearest_other_subjects())
    if not training.ids:
        nan = float("nan")
        return CopyScreen(None, codes, (), between_codes, nan, nan, "unknown: the model keeps no training scans")
    count = len(training.ids)
    counted = partial(_counted, total=2 * count, on_progress=on_progress)
    on_progress(Progress(_STAGE, 0, 2 * count))
    images = TrainingImages.from_scans(
        training.images,
        training.masks,
        ids=training.ids,
        subjects=[subject_of[one] for one in training.ids],
        background=training.intensities[0].background,
    )
    like_copies = (one.astype(np.float32) for one in training.images) if copies is None else copies
    thresholds = copy_thresholds(images, counted(like_copies), training.masks)
    between = tuple(counted(images.nearest_other_subjects(), before=count))
    source = "training scans" if copies is None else "reconstructions of training scans"
    return CopyScreen(images, codes, between, between_codes, *thresholds, source)


def copy_thresholds(
    images: TrainingImages, copies: Iterable[NDArray[np.float32]], masks: NDArray[np.bool_]
) -> tuple[float, float]:
    """Thresholds of the distance and of the ratio of nearest to second nearest; NaN where there is only one subject.

    Distance: the 5% quantile of the copies' distances to scans of other subjects. Ratio: in the middle between the
    ratios of scans of other people (5% quantile) and those of the copies themselves (95% quantile).

    Args:
        images: the training scans.
        copies: one of each, `(1, X, Y, Z)`.
        masks: of the copies, `(n, 1, X, Y, Z)`.
    """
    others, ratios = [], []
    for row, (image, mask, subject) in enumerate(zip(copies, masks, images.subjects, strict=True)):
        distances = images.moved_distances(image, mask)
        beside = find_nearest(distances, images.ids, subjects=images.subjects, without=subject)
        other = images.nearest(image, mask, without=subject)
        if beside is not None and other is not None:
            others.append(other)
            ratios.append(distances[row] / max(beside.distance, 1e-12))
    if not others:
        return float("nan"), float("nan")
    known = [one.ratio for one in others if np.isfinite(one.ratio)] or [1.0]
    middle = (np.quantile(known, COPY_QUANTILE) + np.quantile(ratios, 1 - COPY_QUANTILE)) / 2
    return float(np.quantile([one.distance for one in others], COPY_QUANTILE)), float(middle)


def _counted(
    items: Iterable[T], *, total: int, on_progress: Callable[[Progress], None], before: int = 0
) -> Iterator[T]:
    for done, item in enumerate(items, start=before + 1):
        yield item
        on_progress(Progress(_STAGE, done, total))


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
