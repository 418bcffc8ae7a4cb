"""Crops of lesions: centre, axes, sizes, change, and the same crop for a lesion that is turned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medvae.lesions.crops import SIDE, Crop, crops_of_mask, crops_of_scan
from medvae.scan import Geometry
from medvae.vae.distances import signed_distance

GRID = Geometry((40, 40, 40), np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -29], [0, 0, 1.5, -28], [0, 0, 0, 1]]))
SEMI = np.array([15.0, 9.0, 6.0])


def places() -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij"), -1)
    return index @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]


def ellipsoid(centre: tuple[float, float, float] = (1, -2, 3), turn: np.ndarray | None = None) -> np.ndarray:
    own = (places() - centre) @ (np.eye(3) if turn is None else turn)
    inside: np.ndarray = np.square(own / SEMI).sum(-1) < 1
    return inside


def crop(mask: np.ndarray, *, change: float = -2.0) -> Crop:
    """The one lesion in a field that rises linearly."""
    rising = (0.02 * places()[..., 0]).astype(np.float32)
    image = rising + np.float32(change) * mask
    whole = np.ones_like(mask)
    (found,) = crops_of_scan(image, mask, foreground=whole, geometry=GRID, source="a", least=3)
    return found


def test_place_sizes_and_axes_are_those_of_the_ellipsoid() -> None:
    turn = Rotation.from_euler("xyz", [0.5, -0.4, 0.3]).as_matrix()
    found = crop(ellipsoid(turn=turn))
    assert found.place == pytest.approx([1, -2, 3], abs=0.3)
    assert found.sizes == pytest.approx(SEMI, rel=0.06)
    assert np.abs(np.diag(turn.T @ found.axes)) == pytest.approx(1, abs=0.02)
    assert np.linalg.det(found.axes) == pytest.approx(1)


def test_a_turned_lesion_has_the_same_crop() -> None:
    straight = crop(ellipsoid())
    turned = crop(ellipsoid(turn=Rotation.from_euler("xyz", [0.5, -0.4, 0.3]).as_matrix()))
    assert straight.distance.shape == (SIDE, SIDE, SIDE)
    assert np.abs(straight.distance - turned.distance).mean() < 0.06


def test_the_change_is_relative_to_the_tissue_below() -> None:
    """Which rises from left to right: the continuation follows it."""
    found = crop(ellipsoid(), change=-2.0)
    assert found.known
    assert found.change == pytest.approx(-2, abs=0.02)
    assert np.median(found.profile[found.distance > 0]) == pytest.approx(1, abs=0.01)
    assert found.profile[found.distance > 0.2].mean() == pytest.approx(1, abs=0.1)
    assert (found.profile[~found.support] == 0).all()
    assert found.level == pytest.approx(0.02, abs=0.03)


def test_lesions_are_connected_pieces_of_a_least_size() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[5:8, 5:8, 5:8] = mask[20:22, 20, 20] = mask[30:34, 30, 30:32] = True
    mask[34, 31, 32] = True  # touches by a corner
    found = crops_of_mask(mask, geometry=GRID, source="m", least=3)
    assert [one.known for one in found] == [False, False]
    assert all(np.isnan(one.level) for one in found)
    assert (found[0].distance > 0).any()


def test_what_lies_outside_the_foreground_is_no_lesion() -> None:
    mask = ellipsoid()
    image = np.zeros(GRID.shape, np.float32)
    assert not crops_of_scan(image, mask, foreground=~mask, geometry=GRID, source="a", least=3)


def test_distances_are_zero_half_way_between_voxels() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6, 3:6, 3:6] = True
    line = signed_distance(mask, (2.0, 2.0, 2.0))[:, 4, 4]
    assert line.tolist() == [-5, -3, -1, 1, 3, 1, -1, -3, -5]
