"""The sampler `flow`: a Gaussian unless held-out scans favour something else, several modes where they do."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from toy_deform import toy_deform
from toy_joint import toy_joint
from toy_model import toy_model

from medvae import SyntheticDataset
from medvae.checkpoint.kept import Latents
from medvae.errors import ModelError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.samplers import _span, _velocity, density, flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.checkpoint.model import Model

NOISE = 0.2  # posterior standard deviation


def model_of(
    codes: np.ndarray, *, labels: Sequence[str | None] = (), subjects: Sequence[str] = (), noise: float = NOISE
) -> Model:
    n = len(codes)
    names = [f"scan-{i}" for i in range(n)]
    log_variance = np.full(codes.shape, 2 * np.log(noise), np.float32)
    latents = Latents(codes.astype(np.float32), log_variance, names, subjects or names, labels or [None] * n, names)
    return replace(toy_model(n=2, keep=0), latents=latents)


def fitted(codes: np.ndarray, *, labels: Sequence[str | None] = (), **options: float) -> flow.Flow:
    return flow.fit(model_of(codes, labels=labels), flow.Settings.model_validate(options))


def draws(sampler: flow.Flow | density.Density, count: int, label: str | None = None, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([sampler.draw(label, rng, {}, 0).z.ravel() for _ in range(count)])


def two_modes(n: int, *, size: int = 6, seed: int = 0) -> np.ndarray:
    """Codes `(n, size)`: ±3 in the first dimension with an SD of 0.5, N(0, 1) in the others."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n, size))
    codes[:, 0] = 3 * rng.choice([-1, 1], n) + 0.5 * codes[:, 0]
    return codes


def between(codes: np.ndarray, middle: float = 0) -> float:
    """Share of codes between the modes; 0.0001 of the law is there, 0.4 of a Gaussian with its variance."""
    return float((np.abs(codes[:, 0] - middle) < 1.5).mean())


@pytest.fixture(scope="module")
def bimodal() -> flow.Flow:
    return fitted(two_modes(60))


def test_where_held_out_scans_favour_a_gaussian_it_is_density() -> None:
    """Also where classes are so large that each has a covariance of its own."""
    rng, labels = np.random.default_rng(4), ["a", "b"] * 30
    model = model_of(rng.normal(size=(60, 3)), labels=labels)
    found, wanted = flow.fit(model, flow.Settings()), density.fit(model, density.Settings())
    assert found.choice == _velocity.Choice(0, 0, 0.0)
    for label in ("a", "b"):
        assert np.array_equal(draws(found, 5, label), draws(wanted, 5, label))


def test_two_modes_are_kept(bimodal: flow.Flow) -> None:
    found = draws(bimodal, 500)
    assert between(found) < 0.1
    assert between(draws(bimodal.span.density, 500)) > 0.3
    assert (found[:, 0] > 0).mean() == pytest.approx((two_modes(60)[:, 0] > 0).mean(), abs=0.15)
    assert found.std(axis=0) == pytest.approx(two_modes(2000).std(axis=0), rel=0.3)
    assert bimodal.choice.gain > 0.1


def test_training_codes_are_not_repeated(bimodal: flow.Flow) -> None:
    """As many draws as new scans are within the 5% quantile of the distance of new scans to the nearest code."""
    training = two_modes(60)
    limit = np.quantile(cdist(two_modes(2000, seed=1), training).min(axis=1), 0.05)
    assert (cdist(draws(bimodal, 500), training).min(axis=1) < limit).mean() < 0.12


def test_spread_and_record(bimodal: flow.Flow) -> None:
    narrow = replace(bimodal, span=replace(bimodal.span, density=replace(bimodal.span.density, spread=0.5)))
    middle = bimodal.span.density.means[None]
    wide, half = (one.draw(None, np.random.default_rng(0), {}, 0) for one in (bimodal, narrow))
    np.testing.assert_allclose(half.z - middle, (wide.z - middle) / 2, atol=1e-5)
    assert wide.sources == ()
    assert wide.parameters["flow_steps"] == bimodal.choice.steps > 0
    assert wide.parameters["flow_directions"] == len(bimodal.span.drawn)


def test_a_standard_point_of_the_span_is_a_draw_of_the_gaussian() -> None:
    """Also where there are more dimensions than scans, and most of the variance is that of shrinkage."""
    codes = np.random.default_rng(0).normal(size=(12, 30)) * np.linspace(3, 0.5, 30)
    span = _span.fit_span(model_of(codes).latents, sampler="flow", spread=1, most=4)
    np.testing.assert_allclose(span.basis @ span.basis.T, np.eye(4), atol=1e-5)
    rng = np.random.default_rng(1)
    found = np.stack(
        [span.draw(None, rng.standard_normal(4, dtype=np.float32), rng).z for _ in range(20_000)]
    ) - codes.mean(axis=0)
    wanted = draws(span.density, 20_000) - codes.mean(axis=0)
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), rtol=0.04)
    np.testing.assert_allclose((found @ span.basis.T).std(axis=0), span.drawn, rtol=0.03)
    assert 0 < span.density.shrinkage < 1


def test_posterior_samples_of_the_training_scans_are_white_in_the_span() -> None:
    latents, everyone = model_of(two_modes(60)).latents, np.arange(60)
    span = _span.fit_span(latents, sampler="flow", spread=1, most=3)
    points, noise = (get(latents, everyone, scale=span.seen) for get in (span.points, span.noise))
    both = points.T @ points / 59 + np.diag(np.square(noise).mean(axis=0))
    np.testing.assert_allclose(both, np.eye(3), atol=1e-4)
    assert noise * span.seen == pytest.approx(NOISE, abs=1e-5)


def test_a_class_of_one_scan_teaches_nothing_and_one_of_two_no_narrower_law() -> None:
    rng = np.random.default_rng(0)
    labels = [f"class-{i // 2}" for i in range(400)] + ["alone"] * 1
    latents = model_of(rng.normal(size=(401, 3)), labels=labels).latents
    span = _span.fit_span(latents, sampler="flow", spread=1, most=3)
    points = flow._known(span, latents, np.arange(401), dict.fromkeys(labels, np.zeros(0, np.float32)))
    assert len(points.mean) == len(points.noise) == len(points.classes) == 400
    total = points.mean.var(axis=0) + np.square(points.noise).mean(axis=0)
    assert total == pytest.approx(1, abs=0.01), "deviations from a mean of two have half of the variance"


def test_without_a_network_the_flow_is_the_identity() -> None:
    """The velocity between two standard Gaussians, integrated, ends where it began."""
    nothing = [(np.zeros((3 + 5, 2), np.float32), np.zeros(2, np.float32)), (np.zeros((2, 3), np.float32), np.zeros(3))]
    start = np.array([0.5, -2, 1], np.float32)
    end = _velocity.Velocity(nothing).flow(start, np.zeros(0, np.float32))  # type: ignore[arg-type]
    np.testing.assert_allclose(end, start, atol=5e-3)


def test_threads_and_the_states_of_others_do_not_matter(bimodal: flow.Flow) -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(5)
        again = fitted(two_modes(60))
        assert torch.get_num_threads() == 2
        assert torch.initial_seed() == 5
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(before)
    assert np.array_equal(draws(again, 5), draws(bimodal, 5))


def test_a_small_class_has_the_flow_of_all_and_its_own_mean() -> None:
    codes = np.concatenate([two_modes(60), [[9.0] * 6] * 3 + two_modes(3) * [0, 1, 1, 1, 1, 1]])
    model = fitted(codes, labels=["large"] * 60 + ["small"] * 3)
    assert not model.classes["small"].any()
    assert model.classes["large"].tolist() == [1]
    found = draws(model, 300, "small")
    assert found[:, 0].mean() == pytest.approx(9, abs=0.8)
    assert between(found, 9) < 0.2


def test_large_classes_have_laws_of_their_own() -> None:
    even = two_modes(60, seed=1)
    even[:, 0] = np.random.default_rng(2).normal(size=60)
    model = fitted(np.concatenate([two_modes(60), even]), labels=["two"] * 60 + ["one"] * 60)
    assert between(draws(model, 300, "two")) < 0.25
    assert between(draws(model, 300, "one")) > 0.5


def test_scans_of_a_subject_are_on_one_side() -> None:
    """Ten scans of each of six subjects: modes that only subjects have are not taken for those of the population."""
    codes = two_modes(6)[np.repeat(np.arange(6), 10)] + np.random.default_rng(0).normal(size=(60, 6)) * 0.01
    subjects = [f"subject-{i // 10}" for i in range(60)]
    latents = model_of(codes, subjects=subjects).latents
    pairs = flow._held_out(latents, {None: np.zeros(0, np.float32)}, 4)
    assert [len(held.mean) for _, held in pairs] == [20, 10, 10, 10, 10]
    assert sum(len(known.mean) + len(held.mean) for known, held in pairs) == 5 * 60


def test_equal_codes_leave_the_posterior() -> None:
    found = draws(flow.fit(model_of(np.zeros((20, 6)), noise=1), flow.Settings()), 2000)
    assert found.std() == pytest.approx(1, abs=0.03)


def test_many_dimensions_and_few_scans() -> None:
    codes = np.random.default_rng(0).normal(size=(20, 4, 16, 16, 16))
    model = fitted(codes)
    assert model.span.basis.shape[0] <= 4, "five scans to a direction"
    assert model.draw(None, np.random.default_rng(0), {}, 0).z.shape == (4, 16, 16, 16)


@pytest.mark.parametrize(
    ("n", "subjects", "labels", "message"),
    [
        (10, 10, 1, "needs at least 11 training scans, the model holds 10"),
        (20, 4, 1, "needs at least 5 training subjects, the model holds 4"),
        (20, 5, 5, "needs at least 10 training scans of classes with several subjects, the model holds 0"),
    ],
)
def test_too_few_scans_are_refused(n: int, subjects: int, labels: int, message: str) -> None:
    codes = np.random.default_rng(0).normal(size=(n, 6))
    who = [f"subject-{i % subjects}" for i in range(n)]
    model = model_of(codes, subjects=who, labels=[f"class-{i % labels}" for i in range(n)])
    with pytest.raises(ModelError, match=message) as caught:
        flow.fit(model, flow.Settings())
    assert "augment.sampler" in str(caught.value.hint)


def test_networks_with_label_maps_and_conditions() -> None:
    for model in (toy_joint(conditions=("age", "sex")), toy_deform(label_maps=True)):
        sample = generate.fit(model, AugmentSettings(sampler="flow"), seed=1).sample(0)
        assert (sample.label_map is not None) == bool(model.vae.labels)
        assert set(sample.conditions) <= set(model.conditions.names)
        assert bool(sample.conditions) == bool(model.conditions.names)


def test_workers_of_a_data_loader_give_the_same_scans() -> None:
    dataset = SyntheticDataset(toy_model(labels=("a", "b")), 2, sampler="flow")
    loaded = list(torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=1))
    for number, item in enumerate(loaded):
        assert torch.equal(item["image"][0], dataset[number]["image"])
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["image"], dataset[1]["image"])
