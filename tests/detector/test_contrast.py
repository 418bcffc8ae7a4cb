from __future__ import annotations

import numpy as np
import pytest

from medvae.detector.contrast import other_contrast

SHAPE = (24, 20, 28)
IMAGE = np.random.default_rng(0).gamma(2.0, size=SHAPE).astype(np.float32)
INSIDE = np.indices(SHAPE).sum(0) < 50


def drawn(seed: int, image: np.ndarray = IMAGE) -> np.ndarray:
    return other_contrast(image, INSIDE, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(6))
def test_grey_values_keep_their_order(seed: int) -> None:
    order = np.argsort(IMAGE[INSIDE])
    assert (np.diff(drawn(seed)[INSIDE][order]) >= 0).all()


def test_the_slope_between_two_quantiles_is_log_normal() -> None:
    """exp(N(0, 1.2²)), independent from one piece of the map to the next."""
    inside = IMAGE[INSIDE]
    places = [int(np.abs(inside - np.quantile(inside, share)).argmin()) for share in (0.28, 0.38, 0.43, 0.53)]
    first, end, other, other_end = (np.array([drawn(seed)[INSIDE][at] for seed in range(200)]) for at in places)
    slopes = [
        np.log((end - first) / (inside[places[1]] - inside[places[0]])),
        np.log((other_end - other) / (inside[places[3]] - inside[places[2]])),
    ]
    assert np.std(slopes, axis=1) == pytest.approx(1.2, rel=0.15)
    assert np.abs(np.mean(slopes, axis=1)).max() < 0.25
    assert abs(np.corrcoef(slopes)[0, 1]) < 0.2


def test_outside_the_foreground_nothing_changes() -> None:
    made = drawn(0)
    np.testing.assert_array_equal(made[~INSIDE], IMAGE[~INSIDE])
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, drawn(0))


def test_a_foreground_of_two_values_keeps_two() -> None:
    two = np.where(IMAGE > 2, np.float32(5), np.float32(-1))
    assert len(np.unique(drawn(3, two)[INSIDE])) == 2


def test_units_of_the_image_do_not_matter() -> None:
    np.testing.assert_allclose(drawn(4, 100 * IMAGE - 7), 100 * drawn(4) - 7, rtol=1e-3, atol=1e-2)
