"""A copy that was shifted by a little or mirrored is found as a copy; real scans are compared with the same freedom."""

from __future__ import annotations

import numpy as np
import pytest
from toy_model import toy_model

from medvae.synthesis import copies
from medvae.synthesis.moves import MOVES, Move, best_moves, probe


def image(seed: int = 0) -> np.ndarray:
    values = np.zeros((1, 12, 11, 10), np.float32)
    values[:, 3:-3, 3:-3, 3:-3] = np.random.default_rng(seed).normal(size=(1, 6, 5, 4))
    return values


def test_a_move_shifts_along_the_axes_and_fills_the_edge() -> None:
    values = image()
    moved = Move(False, (1, 0, -2)).apply(values, fill=7.0)
    np.testing.assert_array_equal(moved[:, 1:, :, :-2], values[:, :-1, :, 2:])
    assert (moved[:, 0] == 7).all()
    assert (moved[:, :, :, -2:] == 7).all()
    np.testing.assert_array_equal(Move(True, (0, 0, 0)).apply(values, fill=0), values[:, ::-1])


def test_the_first_move_is_none() -> None:
    np.testing.assert_array_equal(MOVES[0].apply(image(), fill=0), image())
    assert len(set(MOVES)) == 250


@pytest.mark.parametrize("number", [0, 1, 17, 124, 125, 200, 249])
def test_the_best_move_is_found(number: int) -> None:
    values, region = image(), np.ones((1, 12, 11, 10), bool)
    at = probe(region)
    known = np.stack([MOVES[number].apply(values, fill=0).ravel(), image(1).ravel()])[:, at]
    best, squares = best_moves(values, known, at, fill=0.0)
    assert best[0] == number
    assert squares[0] == pytest.approx(0, abs=1e-3)
    assert squares[1] > 10


@pytest.mark.parametrize("move", [Move(False, (2, -1, 1)), Move(True, (0, 0, 0)), Move(True, (1, 1, -2))])
def test_a_moved_copy_is_flagged(move: Move) -> None:
    """The toy model's scans end before the edge of the grid: what is moved out of it is background."""
    model = toy_model(n=12)
    training = model.training
    screen = copies.fit(model)
    values, mask = training.images[3].astype(np.float32), training.masks[3].copy()
    values[:, :2], values[:, -2:], mask[:, :2], mask[:, -2:] = 0, 0, False, False
    moved = move.apply(values, fill=0), move.apply(mask, fill=False)
    found = screen.check(*moved, None)
    assert found.image is not None
    assert found.image.id == "scan-03"
    plain = screen.comparison.images.distances(*moved)[3]  # type: ignore[union-attr]
    assert found.image.distance < 0.6 * plain
    assert found.copy is True
