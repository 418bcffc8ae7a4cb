from __future__ import annotations

import numpy as np
import pytest

from medvae.detector.noise import coarse_noise
from medvae.prepare.intensity import robust_spread

SHAPE = (40, 36, 44)
IMAGE = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
ALL = np.ones(SHAPE, bool)


def drawn(seed: int, *, spacing: tuple[float, float, float] = (2.0, 2.0, 4.0)) -> np.ndarray:
    return coarse_noise(IMAGE, ALL, spacing=spacing, rng=np.random.default_rng(seed))


def test_noise_of_the_shape_that_differs_from_draw_to_draw() -> None:
    first, second = drawn(0), drawn(1)
    assert first.shape == SHAPE
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, drawn(0))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.5


def test_mean_and_spread_are_those_of_linear_interpolation() -> None:
    """Between points of variance s², on average over places, the variance is s² (2/3)³."""
    values = np.stack([drawn(seed) for seed in range(80)])
    assert abs(values.mean()) < 0.02 * values.std()
    assert values.std() == pytest.approx(1.6 * robust_spread(IMAGE, ALL) * (2 / 3) ** 1.5, rel=0.06)


def test_points_are_16_mm_apart_along_every_axis_and_at_another_place_each_time() -> None:
    """Along a line the second difference of a piecewise linear function is 0 but at its points."""
    places = set()
    for seed in range(12):
        noise = drawn(seed, spacing=(2.0, 1.6, 4.0))
        for axis, apart in ((0, 8), (1, 10), (2, 4)):
            bend = np.abs(np.diff(np.moveaxis(noise, axis, 0).astype(np.float64), 2, axis=0)).max(axis=(1, 2))
            bent = np.flatnonzero(bend > 1e-4)
            assert set(np.diff(bent)) <= {1, apart - 1, apart, apart + 1}
            places.add((axis, int(bent[0])))
    assert len(places) > 6


def test_noise_is_in_units_of_the_spread_of_the_foreground() -> None:
    rng, inside = [np.random.default_rng(0) for _ in range(2)], IMAGE > 0.5
    plain = coarse_noise(IMAGE, inside, spacing=(2, 2, 2), rng=rng[0])
    other = coarse_noise(np.where(inside, 100 * IMAGE, -500), inside, spacing=(2, 2, 2), rng=rng[1])
    np.testing.assert_allclose(other, 100 * plain, rtol=1e-3)


def test_voxels_larger_than_the_distance_of_points_have_noise_of_their_own() -> None:
    noise = drawn(3, spacing=(20.0, 20.0, 20.0))
    assert abs(np.corrcoef(noise[:-2].ravel(), noise[2:].ravel())[0, 1]) < 0.05
