from __future__ import annotations

import numpy as np
import pytest
import torch

from medvae.detector.features import ALIGNED, UNALIGNED, Usual, features
from medvae.detector.network import Detector, build
from medvae.scan import Geometry

SHAPE = (16, 18, 20)  # 18 and 20 are no multiples of the stride
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[0, 3] = -15.0  # the middle plane lies between voxels 7 and 8
GRID = Geometry(SHAPE, AFFINE)


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[2:14, 2:16, 2:18] = True
    return np.where(mask, rng.normal(size=SHAPE), 0).astype(np.float32), mask


def usual() -> Usual:
    return Usual.of_scans([scan(seed) for seed in range(12)], GRID)


def detector(*, aligned: bool = True) -> Detector:
    net = build((4, 8, 8), GRID, aligned=aligned, seed=0)
    if aligned:
        net.compare_with(usual())
    return net.eval()


def test_features_are_those_of_the_plain_formulas() -> None:
    (image, mask), healthy = scan(50), usual()
    found = features(image, mask, grid=GRID, usual=healthy)
    z = (image - healthy.image.mean) / healthy.image.sd
    side = (image - image[::-1] - healthy.difference.mean) / healthy.difference.sd
    rows = [image, image - healthy.image.mean, z / 3, np.abs(z) - 0.8, side / 3, np.abs(side) - 0.8]
    assert found.shape == (ALIGNED, *SHAPE)
    for ours, plain in zip(found, rows, strict=True):
        np.testing.assert_allclose(ours[mask], plain[mask], rtol=1e-4, atol=1e-4)
        assert not ours[~mask].any()


def test_a_box_has_the_features_of_the_whole() -> None:
    (image, mask), healthy = scan(51), usual()
    box = (slice(1, 9), slice(4, 12), slice(0, 8))
    whole = features(image, mask, grid=GRID, usual=healthy)
    np.testing.assert_array_equal(features(image, mask, grid=GRID, usual=healthy, box=box), whole[(slice(None), *box)])


def test_without_alignment_the_image_is_all_there_is() -> None:
    image, mask = scan(52)
    assert features(image, mask, grid=GRID, usual=None).shape == (UNALIGNED, *SHAPE)


@pytest.mark.parametrize("aligned", [True, False])
def test_log_odds_of_any_grid_0_outside_the_foreground(aligned: bool) -> None:
    image, mask = scan(53)
    odds = detector(aligned=aligned).log_odds(image[None], mask[None])
    assert odds.shape == SHAPE
    assert odds.dtype == np.float32
    assert not odds[~mask].any()
    assert odds[mask].mean() < -1, "before training most voxels are usual"


@pytest.mark.parametrize("aligned", [True, False])
def test_a_denoiser_changes_nothing_before_training_and_nothing_outside_the_foreground_after_it(aligned: bool) -> None:
    image, mask = scan(55)
    net = detector(aligned=aligned)
    assert not net.change(image[None], mask[None]).any()
    torch.nn.init.ones_(net.denoiser.last[-1].bias)
    change = net.change(image[None], mask[None])
    assert (change.shape, change.dtype) == ((1, *SHAPE), np.float32)
    assert (change[0][mask] == 1).all()
    assert not change[0][~mask].any()
    np.testing.assert_array_equal(net.change(np.where(mask, image, -7).astype(np.float32)[None], mask[None]), change)


def test_what_features_compare_with_is_kept_with_the_weights() -> None:
    net, copy = detector(), build((4, 8, 8), GRID, aligned=True, seed=1).eval()
    copy.load_state_dict(net.state_dict())
    image, mask = scan(54)
    np.testing.assert_array_equal(copy.log_odds(image[None], mask[None]), net.log_odds(image[None], mask[None]))
    assert copy.usual is not None
    np.testing.assert_array_equal(copy.usual.image.sd, usual().image.sd)


def test_the_size_of_a_feature_reaches_the_output() -> None:
    """A norm over one scan would divide it out."""
    net = detector(aligned=False)
    with torch.no_grad():
        small, large = (net.finder(gain * torch.ones(1, 1, 8, 8, 8)) for gain in (0.1, 10.0))
    assert not torch.allclose(small, large, atol=1e-3)


def test_the_seed_alone_makes_the_weights() -> None:
    torch.manual_seed(7)
    first = build((4, 8), GRID, aligned=True, seed=3).state_dict()
    torch.manual_seed(8)
    second = build((4, 8), GRID, aligned=True, seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
