"""The deviance residual beside what it is of each family, and statistics of all voxels where scans are not aligned."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import linear_model
import numpy as np
import pytest
import small_model
import torch

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.settings import LikelihoodSettings
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from medvae.anomaly.inference import Inference


def of_family(family: str, output: torch.Tensor, image: np.ndarray) -> Inference:  # type: ignore[type-arg]
    """An inference whose decoder gave this output."""
    made = infer(linear_model.bare_model(), replace(linear_model.scan(0), image=image))
    observation = build_observation(LikelihoodSettings.model_validate({"family": family, "spread": "shared"}))
    observation.freeze(0.5)
    made = replace(made, model=SimpleNamespace(vae=SimpleNamespace(observation=observation), device="cpu"))
    made.__dict__["likelihood"] = observation(output)
    return made


@pytest.mark.parametrize("family", ["gaussian", "laplace", "bernoulli"])
def test_of_each_family(family: str) -> None:
    rng, shape = np.random.default_rng(0), (1, *linear_model.SHAPE)
    output = torch.from_numpy(rng.normal(size=(1, *shape)).astype(np.float32))
    image = rng.normal(size=shape).astype(np.float32)
    if family == "bernoulli":
        image = (image > 0).astype(np.float32)
    found, expected = of_family(family, output, image).deviance_residual, output[0].numpy()
    mask = linear_model.scan(0).mask
    if family == "gaussian":
        by_hand = (image - expected) / np.sqrt(0.5)
    elif family == "laplace":
        by_hand = np.sign(image - expected) * np.sqrt(2 * np.abs(image - expected) / 0.5)
    else:  # 0 where the likelier value is there, else the root of twice the log-odds against it
        wrong = image != (expected > 0)
        by_hand = np.where(wrong, np.sign(image - 0.5) * np.sqrt(2 * np.abs(expected)), 0)
    np.testing.assert_allclose(found[mask], by_hand[mask], rtol=1e-3, atol=2e-3)
    assert (found[~mask] == 0).all()


def test_statistics_of_all_voxels_where_scans_are_not_aligned() -> None:
    model = small_model.trained("none")
    healthy = [small_model.scan(i) for i in range(8)]
    reference = make_reference(model, healthy, names=["deviance_z"], calibrated=False)
    inside = [infer(model, one).deviance_residual[one.mask] for one in healthy]
    arrays = reference.maps["deviance_z"].arrays
    mean = np.mean([one.mean() for one in inside])
    sd = np.sqrt(np.mean([np.square(one).mean() for one in inside]) - mean**2)
    assert arrays["mean"].shape == arrays["sd"].shape == (1, 1, 1, 1)
    assert (float(arrays["mean"][0, 0, 0, 0]), float(arrays["sd"][0, 0, 0, 0])) == pytest.approx((mean, sd), rel=1e-3)
    prepared = small_model.scan(20, lesion=3)
    z = np.abs((infer(model, prepared).deviance_residual[0] - mean) / sd).astype(np.float32)
    parts = [smooth_inside(z, prepared.mask[0], spacing=prepared.grid.spacing, mm=mm) for mm in (0, 3, 6)]
    by_hand = (np.mean(parts, axis=0) - np.sqrt(2 / np.pi)) / reference.maps["deviance_z"].scale
    found = anomaly_map("deviance_z", infer(model, prepared), reference).values
    np.testing.assert_allclose(found[prepared.mask[0]], by_hand[prepared.mask[0]], rtol=1e-3, atol=1e-3)


def test_aligned_statistics_are_those_of_each_place() -> None:
    model = linear_model.known_model(("deviance_z",))
    assert reference_of(model).maps["deviance_z"].arrays["mean"].shape == (1, *linear_model.SHAPE)
