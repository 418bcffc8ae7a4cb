from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medvae.detector.corruption import _nested, corrupt
from medvae.detector.tasks import TASKS

SPACING = (2.0, 2.0, 2.0)


def head(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth tissue with noise in a ball of 40 voxels; background 0."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    mask = np.asarray(sum(a**2 for a in axes) < 17**2)
    tissue = ndimage.gaussian_filter(rng.normal(size=mask.shape), 2)
    image = tissue / tissue.std() + 0.05 * rng.normal(size=mask.shape)
    return np.where(mask, image, 0).astype(np.float32), mask


def made(task: str, seed: int, *, gain: float = 1.0):
    (image, mask), (donor, _) = head(), head(1)
    rng = np.random.default_rng(seed)
    return corrupt(
        (gain * image).astype(np.float32), mask, donor=gain * donor, tasks=[task], count=2, spacing=SPACING, rng=rng
    )


@pytest.mark.parametrize("task", TASKS)
def test_what_is_marked_was_changed_and_the_rest_was_not(task: str) -> None:
    image, mask = head()
    found = [made(task, seed) for seed in range(8)]
    for one in found:
        assert one.image.dtype == one.target.dtype == np.float32
        assert np.isfinite(one.image).all()
        assert one.target.min() >= 0
        assert one.target.max() <= 1
        assert not one.target[~mask].any()
        np.testing.assert_array_equal(one.image[~mask], image[~mask])
    changes = np.concatenate([np.abs(one.image - image)[mask] for one in found])
    targets = np.concatenate([one.target[mask] for one in found])
    assert (targets > 0.5).any(), "something is anomalous"
    assert changes[targets > 0.5].mean() > 10 * changes[targets < 0.01].mean()
    assert changes[targets > 0.5].mean() > 0.2


@pytest.mark.parametrize("task", TASKS)
def test_the_same_numbers_give_the_same_anomalies(task: str) -> None:
    first, second = made(task, 3), made(task, 3)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.target, second.target)


@pytest.mark.parametrize("task", TASKS)
def test_the_unit_of_the_image_does_not_matter(task: str) -> None:
    one, larger = made(task, 5), made(task, 5, gain=8.0)
    np.testing.assert_allclose(larger.target, one.target, atol=0.02)
    np.testing.assert_allclose(larger.image / 8, one.image, atol=0.05)


def test_no_value_falls_below_the_darkest_fluid() -> None:
    image, mask = head()
    floor = np.percentile(image[mask], 0.5)
    lowest = min(float(made("shift", seed).image[mask].min()) for seed in range(6))
    assert lowest >= min(image[mask].min(), floor) - 1e-5


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 4.0), (2.0, 2.0, 2.0), (0.8, 1.6, 8.0)])
def test_rims_are_as_wide_along_every_axis(spacing: tuple[float, float, float]) -> None:
    """2, 4, 6 or 8 mm, or one voxel where that is more."""
    block = np.zeros((60, 50, 24), bool)
    block[12:48, 12:38, 6:18] = True
    for seed in range(30):
        made = _nested(block, spacing=spacing, rng=np.random.default_rng(seed))
        begins = [int(np.flatnonzero(line)[0]) for line in (made[:, 25, 12], made[30, :, 12], made[30, 25, :])]
        widths = [abs(at - edge) for at, edge in zip(begins, (12, 12, 6), strict=True)]
        pairs = list(zip(widths, spacing, strict=True))
        if any(widths):  # not the rim within the block, which begins where the block does
            assert any(all(abs(n * mm - width) <= 0.51 * mm or n == 1 for n, mm in pairs) for width in (2, 4, 6, 8))
