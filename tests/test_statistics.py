"""Running sums from which a scan can be left out, and mean and spread from them, computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvae.statistics import FLOOR, PRIOR_STRENGTH, Moments, Normal

FAR = (1000.0, 1000.0, 1000.0)  # voxels so far apart that none is pooled with another


def moments(values: Any, masks: Any = None) -> Moments:
    """From `(n, V)` values, one channel with V voxels in a row."""
    rows = np.asarray(values, np.float32).reshape(len(values), 1, -1, 1, 1)
    made = Moments.empty(rows.shape[1:])
    for i, row in enumerate(rows):
        made.add(row, np.ones(row.shape, bool) if masks is None else np.asarray(masks[i]).reshape(row.shape))
    return made


@given(seed=st.integers(0, 10_000), n=st.integers(2, 8))
def test_one_scan_can_be_left_out_exactly(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(n, 6)) * 3 + 5).astype(np.float32)
    masks = rng.random((n, 6)) < 0.7
    whole, out = moments(values, masks), int(rng.integers(n))
    kept = [i for i in range(n) if i != out]
    expected = moments(values[kept], masks[kept]) if kept else Moments.empty((1, 6, 1, 1))
    before = (whole.count.copy(), whole.total.copy(), whole.square.copy(), whole.n)
    rest = whole.without(values[out].reshape(1, 6, 1, 1), masks[out].reshape(6, 1, 1))
    assert rest.n == n - 1
    assert np.array_equal(rest.count, expected.count)
    np.testing.assert_allclose(rest.total, expected.total, atol=1e-9)
    np.testing.assert_allclose(rest.square, expected.square, atol=1e-9)
    normal, other = rest.normal(spacing=FAR), expected.normal(spacing=FAR)
    np.testing.assert_allclose(normal.mean, other.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normal.sd, other.sd, rtol=1e-5, atol=1e-6)
    after = (whole.count, whole.total, whole.square, whole.n)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "the sums themselves stay"


def test_values_outside_a_mask_do_not_count() -> None:
    found = moments([[1.0, np.nan], [3.0, 5.0]], [[True, False], [True, True]])
    assert found.count.ravel().tolist() == [2, 1]
    assert found.total.ravel().tolist() == [4, 5]


def test_mean_and_spread_by_hand() -> None:
    """First voxel 1, 2, 6: mean 3, variance 7. Second voxel 4, 4, 4. The typical variance is 3.5."""
    normal = moments([[1, 4], [2, 4], [6, 4]]).normal(spacing=FAR)
    assert normal.mean.ravel().tolist() == [3, 4]
    error = 1 + 1 / 3
    expected = [np.sqrt((3 * 7 + 8 * 3.5) / 11 * error), np.sqrt((3 * 0 + 8 * 3.5) / 11 * error)]
    assert normal.sd.ravel() == pytest.approx(expected, rel=1e-5)
    assert normal.mean.dtype == normal.sd.dtype == np.float32
    z = normal.z(np.array([3 + expected[0], 4 - 2 * expected[1]], np.float32).reshape(1, 2, 1, 1))
    assert z.ravel() == pytest.approx([1, -2], rel=1e-5)


def test_the_floor() -> None:
    """A voxel that never varies in a thousand scans has FLOOR of the typical spread, not nothing."""
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=1000), np.zeros(1000)], axis=1)
    normal = moments(values).normal(spacing=FAR)
    typical = np.var(values[:, 0], ddof=1) / 2
    assert normal.sd[0, 1, 0, 0] == pytest.approx(np.sqrt(FLOOR**2 * typical * 1.001), rel=1e-4)
    assert normal.sd[0, 0, 0, 0] == pytest.approx(1, abs=0.05)


def test_of_one_scan_the_spread_is_that_of_the_prior() -> None:
    prior = Normal(np.full((1, 2, 1, 1), 10, np.float32), np.array([0.01, 0.03], np.float32).reshape(1, 2, 1, 1))
    normal = moments([[19, 28]]).normal(spacing=FAR, prior=prior)
    assert np.array_equal(normal.sd, prior.sd)
    assert normal.mean.ravel() == pytest.approx([11, 12])


def test_shrinkage_towards_a_prior_by_hand() -> None:
    """The prior gives the pattern (variances 1 : 3), the scans the level; its mean counts for eight scans."""
    prior = Normal(
        np.array([10, 20], np.float32).reshape(1, 2, 1, 1), np.sqrt(np.array([1, 3], np.float32)).reshape(1, 2, 1, 1)
    )
    normal = moments([[1, 4], [2, 4], [6, 4]]).normal(spacing=FAR, prior=prior)
    k = PRIOR_STRENGTH
    assert normal.mean.ravel() == pytest.approx([(9 + k * 10) / (3 + k), (12 + k * 20) / (3 + k)], rel=1e-6)
    level = 3.5 / 2
    variance = np.array([(3 * 7 + k * level) / (3 + k), k * 3 * level / (3 + k)])
    assert normal.sd.ravel() == pytest.approx(np.sqrt(variance * (1 + 1 / (3 + k))), rel=1e-5)


def test_with_many_scans_the_prior_is_forgotten() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 2)) * [1, 2] + [0, 5]
    prior = Normal(np.full((1, 2, 1, 1), -30, np.float32), np.full((1, 2, 1, 1), 1, np.float32))
    normal = moments(values).normal(spacing=FAR, prior=prior)
    assert normal.mean.ravel() == pytest.approx([0, 5], abs=0.2)
    assert normal.sd.ravel() == pytest.approx([1, 2], rel=0.05)


def test_neighbours_share_their_variance() -> None:
    """Of five scans a voxel knows its own variance badly; pooled it is near the truth, at the edge too."""
    rng = np.random.default_rng(1)
    made = Moments.empty((1, 16, 16, 16))
    mask = np.zeros((16, 16, 16), bool)
    mask[2:14, 2:14, 2:14] = True
    for _ in range(5):
        made.add(rng.normal(size=mask.shape).astype(np.float32), mask)
    alone = made.normal(spacing=FAR).sd[:, mask] / np.sqrt(1.2)
    pooled = made.normal(spacing=(2, 2, 2)).sd[:, mask] / np.sqrt(1.2)
    assert np.abs(pooled - 1).max() < 0.25 < np.abs(alone - 1).max()


@pytest.mark.parametrize("n", [0, 1])
def test_with_nothing_seen_the_spread_is_still_a_positive_number(n: int) -> None:
    shape = (1, 4, 4, 4)
    made = Moments.empty(shape)
    for _ in range(n):
        made.add(np.ones(shape, np.float32), np.ones(shape, bool))
    prior = Normal(np.zeros(shape, np.float32), np.ones(shape, np.float32))
    for normal in (made.normal(spacing=(2, 2, 2)), made.normal(spacing=(2, 2, 2), prior=prior)):
        assert np.isfinite(normal.mean).all()
        assert np.isfinite(normal.sd).all()
        assert (normal.sd > 0).all()


@pytest.mark.parametrize("prior", [None, Normal(*(np.full((1, 2, 1, 1), one, np.float32) for one in (0, 1)))])
def test_the_spread_of_equal_scans_is_a_positive_number(prior: Normal | None) -> None:
    """As of copies of one scan under other names: nothing differs, and z is still finite."""
    equal = moments([[1, 2], [1, 2], [1, 2]]).normal(spacing=FAR, prior=prior)
    assert (equal.sd > 0).all()
    assert np.isfinite(equal.z(np.full((1, 2, 1, 1), 5, np.float32))).all()


def test_channels_are_statistics_of_their_own() -> None:
    """A channel on another scale changes nothing of the first: typical spread and level of the prior are its own."""
    rng = np.random.default_rng(0)
    first, prior = rng.normal(size=(5, 4, 3, 2)), rng.random((1, 4, 3, 2)).astype(np.float32) + 1
    both = np.stack([first, 100 * rng.normal(size=first.shape)], axis=1)
    mask = rng.random((4, 3, 2)) < 0.8
    alone, together = Moments.empty((1, 4, 3, 2)), Moments.empty((2, 4, 3, 2))
    for one, two in zip(first, both, strict=True):
        alone.add(one[None], mask)
        together.add(two, mask)
    for known, pair in ((None, None), (Normal(prior, prior), Normal(np.repeat(prior, 2, 0), np.repeat(prior, 2, 0)))):
        mine, ours = alone.normal(spacing=(2, 2, 2), prior=known), together.normal(spacing=(2, 2, 2), prior=pair)
        assert np.array_equal(ours.sd[0], mine.sd[0])
        assert np.array_equal(ours.mean[0], mine.mean[0])
        assert ours.sd[1].mean() > 20 * ours.sd[0].mean()


def test_arrays_give_it_back() -> None:
    normal = moments([[1, 4], [2, 4], [6, 4]]).normal(spacing=FAR)
    again = Normal.from_arrays(normal.to_arrays())
    assert np.array_equal(again.mean, normal.mean)
    assert np.array_equal(again.sd, normal.sd)
