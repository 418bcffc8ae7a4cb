"""The harmonic continuation of the tissue around a hole."""

from __future__ import annotations

import numpy as np
import pytest

from medvae.lesions.fill import harmonic_fill

SPACING = (1.0, 2.0, 1.5)


def hole() -> np.ndarray:
    inside = np.zeros((12, 12, 12), bool)
    inside[4:8, 3:9, 5:8] = True
    return inside


def test_a_linear_field_continues_as_it_is() -> None:
    """Linear functions are harmonic, whatever the spacing."""
    x, y, z = np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij")
    field = (0.3 * x - 0.2 * y + 0.1 * z).astype(np.float32)
    spoiled = np.where(hole(), np.float32(9), field)
    filled = harmonic_fill(spoiled, hole(), known=np.ones_like(hole()), spacing=SPACING)
    assert np.abs(filled - field).max() < 1e-3


def test_nothing_but_the_hole_changes_and_no_value_is_beyond_those_around() -> None:
    """The maximum principle."""
    image = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    filled = harmonic_fill(image, hole(), known=np.ones_like(hole()), spacing=SPACING)
    assert np.array_equal(filled[~hole()], image[~hole()])
    assert image[~hole()].min() <= filled[hole()].min() < filled[hole()].max() <= image[~hole()].max()


def test_what_is_not_known_has_no_part_in_it() -> None:
    image = np.where(np.arange(12)[:, None, None] < 6, np.float32(1), np.float32(50)) * np.ones(
        (12, 12, 12), np.float32
    )
    known = np.broadcast_to(np.arange(12)[:, None, None] < 6, image.shape)
    filled = harmonic_fill(image, hole(), known=known, spacing=SPACING)
    assert filled[hole()] == pytest.approx(1, abs=1e-3)


def test_a_hole_that_touches_nothing_known_has_the_median() -> None:
    image = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    filled = harmonic_fill(image, hole(), known=np.zeros_like(hole()), spacing=SPACING)
    assert np.isfinite(filled).all()
    assert np.ptp(filled[hole()]) < 1e-3
