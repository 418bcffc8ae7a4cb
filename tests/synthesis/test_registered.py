"""A warped patient is still that patient: registration brings the donor back, and no stranger."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from medvae.synthesis.nearest import TrainingImages
from medvae.synthesis.registered import RegisteredScans, residual

SHAPE = (24, 26, 22)


@cache
def people(n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Balls, each with a texture of its own."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, k) for k in SHAPE], indexing="ij"))
    mask = np.broadcast_to((np.square(at).sum(0) < 0.8)[None, None], (n, 1, *SHAPE))
    texture = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5) * 8 for _ in range(n)]
    return np.where(mask, np.stack(texture)[:, None] + 2, 0).astype(np.float32), mask


def warped(image: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """After a smooth displacement of about a voxel and a half."""
    rng = np.random.default_rng(seed)
    u = np.stack([ndimage.gaussian_filter(rng.normal(size=SHAPE), 4) for _ in range(3)])
    at = np.indices(SHAPE) + 1.5 * u / u.std()
    return ndimage.map_coordinates(image[0], at, order=1)[None].astype(np.float32)


def scans(*, background: float = 0.0, subjects: tuple[str, ...] = tuple("abcde")) -> RegisteredScans:
    images, masks = people()
    images = np.where(masks, images, background)
    known = TrainingImages.from_scans(images, masks, ids=list("abcde"), subjects=subjects, background=background)
    return RegisteredScans.of(known)


def distances(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    images, masks = people()
    return TrainingImages.from_scans(images, masks, ids=list("abcde"), subjects=list("abcde")).distances(image, mask)


def test_the_donor_of_a_warped_scan_is_found_by_registration() -> None:
    images, masks = people()
    sample = warped(images[2])
    before = np.sort(distances(sample, masks[2]))
    near = scans().nearest(sample, distances(sample, masks[2]))
    assert near is not None
    assert near.id == "c"
    assert near.ratio < 0.7 < 0.8 < before[0] / before[1], "clearer than without"
    own = scans().nearest(images[2], distances(images[2], masks[2]), without="c")
    assert own is not None
    assert own.id != "c"
    assert own.ratio > near.ratio + 0.2, "strangers are all alike after it"


def test_registration_lowers_the_difference_and_leaves_none_to_itself() -> None:
    images, _ = people()
    still, moving = images[0, 0], warped(images[0])[0]
    left = residual(moving, still)
    assert left < 0.6 * np.sqrt(np.square(moving - still)[(moving != 0) | (still != 0)].mean())
    assert residual(still, still) == pytest.approx(0, abs=1e-4)


def test_the_background_counts_for_nothing() -> None:
    """In CT it is −1: both are compared as if it were 0."""
    images, masks = people()
    sample = warped(images[1])
    plain = scans().nearest(sample, distances(sample, masks[1]))
    shifted = scans(background=-1.0)
    assert np.all(shifted.volumes[:, 0, 0, 0] == 0)
    assert plain is not None
    assert plain.id == "b"


def test_only_the_nearest_scan_of_each_subject_is_registered() -> None:
    images, masks = people()
    near = scans(subjects=("x", "x", "x", "y", "y")).nearest(images[0], distances(images[0], masks[0]))
    assert near is not None
    assert (near.id, near.distance) == ("a", pytest.approx(0, abs=1e-4))
    assert near.second > 0.1, "the second is of another subject"
    assert scans(subjects=("x",) * 5).nearest(images[0], np.arange(5.0), without="x") is None


def test_a_large_grid_is_averaged_down() -> None:
    image, mask = np.ones((1, 1, 100, 10, 10), np.float32), np.ones((1, 1, 100, 10, 10), bool)
    found = RegisteredScans.of(TrainingImages.from_scans(image, mask, ids=["a"], subjects=["a"]))
    assert (found.step, found.volumes.shape) == (3, (1, 34, 4, 4))
