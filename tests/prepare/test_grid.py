"""One resampling: identity, smoothing before going coarser, what is inside, the axis order nearest to RAS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scans import ORIENTATIONS, centred, geometries, rotation
from scipy import ndimage

from medvae.prepare.grid import inside, nearest_ras, resample, resample_labels, smoothing, straight
from medvae.scan import Geometry


def noise(shape: tuple[int, int, int] = (9, 10, 11)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_the_identity_changes_no_bit() -> None:
    data = noise()
    for order in ("C", "F"):
        np.testing.assert_array_equal(resample(np.array(data, order=order), np.eye(4), data.shape), data)
    labels = (data > 0).astype(np.int16) * 9
    np.testing.assert_array_equal(resample_labels(labels, np.eye(4), data.shape), labels)


@pytest.mark.parametrize("turn", ORIENTATIONS[::5])
def test_turning_the_axes_moves_voxels_exactly(turn: np.ndarray[Any, Any]) -> None:
    data = noise()
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = np.where(turn.sum(axis=1) < 0, np.array(data.shape) - 1, 0)
    order = np.abs(turn).argmax(axis=0)
    shape = tuple(data.shape[axis] for axis in order)
    flips = [new for new in range(3) if turn[order[new], new] < 0]
    np.testing.assert_array_equal(resample(data, matrix, shape), np.flip(data.transpose(order), flips))


def test_against_scipy_on_an_oblique_matrix() -> None:
    data = noise((12, 13, 14))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(10, 20, 30) * 0.7
    matrix[:3, 3] = 3, 2, 1
    inner = inside(matrix, (8, 8, 8), of=data.shape)
    theirs = ndimage.affine_transform(data, matrix[:3, :3], matrix[:3, 3], (8, 8, 8), order=1, mode="nearest")
    np.testing.assert_allclose(resample(data, matrix, (8, 8, 8))[inner], theirs[inner], atol=1e-5)
    assert (resample(data, matrix, (8, 8, 8), outside=-7)[~inner] == -7).all()


def test_inside_is_where_resample_interpolates() -> None:
    """Voxel centres that fall exactly onto the edge of the scan are outside, for both."""
    ones = np.ones((6, 6, 6), np.float32)
    matrix = np.diag([0.5, 1, 1, 1])
    matrix[0, 3] = -1.0
    seen = inside(matrix, (16, 6, 6), of=ones.shape)[:, 3, 3]
    np.testing.assert_array_equal(np.flatnonzero(seen), range(2, 13))  # at −0.5 and 5.5 lie the edges
    assert (resample(ones, matrix, (16, 6, 6))[2:13] == 1).all()
    assert not resample(ones, matrix, (16, 6, 6))[[0, 14, 15]].any()


@pytest.mark.parametrize(
    ("factor", "expected"), [(0.5, 0.0), (1.0, 0.0), (2.0, np.sqrt(3) / 2.3548), (4.0, np.sqrt(15) / 2.3548)]
)
def test_smoothing_only_before_going_coarser(factor: float, expected: float) -> None:
    np.testing.assert_allclose(smoothing(np.diag([factor, 1, 1, 1])), [expected, 0, 0], atol=1e-4)


def test_smoothing_follows_the_input_axis_it_is_needed_on() -> None:
    matrix = np.zeros((4, 4))
    matrix[0, 2], matrix[1, 0], matrix[2, 1], matrix[3, 3] = (
        1.0,
        3.0,
        1.0,
        1.0,
    )  # the output's first axis is input axis 1
    assert smoothing(matrix)[1] > 1
    assert not smoothing(matrix)[[0, 2]].any()


def test_going_coarser_keeps_means_and_drops_what_the_grid_cannot_show() -> None:
    checkers = (np.indices((32, 32, 32)).sum(axis=0) % 2).astype(np.float32)
    matrix = np.diag([4.0, 4.0, 4.0, 1.0])
    matrix[:3, 3] = 1.5
    coarse = resample(checkers, matrix, (8, 8, 8))
    np.testing.assert_allclose(coarse[1:-1, 1:-1, 1:-1], 0.5, atol=1e-3)  # unsmoothed it would be an alias
    total = resample(ndimage.gaussian_filter(noise((32, 32, 32)), 4), matrix, (8, 8, 8))
    assert np.isfinite(total).all()


def test_labels_are_never_mixed() -> None:
    labels = np.random.default_rng(0).choice([0, 5, 300, -2], (8, 8, 8)).astype(np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(20, 10, 5) * 0.6
    assert set(np.unique(resample_labels(labels, matrix, (12, 12, 12)))) <= {0, 5, 300, -2}
    assert resample_labels(labels > 0, matrix, (4, 4, 4)).dtype == np.int16


@given(geometry=geometries(shear=True))
def test_nearest_ras_turns_and_never_mirrors(geometry: Geometry) -> None:
    turn = nearest_ras(geometry)
    assert sorted(np.abs(turn[:3, :3]).ravel()) == [0] * 6 + [1] * 3
    affine = geometry.affine @ turn
    assert np.linalg.det(affine[:3, :3]) > 0
    lengths = np.array(geometry.shape) @ np.abs(turn[:3, :3])
    corners = Geometry(tuple(int(n) for n in lengths), affine).corners()
    mine = {tuple(row) for row in np.round(corners, 6)}
    assert mine == {tuple(row) for row in np.round(geometry.corners(), 6)}  # the same box


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_nearest_ras_of_every_axis_order(turn: np.ndarray[Any, Any]) -> None:
    geometry = centred((8, 9, 10), rotation(12, -9, 20) @ turn @ np.diag([1, 2, 3]))
    linear = (geometry.affine @ nearest_ras(geometry))[:3, :3]
    directions = linear / np.linalg.norm(linear, axis=0)
    if np.linalg.det(turn) > 0:
        np.testing.assert_allclose(directions, rotation(12, -9, 20), atol=1e-9)
    assert (np.diag(directions) > 0.8).all()


@given(angles=st.tuples(*[st.floats(-180, 180)] * 3), shear=st.floats(-0.5, 0.5))
def test_straight_axes(angles: tuple[float, float, float], shear: float) -> None:
    turned = rotation(*angles)
    linear = turned @ np.diag([1, 2, 0.5]) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    found = straight(centred((5, 5, 5), linear), np.eye(4))
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)
    if shear == 0:
        np.testing.assert_allclose(found, turned, atol=1e-9)
