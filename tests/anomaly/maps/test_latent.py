"""The latent distance beside a plain version, by place and of all cells, and what shrinking does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.base_map import Healthy
from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import latent
from medvae.statistics import Moments

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = np.ndarray[Any, np.dtype[np.float64]]

RIDGE, STRENGTH = 0.05, 8.0


def codes_of(model: Model, prepared: Prepared) -> Values:
    return infer(model, prepared).posterior.mean[0].double().numpy()


def scans(align: str) -> list[Prepared]:
    return [small_model.scan(i, align=align) for i in range(8)]


def plain(model: Model, prepared: Prepared, healthy: list[Prepared], *, by_place: bool) -> Values:
    """d of each latent cell, one after the other."""
    codes, every = codes_of(model, prepared), np.stack([codes_of(model, one) for one in healthy])
    there = [one.mask[0].reshape(4, 4, 4, 4, 4, 4).any(axis=(1, 3, 5)) for one in healthy]
    cells = [at for at in np.ndindex(there[0].shape) if there[0][at]]  # the same mask in all scans
    by_cell = {at: every[(slice(None), slice(None), *at)] for at in cells}
    typical = np.mean([np.cov(one.T, bias=not by_place) for one in by_cell.values()], axis=0)
    means, spreads = {}, {}
    together = np.concatenate(list(by_cell.values()))
    n = len(healthy)
    for at, values in by_cell.items():
        means[at] = values.mean(axis=0) if by_place else together.mean(axis=0)
        own = (n * np.cov(values.T) + STRENGTH * typical) / (n + STRENGTH)
        spreads[at] = (own if by_place else np.cov(together.T, bias=True)) * (1 + 1 / n)
    result = np.ones(there[0].shape)
    for at in cells:
        spread = spreads[at] + RIDGE * np.trace(spreads[at]) / len(codes) * np.eye(len(codes))
        apart = codes[(slice(None), *at)] - means[at]
        result[at] = np.sqrt(apart @ np.linalg.inv(spread) @ apart / len(codes))
    return result


@pytest.mark.parametrize("align", ["mni152", "none"])
def test_beside_the_plain_version(align: str) -> None:
    model, healthy = small_model.trained(align), scans(align)
    known = make_reference(model, healthy, names=["latent"], calibrated=False).maps["latent"]
    prepared = small_model.scan(20, lesion=3, align=align)
    arrays = known.arrays
    found = latent.distances(codes_of(model, prepared) - arrays["mean"], arrays["covariance"]) / np.sqrt(2)
    expected = plain(model, prepared, healthy, by_place=align != "none")
    inside = prepared.mask[0].reshape(4, 4, 4, 4, 4, 4).any(axis=(1, 3, 5))
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4)


def test_higher_where_the_code_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model.trained("mni152")
    reference = make_reference(model, scans("mni152"), names=["latent"], calibrated=False)
    inference = infer(model, small_model.scan(20, align="mni152"))
    before = anomaly_map("latent", inference, reference).values
    moved = infer(model, small_model.scan(20, align="mni152"))
    moved.posterior.mean[0, :, 1, 2, 2] += 20
    change = anomaly_map("latent", moved, reference).values - before
    assert np.unravel_index(change.argmax(), change.shape)[0] in range(4, 8)
    assert change[4:8, 8:12, 8:12].mean() > 10 * abs(change[12:].mean())


def test_few_scans_lean_on_the_training_scans() -> None:
    """Their mean counts for eight scans, their covariance at the level of the new ones."""
    rng = np.random.default_rng(0)
    codes, mask = rng.normal(size=(3, 2, 5, 5, 5)), np.ones((), bool)
    moments = {name: Moments.empty(shape) for name, shape in (("codes", (2, 5, 5, 5)), ("products", (2, 2, 5, 5, 5)))}
    for one in codes:
        moments["codes"].add(one, mask)
        moments["products"].add(one[:, None] * one[None], mask)
    before = {"mean": np.full((2, 5, 5, 5), 4.0), "covariance": np.tile(np.diag([1.0, 9.0]), (5, 5, 5, 1, 1)).T}
    fit = latent.Map(latent.Settings()).fit
    alone = fit(Healthy(moments, spacing=(1, 1, 1), training=None))
    leaning = fit(Healthy(moments, spacing=(1, 1, 1), training=before))
    np.testing.assert_allclose(leaning["mean"], (3 * codes.mean(axis=0) + 8 * 4) / 11, rtol=1e-5)
    ratio = [one["covariance"][1, 1].mean() / one["covariance"][0, 0].mean() for one in (alone, leaning)]
    assert ratio[0] < 2 < 3 < ratio[1]


def test_a_constant_code_has_no_distance() -> None:
    flat = latent.distances(np.zeros((2, 3, 3, 3)), np.zeros((2, 2, 3, 3, 3)))
    assert (flat == 0).all()
