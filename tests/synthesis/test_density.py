"""The Gaussian of codes: its shrinkage is scikit-learn's, its draws have the covariance that it claims."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from toy_model import toy_model

from medvae.checkpoint.kept import Latents
from medvae.errors import ModelError
from medvae.synthesis.samplers import _density, density

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model


def model_of(codes: np.ndarray, *, labels: list[str | None] | None = None, variance: float = 0.1) -> Model:
    n = len(codes)
    log_variance = np.full(codes.shape, np.log(variance), np.float32)
    names = [f"scan-{i}" for i in range(n)]
    latents = Latents(codes.astype(np.float32), log_variance, names, names, labels or [None] * n, names)
    return replace(toy_model(n=2, keep=0), latents=latents)


def draws(fitted: _density.Density, count: int, label: str | None = None) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([fitted.draw(label, rng, {}, 0).z.ravel() for _ in range(count)])


@given(n=st.integers(3, 40), size=st.integers(1, 60), seed=st.integers(0, 1000))
def test_the_shrinkage_is_that_of_scikit_learn(n: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n, size)) * rng.uniform(0.1, 3, size=size)
    codes = (codes - codes.mean(axis=0)).astype(np.float32)
    ours, theirs = _density.ledoit_wolf(codes), ledoit_wolf_shrinkage(codes, assume_centered=True)
    if size > 1:  # in one dimension nothing is shrunk, whatever the number
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_the_shrinkage_of_equal_codes_is_whole() -> None:
    assert _density.ledoit_wolf(np.zeros((5, 8), np.float32)) == 1.0


def test_draws_have_the_covariance_of_the_aggregated_posterior() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 4))
    codes = rng.normal(size=(300, 4)) @ mix
    fitted = density.fit(model_of(codes), density.Settings())
    got = draws(fitted, 20_000)
    wanted = np.cov(codes.T) * (1 - fitted.shrinkage) + np.eye(4) * (fitted.shrinkage * fitted.isotropic + 0.1)
    assert np.abs(np.cov(got.T) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert np.abs(got.mean(axis=0) - codes.mean(axis=0)).max() < 0.1


def test_without_spread_between_scans_the_posterior_is_left() -> None:
    """Where a posterior has collapsed onto the prior, codes are drawn from the prior, not from a point."""
    fitted = density.fit(model_of(np.zeros((10, 6)), variance=1.0), density.Settings())
    assert draws(fitted, 4000).std() == pytest.approx(1, abs=0.02)


def test_a_small_class_takes_the_pooled_covariance_and_its_own_mean() -> None:
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.normal(size=(200, 3)) * [1, 2, 3], [[9, 9, 9], [9, 9, 9]]])
    labels: list[str | None] = ["large"] * 200 + ["small"] * 2
    fitted = density.fit(model_of(codes, labels=labels, variance=1e-4), density.Settings(shrinkage=0))
    assert fitted.pooled["small"] == 1
    assert fitted.pooled["large"] == pytest.approx(5 / 200)
    got = draws(fitted, 4000, "small")
    assert got.mean(axis=0) == pytest.approx([9, 9, 9], abs=0.3)
    assert got.std(axis=0) == pytest.approx([1, 2, 3], rel=0.15), "two equal scans alone have no spread"


def test_spread_scales_the_distance_to_the_mean() -> None:
    model = model_of(np.random.default_rng(0).normal(size=(50, 5)))
    wide, narrow = (density.fit(model, density.Settings(spread=spread)) for spread in (1.0, 0.5))
    middle = wide.means[None]
    a, b = (one.draw(None, np.random.default_rng(3), {}, 0).z - middle for one in (wide, narrow))
    assert b == pytest.approx(a / 2, abs=1e-5)


def test_many_dimensions_and_few_scans_are_quick_and_small() -> None:
    """16 000 dimensions: a covariance would need 1 GiB; the shape of the code is kept."""
    codes = np.random.default_rng(0).normal(size=(20, 4, 16, 16, 16)).astype(np.float32)
    fitted = density.fit(model_of(codes), density.Settings())
    assert fitted.draw(None, np.random.default_rng(0), {}, 0).z.shape == (4, 16, 16, 16)
    held = fitted.deviations.nbytes + fitted.variance.nbytes
    assert held < 2 * codes.nbytes


def test_one_scan_a_class_is_refused() -> None:
    with pytest.raises(ModelError, match="needs at least 3 training scans, the model holds 2"):
        density.fit(model_of(np.zeros((2, 3)), labels=["a", "b"]), density.Settings())
