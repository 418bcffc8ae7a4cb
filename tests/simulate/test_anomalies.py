"""Simulated anomalies change the brain at their place, in their direction, and nothing outside it."""

from __future__ import annotations

import numpy as np
import pytest

from medvae.simulate.anomalies import KINDS, add_anomaly
from medvae.simulate.scanners import CHANGES, changed_by_scanner

SHAPE, SPACING = (48, 52, 44), (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def brain() -> tuple[np.ndarray, np.ndarray]:
    """White matter in a rind of grey matter, fluid in the middle."""
    at = np.indices(SHAPE).astype(np.float32)
    radius = np.sqrt(sum(((a - n / 2) / (n / 2 - 2)) ** 2 for a, n in zip(at, SHAPE, strict=True)))
    inside = radius < 1
    values = np.select([radius < 0.2, radius < 0.75], [-2.0, 1.0], -0.3)
    values += np.random.default_rng(0).normal(0, 0.1, SHAPE)
    return np.where(inside, values, 0).astype(np.float32), inside


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_brain_changes_and_the_truth_lies_in_it(brain: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    image, inside = brain
    for seed in range(3):
        made = add_anomaly(image, inside, kind=kind, spacing=SPACING, rng=np.random.default_rng(seed))
        assert (made.image[~inside] == image[~inside]).all()
        assert made.truth.any()
        assert not made.truth[~inside].any()
        change = np.abs(made.image - image)
        assert change[made.truth].mean() > 4 * change[inside & ~made.truth].mean()


@pytest.mark.parametrize(("kind", "sign"), [("dark spots", -1), ("bright spots", 1)])
def test_spots_have_their_sign(brain: tuple[np.ndarray, np.ndarray], kind: str, sign: int) -> None:
    image, inside = brain
    made = add_anomaly(image, inside, kind=kind, spacing=SPACING, rng=np.random.default_rng(1))
    assert sign * (made.image - image)[made.truth].mean() > 0.2


def test_white_matter_is_darker_on_both_sides_alike(brain: tuple[np.ndarray, np.ndarray]) -> None:
    image, inside = brain
    for seed in range(3):
        made = add_anomaly(image, inside, kind="both sides", spacing=SPACING, rng=np.random.default_rng(seed))
        middle = SHAPE[0] // 2
        left, right = made.truth[:middle], np.flip(made.truth, axis=0)[:middle]
        assert (left & right).sum() > 0.4 * (left | right).sum()
        assert (made.image - image)[made.truth].max() < 0, "darker throughout"
        assert (image[made.truth] > 0.5).mean() > 0.9, "in white matter"


def test_the_same_seed_gives_the_same_anomaly(brain: tuple[np.ndarray, np.ndarray]) -> None:
    image, inside = brain
    one, two = (
        add_anomaly(image, inside, kind="tumour", spacing=SPACING, rng=np.random.default_rng(5)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.truth, two.truth)


@pytest.mark.parametrize("change", CHANGES)
def test_a_scanner_changes_intensities_and_keeps_the_order_of_tissues(
    brain: tuple[np.ndarray, np.ndarray], change: str
) -> None:
    image, inside = brain
    made = changed_by_scanner(image, inside, change=change, spacing=SPACING, rng=np.random.default_rng(2))
    assert (made[~inside] == image[~inside]).all()
    assert (change == "none") == bool((made == image).all())
    assert np.corrcoef(made[inside], image[inside])[0, 1] > 0.8
