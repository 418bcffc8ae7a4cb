"""Synthetic scans beside real ones: every figure is given together with that of as many real scans of other people.

The reference is a set of held-out real scans. In each repeat m subjects are drawn from it, m from the training scans
(real to real) and m samples, m being half of the smallest of the three: all metrics depend on the number of scans, and
half samples vary about as much as the whole does (McCarthy, 1969). Without held-out scans both sides of real to real
are halves of the training scans; copies of training scans are not recognised then.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import InputError
from medvae.evaluation.copying import (
    Points,
    authenticity,
    closer_to_training,
    mean_distance,
    membership,
    membership_control,
    registered_ratio,
)
from medvae.evaluation.features import TOTAL, Components, Features
from medvae.evaluation.fidelity import distances, expected_coverage, frechet, mmd, mmd_p, polynomial_kernel, prdc
from medvae.evaluation.likeness import Similarity, within_class
from medvae.evaluation.metrics import Interval, interval
from medvae.evaluation.spectrum import radial_power

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.evaluation.image_set import ImageSet

    Rows = NDArray[np.intp]

REPEATS = 200
FEWEST = 4  # subjects of each kind
_NEIGHBOURS = 5
_PER_DIMENSION = 10  # scans per dimension of the Fréchet distance


@dataclass(frozen=True, eq=False)
class Sets:
    """What is compared.

    Attributes:
        training: the real scans that the model was trained on.
        held_out: real scans of other subjects; None where there are none.
        synthetic: the samples.
    """

    training: ImageSet = field(repr=False)
    held_out: ImageSet | None = field(repr=False)
    synthetic: ImageSet = field(repr=False)


def fidelity(sets: Sets, *, seed: int = 0) -> dict[str, Any]:
    """Precision, recall, density, coverage, MMD, Fréchet distance and spectrum, of samples and of real scans.

    Returns:
        As `fidelity` in `augment.json`: by metric `samples`, `real` and their `difference`, each with its interval over
        the repeats; of the spectrum one per band.

    Raises:
        InputError: fewer than `FEWEST` subjects or samples.
    """
    draws = _Draws.of(sets)
    reference = sets.training if sets.held_out is None else sets.held_out
    groups = [reference, sets.training, sets.synthetic]
    fitted = Features.fit(sets.training)
    points = [fitted.of(one) for one in groups]
    k = min(_NEIGHBOURS, max(1, draws.size // 4))
    axes = max(1, draws.size // _PER_DIMENSION)
    space = _Space(points, k, Components.fit(points[1], axes))
    powers = [_powers(one) for one in groups]
    rng = np.random.default_rng(seed)
    repeats = [_repeat(space, powers, draws.rows(rng)) for _ in range(REPEATS)]
    return {
        "scans": draws.size,
        "repeats": REPEATS,
        "neighbours": k,
        "dimensions": axes,
        "expected_coverage": expected_coverage(draws.size, draws.size, k),
        "mmd_p": space.p(draws.rows(rng), seed=seed),
        "metrics": {name: _beside([one[name] for one in repeats]) for name in repeats[0] if name != "spectrum"},
        "spectrum": [_beside([one["spectrum"][band] for one in repeats]) for band in range(powers[0].shape[1])],
    }


def diversity(sets: Sets) -> dict[str, Any]:
    """MS-SSIM between scans of one class, as `diversity` in `augment.json`; null where there is no pair."""
    similarity = Similarity.fit(sets.training)
    groups = {"samples": sets.synthetic, "real": sets.held_out or sets.training}
    pairs = {name: within_class(one, similarity) for name, one in groups.items()}
    return {name: None if one is None else one.mean.to_json() for name, one in pairs.items()}


def copying(sets: Sets, *, seed: int = 0) -> dict[str, Any]:
    """Distances to training scans, authenticity and membership, as `copying` in `augment.json`.

    What needs held-out scans is null without them.
    """
    fitted = Features.fit(sets.training)
    training, samples = Points(fitted.of(sets.training), sets.training.subjects), fitted.of(sets.synthetic)
    tree: dict[str, Any] = {
        "distance": {"samples": mean_distance(samples, training).to_json(), "real": None},
        "authenticity": {"samples": _finite(authenticity(samples, training)), "real": None},
        "registered_ratio": {"samples": registered_ratio(sets.synthetic, sets.training).to_json(), "real": None},
        "closer_to_training": None,
        "membership_auroc": {"held_out": None, "control": _or_none(membership_control(samples, training, seed=seed))},
    }
    if sets.held_out is not None:
        others = Points(fitted.of(sets.held_out), sets.held_out.subjects)
        tree["distance"]["real"] = mean_distance(others.features, training).to_json()
        tree["authenticity"]["real"] = _finite(authenticity(others.features, training))
        tree["registered_ratio"]["real"] = registered_ratio(sets.held_out, sets.training).to_json()
        tree["closer_to_training"] = closer_to_training(samples, training, others, seed=seed).to_json()
        tree["membership_auroc"]["held_out"] = membership(samples, training, others).to_json()
    return tree


@dataclass(frozen=True, eq=False)
class _Draws:
    """How scans are drawn: `size` subjects of the reference, of the training scans, and samples."""

    reference: Sequence[str] | None
    training: Sequence[str]
    samples: int
    size: int

    @classmethod
    def of(cls, sets: Sets) -> _Draws:
        counts = {"real training subjects": len(set(sets.training.subjects)), "synthetic scans": len(sets.synthetic)}
        if sets.held_out is not None:
            counts["held-out subjects"] = len(set(sets.held_out.subjects))
        for what, count in counts.items():
            if count < FEWEST:
                raise InputError(f"{count} {what}", code="too_few", hint=f"use at least {FEWEST}")
        held_out = None if sets.held_out is None else sets.held_out.subjects
        return cls(held_out, sets.training.subjects, len(sets.synthetic), min(counts.values()) // 2)

    def rows(self, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
        """One draw: rows of the reference, of the training scans, of the samples; one scan per subject."""
        samples = rng.choice(self.samples, self.size, replace=False)
        if self.reference is not None:
            return _one_each(self.reference, self.size, rng), _one_each(self.training, self.size, rng), samples
        both = _one_each(self.training, 2 * self.size, rng)
        return both[: self.size], both[self.size :], samples


def _one_each(subjects: Sequence[str], count: int, rng: np.random.Generator) -> Rows:
    """One scan each of `count` random subjects."""
    names = rng.permutation(sorted(set(subjects)))[:count]
    rows = [rng.choice([row for row, one in enumerate(subjects) if one == name]) for name in names]
    return np.array(rows, np.intp)


@dataclass(frozen=True, eq=False)
class _Space:
    """Features of the reference, the training scans and the samples; distances and kernels are computed per draw."""

    points: Sequence[NDArray[np.float64]]
    k: int
    components: Components

    def measures(self, real: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
        across = distances(real, other)
        found = asdict(prdc(distances(real, real), distances(other, other), across, k=self.k))
        pairs = ((real, real), (other, other), (real, other))
        found["mmd"] = mmd(*[polynomial_kernel(*pair, total=TOTAL) for pair in pairs])
        found["frechet"] = frechet(self.components.of(real), self.components.of(other))
        return found

    def p(self, rows: tuple[Rows, Rows, Rows], *, seed: int) -> dict[str, float]:
        """p of the MMD between the reference and the others, in one draw."""
        reference, training, samples = (points[at] for points, at in zip(self.points, rows, strict=True))
        found = {}
        for name, one in (("samples", samples), ("real", training)):
            both = np.concatenate([reference, one])
            found[name] = mmd_p(polynomial_kernel(both, both, total=TOTAL), len(reference), seed=seed)
        return found


def _repeat(space: _Space, powers: Sequence[NDArray[np.float64]], rows: tuple[Rows, Rows, Rows]) -> dict[str, Any]:
    """Each metric of one draw: `(of samples, of real scans)`; of the spectrum one pair per band."""
    reference, training, samples = (points[at] for points, at in zip(space.points, rows, strict=True))
    ours, theirs = space.measures(reference, samples), space.measures(reference, training)
    base, real, made = (power[at].mean(axis=0) for power, at in zip(powers, rows, strict=True))
    return {name: (ours[name], theirs[name]) for name in ours} | {
        "spectrum": list(zip(made / base, real / base, strict=True))
    }


def _powers(scans: ImageSet) -> NDArray[np.float64]:
    pairs = zip(scans.images, scans.masks, strict=True)
    return np.stack([radial_power(image.astype(np.float32), mask) for image, mask in pairs])


def _beside(pairs: Sequence[tuple[float, float]]) -> dict[str, list[float | None]]:
    """Means over the repeats with the middle 95% of them."""
    samples, real = np.array(pairs, np.float64).T
    columns = {"samples": samples, "real": real, "difference": samples - real}
    return {name: interval(float(values.mean()), values).to_json() for name, values in columns.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _or_none(one: Interval | None) -> list[float | None] | None:
    return None if one is None else one.to_json()
