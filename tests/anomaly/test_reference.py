"""What healthy looks like: running sums, shrunk spread by hand, conformal p-values, what the hash and check see."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvae.anomaly.reference import FLOOR, PRIOR_STRENGTH, Moments, Normal, Reference
from medvae.errors import ModelError

FAR = (1000.0, 1000.0, 1000.0)  # voxels so far apart that none is pooled with another


def moments(values: Any, masks: Any = None) -> Moments:
    """From `(n, V)` values, V voxels in a row."""
    rows = np.asarray(values, np.float32).reshape(len(values), -1, 1, 1)
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
    expected = moments(values[kept], masks[kept]) if kept else Moments.empty((6, 1, 1))
    before = (whole.count.copy(), whole.total.copy(), whole.square.copy(), whole.n)
    rest = whole.without(values[out].reshape(6, 1, 1), masks[out].reshape(6, 1, 1))
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
    assert normal.n == 3
    assert normal.mean.dtype == normal.sd.dtype == np.float32
    z = normal.z(np.array([3 + expected[0], 4 - 2 * expected[1]], np.float32).reshape(2, 1, 1))
    assert z.ravel() == pytest.approx([1, -2], rel=1e-5)


def test_the_floor() -> None:
    """A voxel that never varies in a thousand scans has FLOOR of the typical spread, not nothing."""
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=1000), np.zeros(1000)], axis=1)
    normal = moments(values).normal(spacing=FAR)
    typical = np.var(values[:, 0], ddof=1) / 2
    assert normal.sd[1, 0, 0] == pytest.approx(np.sqrt(FLOOR**2 * typical * 1.001), rel=1e-4)
    assert normal.sd[0, 0, 0] == pytest.approx(1, abs=0.05)


def test_shrinkage_towards_a_prior_by_hand() -> None:
    """The prior gives the pattern (variances 1 : 3), the scans the level; its mean counts for eight scans."""
    prior = Normal(
        np.array([10, 20], np.float32).reshape(2, 1, 1), np.sqrt(np.array([1, 3], np.float32)).reshape(2, 1, 1), 50
    )
    normal = moments([[1, 4], [2, 4], [6, 4]]).normal(spacing=FAR, prior=prior)
    k = PRIOR_STRENGTH
    assert normal.mean.ravel() == pytest.approx([(9 + k * 10) / (3 + k), (12 + k * 20) / (3 + k)], rel=1e-6)
    level = 3.5 / 2
    variance = np.array([(3 * 7 + k * level) / (3 + k), k * 3 * level / (3 + k)])
    assert normal.sd.ravel() == pytest.approx(np.sqrt(variance * (1 + 1 / (3 + k))), rel=1e-5)


def test_with_many_scans_the_prior_is_forgotten() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 2)) * [1, 2] + [0, 5]
    prior = Normal(np.full((2, 1, 1), -30, np.float32), np.full((2, 1, 1), 1, np.float32), 5)
    normal = moments(values).normal(spacing=FAR, prior=prior)
    assert normal.mean.ravel() == pytest.approx([0, 5], abs=0.2)
    assert normal.sd.ravel() == pytest.approx([1, 2], rel=0.05)


def test_neighbours_share_their_variance() -> None:
    """Of five scans a voxel knows its own variance badly; pooled it is near the truth, at the edge too."""
    rng = np.random.default_rng(1)
    made = Moments.empty((16, 16, 16))
    mask = np.zeros((16, 16, 16), bool)
    mask[2:14, 2:14, 2:14] = True
    for _ in range(5):
        made.add(rng.normal(size=mask.shape).astype(np.float32), mask)
    alone = made.normal(spacing=FAR).sd[mask] / np.sqrt(1.2)
    pooled = made.normal(spacing=(2, 2, 2)).sd[mask] / np.sqrt(1.2)
    assert np.abs(pooled - 1).max() < 0.25 < np.abs(alone - 1).max()


@pytest.mark.parametrize("n", [0, 1])
def test_with_nothing_seen_the_spread_is_still_a_positive_number(n: int) -> None:
    shape = (4, 4, 4)
    made = Moments.empty(shape)
    for _ in range(n):
        made.add(np.ones(shape, np.float32), np.ones(shape, bool))
    prior = Normal(np.zeros(shape, np.float32), np.ones(shape, np.float32), 9)
    for normal in (made.normal(spacing=(2, 2, 2)), made.normal(spacing=(2, 2, 2), prior=prior)):
        assert np.isfinite(normal.mean).all()
        assert np.isfinite(normal.sd).all()
        assert (normal.sd > 0).all()


# ------------------------------------------------------------------------------------------------------- Reference


def reference(**changes: Any) -> Reference:
    shape = (2, 3, 4)
    rng = np.random.default_rng(0)
    normals = [
        Normal(rng.normal(size=shape).astype(np.float32), rng.random(shape).astype(np.float32) + 1, n)
        for n in (5, 3, 7)
    ]
    made = Reference(
        image=normals[0],
        residual=normals[1],
        prior=normals[2],
        scales={"residual_z": 0.3},
        scores={"residual": np.array([1, 2, 2, 3], np.float32), "residual_z": np.array([0.5], np.float32)},
        limits={"residual": 2.5, "residual_z": 1.5},
        options={"residual": {"sign": "dark"}, "residual_z": {}},
        top=0.01,
        draws=8,
        n=3,
        calibrated=True,
        model_hash="model",
        preparation_hash="preparation",
        scan_hashes=("a", "b", "c"),
    )
    return replace(made, **changes)


@pytest.mark.parametrize(("score", "p"), [(0, 1), (1, 1), (2, 4 / 5), (2.5, 2 / 5), (3, 2 / 5), (3.1, 1 / 5)])
def test_p_values_count_ties_against_the_scan(score: float, p: float) -> None:
    assert reference().p_value("residual", score) == pytest.approx(p)


def test_no_healthy_scores_no_p_value() -> None:
    assert reference().p_value("nll", 1.0) is None
    assert reference(scores={"nll": np.zeros(0, np.float32)}).p_value("nll", 1.0) is None


def test_p_values_of_exchangeable_scores_are_valid() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(2000):
        values = rng.integers(0, 12, size=10)  # with ties
        p.append(reference(scores={"x": np.sort(values[1:])}).p_value("x", float(values[0])))
    found = np.array(p, np.float64)
    for level in (0.1, 0.2, 0.5):
        assert (found <= level).mean() < level + 0.03


@pytest.mark.parametrize("changes", [{}, {"image": None, "residual": None, "prior": None}, {"prior": None, "n": 1}])
def test_tensors_and_json_give_it_back(changes: dict[str, Any]) -> None:
    made = reference(**changes)
    again = Reference.of(made.tensors(), json.loads(json.dumps(made.to_json())))
    assert again.hash == made.hash
    for name in ("image", "residual", "prior"):
        ours, theirs = getattr(made, name), getattr(again, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert np.array_equal(ours.mean, theirs.mean)
            assert np.array_equal(ours.sd, theirs.sd)
    assert again.status == made.status
    assert again.scan_hashes == made.scan_hashes
    assert {k: v.tolist() for k, v in again.scores.items()} == {k: v.tolist() for k, v in made.scores.items()}


def test_the_hash_sees_everything() -> None:
    made = reference()
    assert made.image is not None
    assert made.prior is not None
    other = Normal(made.image.mean, made.image.sd * 2, 5)
    changes: dict[str, Any] = {
        "image": other,
        "residual": None,
        "prior": replace(made.prior, n=8),
        "scales": {"residual_z": 0.31},
        "scores": {**made.scores, "residual": made.scores["residual"] + 1},
        "limits": {},
        "options": {},
        "top": 0.02,
        "draws": 9,
        "n": 4,
        "calibrated": False,
        "model_hash": "x",
        "preparation_hash": "x",
        "scan_hashes": ("a",),
    }
    assert set(changes) == {one.name for one in fields(Reference)}
    hashes = {replace(made, **{name: value}).hash for name, value in changes.items()}
    assert len(hashes | {made.hash}) == len(changes) + 1
    assert reference().hash == made.hash


def test_what_every_output_says() -> None:
    assert reference().status == "calibrated, n=3"
    assert reference(calibrated=False, n=18).status == "uncalibrated, n=18"


@pytest.mark.parametrize("wrong", [{"model_hash": "x"}, {"preparation_hash": "x"}])
def test_another_model_is_refused(wrong: dict[str, str]) -> None:
    hashes = {"model_hash": "model", "preparation_hash": "preparation"}
    reference().check(**hashes)
    with pytest.raises(ModelError, match="another model or another preparation") as caught:
        reference().check(**{**hashes, **wrong})
    assert "medvae calibrate" in str(caught.value.hint)
