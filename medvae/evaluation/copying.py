"""Copying: how near samples are to the training scans, compared with how near real scans of other people are to them.

A screen, not a proof of anonymity. A sample that is derived from a training scan is that person's data, however far
away its features are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.evaluation.fidelity import distances
from medvae.evaluation.metrics import Interval, interval, paired_difference, scan_auroc
from medvae.synthesis.compared import Comparison
from medvae.synthesis.nearest import TrainingImages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.evaluation.image_set import ImageSet

    Array = NDArray[np.float64]

_REPEATS = 200
_REGISTERED = 12  # scans of a set, at most, that training scans are registered onto


@dataclass(frozen=True, eq=False)
class Points:
    """Features of the scans of a set.

    Attributes:
        features: `(n, F)`.
        subjects: whose scans they are.
    """

    features: Array = field(repr=False)
    subjects: Sequence[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.subjects)


def authenticity(samples: Array, training: Points) -> float:
    """Share of samples that are farther from their nearest training scan than that is from anybody else.

    Alaa et al. (ICML 2022). Copies have 0. Training scans of one subject are not compared with each other. NaN where
    there is one subject only.
    """
    across = distances(samples, training.features)
    same = np.array([[one == other for other in training.subjects] for one in training.subjects])
    between = np.where(same, np.inf, distances(training.features, training.features)).min(axis=1)
    if not np.isfinite(between).all():
        return float("nan")
    nearest = across.argmin(axis=1)
    return float((across[np.arange(len(samples)), nearest] > between[nearest]).mean())


def nearest_distance(points: Array, others: Array) -> Array:
    """From each point to the nearest of the others, `(n, F)` and `(m, F)` -> `(n,)`."""
    nearest: Array = distances(points, others).min(axis=1)
    return nearest


def closer_to_training(samples: Array, training: Points, held_out: Points, *, seed: int = 0) -> Interval:
    """Share of samples that are nearer to a training scan than to any held-out scan; 0.5 where nothing is copied.

    The larger of both sets gives a random part as large as the smaller one; the interval is over such parts and over
    resampled samples. Ties count half.
    """
    rng = np.random.default_rng(seed)
    to_training, to_others = (distances(samples, one.features) for one in (training, held_out))
    size = min(len(training), len(held_out))
    drawn = []
    for _ in range(_REPEATS):
        mine = to_training[:, rng.choice(len(training), size, replace=False)].min(axis=1)
        others = to_others[:, rng.choice(len(held_out), size, replace=False)].min(axis=1)
        wins = np.sign(others - mine) / 2 + 0.5
        drawn.append((wins.mean(), wins[rng.integers(len(samples), size=len(samples))].mean()))
    whole, again = np.array(drawn).T
    return interval(float(whole.mean()), again)


def membership(samples: Array, training: Points, held_out: Points) -> Interval:
    """AUROC of telling training scans from held-out ones by their distance to the nearest sample; 0.5 is chance."""
    near = [-nearest_distance(one.features, samples) for one in (training, held_out)]
    member = [True] * len(training) + [False] * len(held_out)
    subjects = [*training.subjects, *held_out.subjects]
    return scan_auroc(np.concatenate(near).tolist(), member, subjects=subjects)


def membership_control(samples: Array, training: Points, *, seed: int = 0) -> Interval | None:
    """The same between two random halves of the training subjects: what chance alone gives; None for one subject."""
    rng = np.random.default_rng(seed)
    names = sorted(set(training.subjects))
    if len(names) < 2:
        return None
    near = -nearest_distance(training.features, samples)
    found = []
    for _ in range(_REPEATS):
        half = set(rng.permutation(names)[: len(names) // 2].tolist())
        inside = np.array([one in half for one in training.subjects])
        found.append(float((np.sign(near[inside][:, None] - near[~inside]) / 2 + 0.5).mean()))
    return interval(float(np.mean(found)), np.array(found))


def mean_distance(points: Array, training: Points) -> Interval:
    """Mean distance to the nearest training scan, with the interval of resampling the points."""
    near = nearest_distance(points, training.features)
    return paired_difference(near, np.zeros_like(near))


def registered_ratio(scans: ImageSet, training: ImageSet) -> Interval:
    """Mean ratio of the distances to the nearest and the next subject after registration, of some scans of a set.

    Near 1 for scans of new people, clearly lower for warped training scans. The interval is over resampled scans.
    """
    first = int(training.masks.argmin())  # of the voxels outside: all have the same value
    everywhere = bool(training.masks.flat[first])
    known = TrainingImages.from_scans(
        training.images,
        training.masks,
        ids=training.ids,
        subjects=training.subjects,
        background=0.0 if everywhere else float(training.images.flat[first]),
    )
    comparison = Comparison.of(known)
    chosen = np.unique(np.linspace(0, len(scans) - 1, _REGISTERED).astype(int))
    compared = [comparison.compare(scans.images[row].astype(np.float32), scans.masks[row]) for row in chosen]
    ratios = np.array([np.nan if one.registered is None else one.registered.ratio for one in compared])
    return paired_difference(ratios, np.zeros_like(ratios))


def nearest_rows(samples: Array, training: Array, *, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """The `count` samples nearest to a training scan: their rows, those of the scans, the distances; nearest first."""
    across = distances(samples, training)
    rows = np.argsort(across.min(axis=1), kind="stable")[:count]
    return rows, across[rows].argmin(axis=1), across[rows].min(axis=1)
