from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvae.detector import shapes
from medvae.detector.shapes import draw_shape

SPACING = (2.0, 2.0, 3.0)


def ball(side: int = 40) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 3, indexing="ij")
    return np.asarray(sum(a**2 for a in axes) < (0.45 * side) ** 2)


@given(seed=st.integers(0, 500))
def test_a_shape_is_foreground_inside_its_box(seed: int) -> None:
    foreground = ball()
    box, shape = draw_shape(foreground, spacing=SPACING, rng=np.random.default_rng(seed))
    assert shape.shape == foreground[box].shape
    assert shape.any()
    assert not (shape & ~foreground[box]).any()
    assert shape.sum() <= np.ceil(0.12 * foreground.sum())


def test_volumes_cover_the_range_and_kinds_differ() -> None:
    foreground = ball(60)
    drawn = [draw_shape(foreground, spacing=SPACING, rng=np.random.default_rng(seed))[1] for seed in range(60)]
    millilitres = np.array([one.sum() * np.prod(SPACING) / 1000 for one in drawn])
    assert millilitres.min() < 0.5
    assert millilitres.max() > 30


@pytest.mark.parametrize("kind", ["_ellipsoid", "_brick", "_blob", "_scatter"])
def test_only_scattered_pieces_fall_apart(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import ndimage

    monkeypatch.setattr(shapes, "_KINDS", (getattr(shapes, kind),))
    monkeypatch.setattr(shapes, "_MILLILITRES", (8.0, 8.1))
    counts = []
    for seed in range(6):
        _, shape = draw_shape(ball(), spacing=SPACING, rng=np.random.default_rng(seed))
        counts.append(ndimage.label(shape)[1])
    assert (np.median(counts) > 3) == (kind == "_scatter")


def test_the_smallest_foreground_still_gives_a_shape() -> None:
    foreground = np.zeros((5, 5, 5), bool)
    foreground[2, 2, 2] = True
    box, shape = draw_shape(foreground, spacing=SPACING, rng=np.random.default_rng(0))
    assert shape.sum() == 1
    assert foreground[box][shape].all()


def test_ellipsoids_are_turned() -> None:
    axes = np.stack(np.meshgrid(*[np.arange(-12.0, 13.0)] * 3, indexing="ij")).astype(np.float32)
    slants = []
    for seed in range(20):
        radius = -shapes._rounded(axes, 2.0, np.random.default_rng(seed))
        spread = np.cov(axes[:, radius < 6])
        slants.append(np.abs(spread - np.diag(np.diag(spread))).max() / np.diag(spread).mean())
    assert np.median(slants) > 0.1
