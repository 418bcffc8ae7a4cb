"""Binary shapes in one piece: crumbs are taken off, a broken shape is left for the audit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toy_model import toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.pieces import CRUMBS, all_in_one_piece, share_of_largest, without_crumbs


def tube(*crumbs: tuple[int, int, int], gap: slice | None = None) -> np.ndarray:
    shape = np.zeros((24, 12, 12), bool)
    shape[2:22, 4:7, 4:7] = True
    for at in crumbs:
        shape[at] = True
    if gap is not None:
        shape[gap] = False
    return shape


def test_crumbs_go_and_the_shape_stays() -> None:
    with_crumbs = tube((0, 0, 0), (23, 11, 11))
    assert not all_in_one_piece([tube(), with_crumbs])
    assert np.array_equal(without_crumbs(with_crumbs), tube())


def test_a_broken_shape_is_left_as_it_is() -> None:
    broken = tube(gap=slice(9, 11))
    assert share_of_largest(broken) == pytest.approx(11 / 18)
    assert np.array_equal(without_crumbs(broken), broken)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    shape = np.zeros((4, 4, 4), bool)
    shape[0, 0, 0] = shape[1, 1, 1] = True
    assert share_of_largest(shape) == 1


def test_nothing_has_no_piece() -> None:
    nothing = np.zeros((4, 4, 4), bool)
    assert share_of_largest(nothing) == 0
    assert not without_crumbs(nothing).any()
    assert not all_in_one_piece([nothing])


@given(arrays.arrays(bool, (6, 6, 6), elements=st.booleans()))
def test_it_only_takes_away_and_little(shape: np.ndarray) -> None:
    left = without_crumbs(shape)
    assert not (left & ~shape).any()
    assert left.sum() >= (1 - CRUMBS) * shape.sum()
    assert np.array_equal(without_crumbs(left), left)


def binary_samples(monkeypatch: pytest.MonkeyPatch, *, crumb: bool) -> list[float]:
    """Shares of the largest piece of two samples whose decoder adds a crumb; real shapes have one as well, or none."""
    model = toy_model(prepare={"modality": "SHAPE", "intensity": "none"})
    images = model.training.images.copy()
    images[:] = 0
    images[:, :, 2:14, 2:14, 2:14] = 1
    if crumb:
        images[:, :, 0, 0, 0] = 1
    shaped = replace(model, training=replace(model.training, images=images))
    finish = generate.finish

    def broken(*args: object) -> np.ndarray:
        image = finish(*args)  # type: ignore[arg-type]
        image[:] = images[0]
        image[:, -1, -1, -1] = 1
        return image

    monkeypatch.setattr(generate, "finish", broken)
    made = generate.fit(shaped, AugmentSettings(sampler="density"), seed=0)
    return [share_of_largest(made.sample(index).image[0] > 0.5) for index in range(2)]


def test_samples_are_in_one_piece_where_all_scans_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert binary_samples(monkeypatch, crumb=False) == [1, 1]


def test_crumbs_stay_where_scans_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(binary_samples(monkeypatch, crumb=True)) < 1
