"""Signed distances that are truncated: equal to whole ones within reach, and a likelihood that sums to 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvae.vae.distances import censored_log_prob, signed_distance, truncated_distance, truncated_distances

SPACING = (1.0, 2.0, 1.5)


def bar() -> np.ndarray:
    mask = np.zeros((12, 14, 10), bool)
    mask[4:8, 6:11, :3] = True
    return mask


@pytest.mark.parametrize("reach", [1.5, 4.0, 50.0])
def test_within_reach_it_is_the_signed_distance(reach: float) -> None:
    whole = signed_distance(bar(), SPACING)
    np.testing.assert_allclose(truncated_distance(bar(), SPACING, reach=reach), whole.clip(-reach, reach), atol=1e-5)
    assert whole[4, 8, 1] == pytest.approx(0.5), "half a voxel inside the border"
    assert whole[3, 8, 1] == pytest.approx(-0.5)


def test_masks_without_a_border_are_at_the_limit() -> None:
    everything = np.ones((4, 4, 4), bool)
    assert (truncated_distance(everything, SPACING, reach=3.0) == 3).all()
    assert (truncated_distance(~everything, SPACING, reach=3.0) == -3).all()


def test_each_structure_of_each_scan_has_its_own() -> None:
    label_map = torch.zeros(2, 1, 12, 14, 10, dtype=torch.int16)
    label_map[1, 0][torch.from_numpy(bar())] = 7
    found = truncated_distances(label_map, (7, 9), SPACING, reach=2.0)
    assert found.shape == (2, 2, 12, 14, 10)
    assert (found[0] == -2).all()
    assert (found[1, 1] == -2).all()
    np.testing.assert_array_equal(found[1, 0].numpy() > 0, bar())


@pytest.mark.parametrize("at", [-9.0, -1.0, 2.5, 30.0])
def test_the_likelihood_sums_to_one(at: float) -> None:
    """A density between the limits, and the mass of everything beyond them at the limits."""
    reach, log_scale = 3.0, torch.tensor(0.4)

    def p(distance: torch.Tensor) -> torch.Tensor:
        return censored_log_prob(distance, torch.full_like(distance, at), log_scale=log_scale, reach=reach).exp()

    between = torch.linspace(-reach, reach, 20001, dtype=torch.float64)[1:-1]
    ends = torch.tensor([-reach, reach], dtype=torch.float64)
    total = p(between).sum() * float(between[1] - between[0]) + p(ends).sum()
    assert float(total) == pytest.approx(1.0, abs=1e-3)


def test_beyond_the_reach_any_distance_is_as_good_and_gradients_are_finite() -> None:
    at = torch.tensor([-60.0, 8.0, 60.0, -60.0], requires_grad=True)
    target = torch.tensor([-5.0, 5.0, 5.0, 5.0])
    log_p = censored_log_prob(target, at, log_scale=torch.tensor(-1.0), reach=5.0)
    assert log_p[:3].abs().max() < 1e-6
    assert log_p[3] < -1000, "outside where it is inside"
    log_p.sum().backward()
    assert at.grad is not None
    assert torch.isfinite(at.grad).all()
    assert at.grad[3] > 0
