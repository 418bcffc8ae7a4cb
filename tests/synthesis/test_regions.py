"""A sample that copies one part of one patient is found by that part."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medvae.synthesis.compared import Compared
from medvae.synthesis.limits import RATE, KnownCopy, Limits, ratio_limit
from medvae.synthesis.nearest import Nearest, TrainingImages
from medvae.synthesis.regions import BLOCKS, Regions

SHAPE = (24, 24, 24)
N = 12


def texture(rng: np.random.Generator) -> np.ndarray:
    return (ndimage.gaussian_filter(rng.normal(size=SHAPE), 1) * 5)[None].astype(np.float32)


def known() -> tuple[Regions, Limits, np.ndarray]:
    """Twelve people with a foreground that leaves out a corner, and the limits of their blocks."""
    rng = np.random.default_rng(0)
    masks = np.ones((N, 1, *SHAPE), bool)
    masks[:, :, :6, :6, :6] = False
    masks[0, :, 0, 0, 0] = True  # the corner belongs to the box, and holds hardly any foreground
    images = np.where(masks, np.stack([texture(rng) for _ in range(N)]), 0).astype(np.float32)
    names = [f"p{i}" for i in range(N)]
    regions = Regions.of(TrainingImages.from_scans(images, masks, ids=names, subjects=names))
    found = [regions.nearest(images[i], masks[i], without=names[i]) for i in range(N)]
    copies = [KnownCopy(0.0, Compared(Nearest("p0", 1.0, 1.0), None, blocks)) for blocks in found]
    return regions, Limits.fit(copies), images


def test_blocks_with_hardly_any_foreground_are_left_out() -> None:
    regions, limits, _ = known()
    assert regions.count == BLOCKS**3 - 1
    assert len(limits.blocks) == regions.count


def test_distances_are_those_of_the_voxels_of_each_block() -> None:
    regions, _, images = known()
    image, mask = images[3].copy(), np.ones((1, *SHAPE), bool)
    image[:, 18:, 18:, 18:] += 2
    found = regions.distances(image, mask)[3]
    assert found[-1] == pytest.approx(2, rel=1e-5)
    assert found[:-1] == pytest.approx(0)


def test_a_copied_part_is_found_and_named() -> None:
    regions, limits, images = known()
    sample, mask = texture(np.random.default_rng(99)), np.ones((1, *SHAPE), bool)
    new = Compared(Nearest("p0", 9.0, 9.0), None, regions.nearest(sample, mask))
    assert limits.found_by(new) == ()
    sample[:, :12, 12:, 12:] = images[7, :, :12, 12:, 12:]  # an eighth of the grid
    copied = Compared(Nearest("p0", 9.0, 9.0), None, regions.nearest(sample, mask))
    region = limits.region(copied.blocks)
    assert (region.id, region.share) == ("p7", pytest.approx(8 / 63, abs=0.02))
    assert limits.found_by(copied) == ("region",)


def test_new_people_fall_below_a_ratio_limit_as_rarely_as_it_says() -> None:
    """The limit of n people is exact where 1 − ratio is exponential, also for few of them."""
    rng = np.random.default_rng(0)
    for n in (4, 20):
        ratios = 1 - rng.exponential(0.02, size=(n, 40_000))
        new = 1 - rng.exponential(0.02, size=40_000)
        assert np.mean(new < ratio_limit(ratios)) == pytest.approx(RATE, rel=0.15)
    assert np.isnan(ratio_limit(np.zeros(0)))


def test_a_ratio_that_is_not_known_has_no_say() -> None:
    assert ratio_limit(np.array([0.98, np.nan, 0.96])) == pytest.approx(ratio_limit(np.array([0.98, 0.96])))
