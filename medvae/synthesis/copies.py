"""Screen for near-copies: distance of each sample to the training scans, compared with their distances to each other.

A screen only, not a proof of anonymity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from medvae.run.work import Progress, ignore
from medvae.synthesis.compared import Compared, Comparison
from medvae.synthesis.limits import KnownCopy, Limits
from medvae.synthesis.nearest import TrainingCodes, TrainingImages, find_nearest
from medvae.synthesis.rows import NEAREST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.synthesis.limits import Region
    from medvae.synthesis.nearest import Nearest

    Scan = tuple[NDArray[np.float32], NDArray[np.bool_]]

T = TypeVar("T")
REGISTERED = 12  # training scans, at most, that others are registered onto to measure how alike different people are
_DIVIDED = 48  # and that are compared with others block by block
_STAGE = "copy screen"
_NAN = float("nan")
_NOTHING = Limits(_NAN, _NAN, _NAN, np.zeros(0), _NAN)


@dataclass(frozen=True)
class CopyCheck:
    """What the screen finds for one sample.

    Attributes:
        image: the nearest training scan by the images; None where the model keeps none.
        registered: the nearest one after it was registered onto the sample; None where unknown.
        region: the part of the sample that copies one training scan; None where unknown.
        code: the nearest by the latent codes; None for samples without a code.
        found_by: what says that it is a near-copy: "image" if it is nearer to one training scan than scans of different
            people usually are, and clearly nearer to it than to anybody else; "registered" if the latter holds after
            registration; "region" if it holds for more blocks of the grid than it does for scans of different people.
        copy: True if anything says so; None where unknown.
    """

    image: Nearest | None
    registered: Nearest | None
    region: Region | None
    code: Nearest | None
    found_by: tuple[str, ...]
    copy: bool | None

    @property
    def scores(self) -> dict[str, float | None]:
        """The distances, as columns of `audit.csv`; None where unknown."""
        return {
            "distance": _of(self.image, "distance"),
            "second_distance": _of(self.image, "second"),
            "ratio": _of(self.image, "ratio"),
            "registered_distance": _of(self.registered, "distance"),
            "registered_ratio": _of(self.registered, "ratio"),
            "region_share": _of(self.region, "share"),
            "code_distance": _of(self.code, "distance"),
        }

    @property
    def facts(self) -> dict[str, str | None]:
        """Names of the nearest scans and "yes" or "no" for a copy, as columns of `audit.csv`; None where unknown."""
        return {
            "nearest": None if self.image is None else self.image.id,
            "registered_nearest": None if self.registered is None else self.registered.id,
            "region_nearest": None if self.region is None else self.region.id,
            "code_nearest": None if self.code is None else self.code.id,
            "copy": None if self.copy is None else "yes" if self.copy else "no",
            "copy_by": ";".join(self.found_by),
        }

    @property
    def copied(self) -> str | None:
        """The training scan that it is a near-copy of, by the first comparison that says so; None if it is none."""
        found = {kind: self.facts[name] for kind, name in NEAREST.items()}
        return next((found[kind] for kind in self.found_by), None)


@dataclass(frozen=True, eq=False)
class CopyScreen:
    """The screen for near-copies of a model's training scans.

    Attributes:
        comparison: the training scans that the model keeps; None if it keeps none.
        codes: the codes of all training scans.
        compared: each kept training scan, compared with those of other subjects, in the order of the kept ones.
        real_codes: for each code the nearest one of another subject, in the order of `codes`.
        limits: of near-copies.
        thresholds_from: what they were measured on, in words.
    """

    comparison: Comparison | None = field(repr=False)
    codes: TrainingCodes
    compared: tuple[Compared, ...]
    real_codes: tuple[Nearest | None, ...]
    limits: Limits
    thresholds_from: str

    @property
    def known(self) -> bool:
        """Whether near-copies can be found."""
        return bool(np.isfinite(self.limits.distance))

    @property
    def thresholds(self) -> dict[str, float | None]:
        """The limits by their names in `run.json`; None where unknown."""
        limits = self.limits
        return {
            "copy_threshold": _known(limits.distance),
            "copy_ratio_threshold": _known(limits.ratio),
            "copy_registered_threshold": _known(limits.registered),
            "copy_region_threshold": _known(limits.share),
        }

    @property
    def real(self) -> tuple[Nearest | None, ...]:
        """For each kept training scan the nearest scan of another subject."""
        return tuple(one.near for one in self.compared)

    @property
    def real_copies(self) -> str:
        """How many training scans the same rule takes for copies of another subject's scan, e.g. "1 of 20"."""
        known = [one for one in self.compared if one.near is not None]
        return f"{sum(bool(self.limits.found_by(one)) for one in known)} of {len(known)}"

    def real_rows(self) -> list[dict[str, float | str | None]]:
        """The distances between training scans of different subjects, one row per scan, as columns of `audit.csv`."""
        ids = () if self.comparison is None else self.comparison.images.ids
        compared = dict(zip(ids, self.compared, strict=True))
        rows: list[dict[str, float | str | None]] = []
        for one, code in zip(self.codes.ids, self.real_codes, strict=True):
            check = self._check(compared.get(one), code)
            rows.append({"id": one, **check.scores, **check.facts, "copy": None, "copy_by": None})
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
        code = None if z is None else self.codes.nearest(z)
        return self._check(None if self.comparison is None else self.comparison.compare(image, mask), code)

    def _check(self, one: Compared | None, code: Nearest | None) -> CopyCheck:
        if one is None:
            return CopyCheck(None, None, None, code, (), None)
        if not self.known:
            return CopyCheck(one.near, one.registered, None, code, (), None)
        found_by = self.limits.found_by(one)
        region = self.limits.region(one.blocks) if one.blocks else None
        return CopyCheck(one.near, one.registered, region, code, found_by, bool(found_by))


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
        return CopyScreen(None, codes, (), between_codes, _NOTHING, "unknown: the model keeps no training scans")
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
    comparison = Comparison.of(images)
    known = list(counted(_known_copies(comparison, copies, training.masks)))
    same = copies is None  # scans are compared with each other once
    real = [one.others for one in known] if same else _between_scans(comparison)
    source = "training scans" if same else "reconstructions of training scans"
    compared = tuple(counted(real, before=count))
    return CopyScreen(comparison, codes, compared, between_codes, Limits.fit(known), source)


def _known_copies(
    comparison: Comparison, copies: Iterable[NDArray[np.float32]] | None, masks: NDArray[np.bool_]
) -> Iterator[KnownCopy]:
    """The copies, compared with the scans of other subjects; those of None are the scans themselves."""
    images = comparison.images
    rows = range(len(images.ids))
    given = (images.scan(row)[0] for row in rows) if copies is None else copies
    for row, image, mask in zip(rows, given, masks, strict=True):
        distances = images.distances(*images.moved(image, mask))
        other = find_nearest(distances, images.ids, subjects=images.subjects, without=images.subjects[row])
        own = float("nan") if other is None else float(distances[row] / max(other.distance, 1e-12))
        yield KnownCopy(own, _with_others(comparison, row, (image, mask)))


def _between_scans(comparison: Comparison) -> Iterator[Compared]:
    images = comparison.images
    return (_with_others(comparison, row, images.scan(row)) for row in range(len(images.ids)))


def _with_others(comparison: Comparison, row: int, scan: Scan) -> Compared:
    """A scan, or a copy of it, compared with the scans of other subjects; some of them more closely."""
    subjects = comparison.images.subjects
    register, divide = (_is_chosen(row, len(subjects), at_most=most) for most in (REGISTERED, _DIVIDED))
    return comparison.compare(*scan, without=subjects[row], register=register, divide=divide)


def _is_chosen(row: int, count: int, *, at_most: int) -> bool:
    """Whether a row is one of this many that are spread evenly over all."""
    return row in np.linspace(0, count - 1, at_most).astype(int).tolist()


def _counted(
    items: Iterable[T], *, total: int, on_progress: Callable[[Progress], None], before: int = 0
) -> Iterator[T]:
    for done, item in enumerate(items, start=before + 1):
        yield item
        on_progress(Progress(_STAGE, done, total))


def _of(one: Nearest | Region | None, name: str) -> float | None:
    return None if one is None else _known(getattr(one, name))


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value
