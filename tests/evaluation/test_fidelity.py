"""Precision, recall, density, coverage, MMD and Fréchet distance: against the definitions, and on known sets."""

from __future__ import annotations

import numpy as np
import pytest

from medvae.evaluation.fidelity import Prdc, distances, expected_coverage, frechet, mmd, mmd_p, polynomial_kernel, prdc

Array = np.ndarray


def found(real: Array, samples: Array, k: int = 5) -> Prdc:
    return prdc(distances(real, real), distances(samples, samples), distances(real, samples), k=k)


def normal(seed: int, n: int = 60, d: int = 6, *, scale: float = 1.0, shift: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


def kernel(x: Array, y: Array) -> Array:
    return polynomial_kernel(x, y, total=x.shape[1])


def test_prdc_is_what_the_paper_defines() -> None:
    real, samples, k = normal(0, 7, 2), normal(1, 5, 2), 2

    def reach(points: Array, at: int) -> float:
        return sorted(float(np.linalg.norm(points[at] - one)) for i, one in enumerate(points) if i != at)[k - 1]

    near = [[np.linalg.norm(x - y) < reach(real, i) for y in samples] for i, x in enumerate(real)]
    reached = [[np.linalg.norm(x - y) < reach(samples, j) for j, y in enumerate(samples)] for x in real]
    one = found(real, samples, k)
    assert one.precision == np.mean([any(row[j] for row in near) for j in range(5)])
    assert one.recall == np.mean([any(row) for row in reached])
    assert one.density == pytest.approx(sum(map(sum, near)) / (k * 5))
    assert one.coverage == np.mean([any(row) for row in near])


def test_copies_are_perfect_shrunk_sets_crowd_and_far_ones_have_nothing() -> None:
    real = normal(0)
    assert found(real, real.copy()) == Prdc(1, 1, pytest.approx(1, abs=0.2), 1)
    shrunk = found(real, 0.3 * normal(1))
    assert shrunk.precision > 0.95
    assert shrunk.recall < 0.2
    assert shrunk.density > 2, "samples that crowd together have a density above 1"
    assert found(real, normal(1, shift=50)) == Prdc(0, 0, 0, 0)


def test_the_coverage_of_one_distribution_is_the_expected_one() -> None:
    drawn = [found(normal(2 * s, 20, 3), normal(2 * s + 1, 20, 3), 3).coverage for s in range(200)]
    assert np.mean(drawn) == pytest.approx(expected_coverage(20, 20, 3), abs=0.01)


def test_the_mmd_is_unbiased_and_sees_a_shift_and_a_spread() -> None:
    x, y = normal(0, 4), normal(1, 5)
    pairs = [np.mean([kernel(s, s)[i, j] for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    assert mmd(kernel(x, x), kernel(y, y), kernel(x, y)) == pytest.approx(sum(pairs) - 2 * kernel(x, y).mean())
    same = [_mmd(normal(2 * s), normal(2 * s + 1)) for s in range(100)]
    assert np.mean(same) == pytest.approx(0, abs=3 * np.std(same) / 10)
    assert min(same) < 0
    assert _mmd(normal(0), normal(1, shift=1)) > max(same)
    assert _mmd(normal(0), normal(1, scale=2)) > max(same)


def test_the_p_of_the_mmd_is_small_for_other_sets_alone() -> None:
    def p(seed: int, shift: float) -> float:
        both = np.concatenate([normal(2 * seed, 20), normal(2 * seed + 1, 20, shift=shift)])
        return mmd_p(kernel(both, both), 20, count=50)

    assert p(0, 1.5) == 1 / 51
    assert np.mean([p(seed, 0) for seed in range(30)]) == pytest.approx(0.5, abs=0.15)


def test_the_frechet_distance_of_known_gaussians() -> None:
    x = normal(0, 5000, 3)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + 2) == pytest.approx(12)
    assert frechet(x, 2 * x) == pytest.approx(np.trace(np.cov(x.T)) + np.square(x.mean(0)).sum())
    assert frechet(x[:, :1], 3 * x[:, :1] + 1) > 0, "one dimension is no special case"


def _mmd(x: Array, y: Array) -> float:
    return mmd(kernel(x, x), kernel(y, y), kernel(x, y))
