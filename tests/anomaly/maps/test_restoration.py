"""MAP restoration beside plain versions: the formula of total variation, its denoising, an objective that falls."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest
import torch

from medvae.anomaly.anomaly_map import anomaly_map, scan_maps
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.anomaly.restore import Restored, Variation, restore
from medvae.statistics import Normal
from medvae.vae.base import elbo

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = np.ndarray[Any, np.dtype[np.float32]]


@cache
def model() -> Model:
    return linear_model.known_model(("restoration",))


def restored(prepared: Prepared, *, weight: float = 0.5, steps: int = 4) -> Restored:
    inference = infer(model(), prepared)
    image = Normal.from_arrays(reference_of(model()).maps["atlas"].arrays)
    held = np.clip(prepared.image, image.mean - image.sd, image.mean + image.sd)
    start = torch.from_numpy(np.where(prepared.mask, held, prepared.image))[None]
    return restore(inference.image, inference.mask, vae=model().vae, c=None, start=start, weight=weight, steps=steps)


def plain_variation(values: Values, mask: Values) -> float:
    """Voxel by voxel."""
    total = 0.0
    for at in np.ndindex(mask.shape):
        square = 0.0
        for axis in range(3):
            to = tuple(i + (k == axis) for k, i in enumerate(at))
            if mask[at] and to[axis] < mask.shape[axis] and mask[to]:
                square += float(values[to] - values[at]) ** 2
        total += np.sqrt(square)
    return total


def test_total_variation_of_a_small_example() -> None:
    """A cube of 2 voxels a side and height 3, away from the border, one corner of the grid outside."""
    values, mask = np.zeros((6, 5, 5), np.float32), np.ones((6, 5, 5), bool)
    values[2:4, 2:4, 2:4] = 3
    mask[:2, :2, :2] = False
    batch = [torch.from_numpy(one)[None, None] for one in (values, mask)]
    # 12 voxels before a lower face, one difference each; of the 8 voxels in the cube one has 0 upper faces, 3 have 1,
    # 3 have 2, one has 3
    by_hand = 3 * (12 + 3 + 3 * np.sqrt(2) + np.sqrt(3))
    assert Variation(batch[1], strength=2.0).nats(batch[0]) == pytest.approx(2 * by_hand, rel=1e-6)
    noise = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    expected = plain_variation(noise, mask)
    assert Variation(batch[1], strength=1.0).nats(torch.from_numpy(noise)[None, None]) == pytest.approx(expected, 1e-5)


def test_denoising_finds_the_least() -> None:
    """Of ½ |d − v|² + t λ TV(d): no small change of the answer is better; a constant stays; nothing outside."""
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random((1, 1, 6, 7, 8)) > 0.1)
    values = torch.from_numpy(rng.normal(size=(1, 1, 6, 7, 8)).astype(np.float32)) + 5.0 * (torch.arange(8) > 3)
    variation = Variation(mask, strength=0.5)
    for _ in range(40):  # the dual goes on
        found = variation.denoised(values, size=0.8)

    def cost(one: torch.Tensor) -> float:
        return float(0.5 * ((one - values) * mask).square().sum()) + 0.8 * variation.nats(one)

    least = cost(found)
    assert (found[~mask] == 0).all()
    assert least < min(cost(values), cost(values * 0))
    for seed in range(20):
        other = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed)) * mask
        assert all(cost(found + size * other) > least - 1e-4 for size in (0.3, 0.03, -0.3))
    even = torch.full_like(values, 2.5) * mask
    torch.testing.assert_close(Variation(mask, strength=0.5).denoised(even, size=0.8), even, atol=1e-5, rtol=0)


def test_the_objective_is_what_it_says_and_falls() -> None:
    prepared = linear_model.scan(0, lesion=2)
    found = restored(prepared)
    assert len(found.objective) > 2
    assert (np.diff(found.objective) < 0).all()
    inference = infer(model(), prepared)
    noise = 1.4826 * np.median(np.abs(inference.residual[prepared.mask]))
    change = prepared.image - found.image[0].numpy()
    other = infer(model(), replace(prepared, image=found.image[0].numpy()))
    bound = elbo(other.image, other.mask, posterior=other.posterior, likelihood=other.likelihood)
    by_hand = -float(bound) + 0.5 / noise * plain_variation(change[0], prepared.mask[0])
    assert found.objective[-1] == pytest.approx(by_hand, rel=1e-4)


def test_a_lesion_is_taken_out_and_the_rest_left() -> None:
    healthy, ill = linear_model.scan(0), linear_model.scan(0, lesion=3)
    inside = np.zeros(ill.mask.shape, bool)
    inside[0][linear_model.LESION] = True
    change = np.abs(ill.image - restored(ill).image[0].numpy())
    assert change[inside].mean() > 1.5
    assert change[ill.mask & ~inside].mean() < 0.25
    assert np.abs(restored(ill).image[0].numpy() - healthy.image)[inside].mean() < 1.5
    assert (change[~ill.mask] == 0).all()


def test_nothing_is_changed_where_all_is_as_expected_or_even() -> None:
    """A dear variation keeps the scan; an even image has a plain answer, too."""
    prepared = linear_model.scan(0)
    dear = restored(prepared, weight=1e3, steps=8)
    even = replace(prepared, image=np.where(prepared.mask, np.float32(0.1), np.float32(0)))
    assert np.abs(dear.image[0].numpy() - prepared.image).mean() < 0.2
    assert np.isfinite(restored(even).image.numpy()).all()
    assert np.ptp(np.diff(restored(even).objective)) >= 0


def test_the_map_beside_the_plain_version() -> None:
    prepared = linear_model.scan(0, lesion=2)
    inside, own = prepared.mask[0], Normal.from_arrays(reference_of(model()).maps["restoration"].arrays)
    change = prepared.image - restored(prepared, weight=1.0, steps=3).image[0].numpy()
    z = np.abs((change - own.mean) / own.sd)[0].astype(np.float32)
    parts = [smooth_inside(z, inside, spacing=prepared.grid.spacing, mm=mm) for mm in (0, 3, 6)]
    by_hand = (np.mean(parts, axis=0) - np.sqrt(2 / np.pi)) / reference_of(model()).maps["restoration"].scale
    found = anomaly_map("restoration", infer(model(), prepared)).values
    np.testing.assert_allclose(found[inside], by_hand[inside], rtol=1e-4, atol=1e-5)


def test_only_restoration_has_a_pseudo_healthy_image() -> None:
    prepared = linear_model.scan(0, lesion=2)
    maps = scan_maps(["atlas", "restoration"], infer(model(), prepared), reference_of(model()))
    image = maps.pseudo_healthy(["atlas", "restoration"])
    assert image is not None
    np.testing.assert_array_equal(image, restored(prepared, weight=1.0, steps=3).image[0].numpy())
    assert maps.pseudo_healthy(["atlas"]) is None
