"""A lesion in a scan: changed where the mask is and nowhere else, without a step at the border."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medvae.lesions.crops import SIDE, frame
from medvae.lesions.implant import Lesion, implant, place_lesion
from medvae.scan import Geometry
from medvae.vae.distances import signed_distance

GRID = Geometry((30, 32, 28), np.diag([2.0, 2.0, 2.0, 1.0]))
PLACE = np.array([28.0, 30.0, 26.0])


def lesion(*, change: float = 3.0, detail: float = 1.0, sizes: tuple[float, float, float] = (14, 10, 8)) -> Lesion:
    """An ellipsoid, changed by the same value everywhere, beyond its border, too."""
    line = 2 * 1.7 / (SIDE - 1)
    distance = np.clip(signed_distance(np.linalg.norm(frame(), axis=0) < 1, (line,) * 3) / 0.5, -1, 1)
    values = np.full((SIDE, SIDE, SIDE), change, np.float32)
    return Lesion(values, distance.astype(np.float32), np.eye(3), np.array(sizes, float), detail)


def scan() -> np.ndarray:
    return np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)


def test_the_mask_is_where_the_image_was_changed() -> None:
    image, placed = scan(), place_lesion(lesion(), PLACE, GRID)
    assert placed is not None
    mask = np.zeros(GRID.shape, bool)
    mask[placed.box] = placed.mask
    assert mask.sum() * 8 == pytest.approx(4 / 3 * np.pi * 14 * 10 * 8, rel=0.1)
    change = implant(image, placed, foreground=np.ones_like(mask), geometry=GRID) - image
    assert change[mask] == pytest.approx(3, abs=1e-4)
    assert np.abs(change[~ndimage.binary_dilation(mask)]).max() == 0
    beside = ndimage.binary_dilation(mask) & ~mask
    assert np.abs(change[beside]).max() <= 1.5 + 1e-4, "less than half of it beside the mask"


def test_there_is_no_step_at_the_border() -> None:
    """Between the mask and what was not changed lies a voxel of less than half of the change."""
    image, placed = np.zeros(GRID.shape, np.float32), place_lesion(lesion(), PLACE, GRID)
    assert placed is not None
    made = implant(image, placed, foreground=np.ones(GRID.shape, bool), geometry=GRID)
    changed = made != 0
    mask = np.zeros(GRID.shape, bool)
    mask[placed.box] = placed.mask
    touching = ndimage.binary_dilation(~changed) & mask
    assert touching.sum() < 0.35 * (mask & ~ndimage.binary_erosion(mask)).sum()
    assert 0.3 < made[ndimage.binary_dilation(mask) & ~mask & changed].mean() < 1.6


def test_fine_structure_is_kept_by_the_share_that_lesions_keep() -> None:
    image = scan()
    spreads = []
    for detail in (1.0, 0.5, 0.0):
        placed = place_lesion(lesion(change=0.0, detail=detail), PLACE, GRID)
        assert placed is not None
        made = implant(image, placed, foreground=np.ones(GRID.shape, bool), geometry=GRID)
        core = ndimage.binary_erosion(placed.mask)
        spreads.append(float(made[placed.box][core].std()))
    assert spreads[1] == pytest.approx(spreads[0] / 2, rel=0.15)
    assert spreads[2] < 0.2 * spreads[0]


def test_the_background_stays_as_it_is() -> None:
    image, placed = scan(), place_lesion(lesion(), PLACE, GRID)
    assert placed is not None
    foreground = np.broadcast_to(np.arange(30)[:, None, None] < 14, GRID.shape)
    made = implant(image, placed, foreground=foreground, geometry=GRID)
    assert np.array_equal(made[~foreground], image[~foreground])
    assert not np.array_equal(made, image)


def test_a_place_outside_the_grid_or_a_lesion_of_no_voxel_is_none() -> None:
    assert place_lesion(lesion(), np.array([500.0, 0, 0]), GRID) is None
    assert place_lesion(lesion(sizes=(0.1, 0.1, 0.1)), PLACE + 1.0, GRID) is None


def test_the_largest_piece_is_the_lesion() -> None:
    one = lesion()
    one.distance[:, :, :2] = 1.0
    one.distance[:, :, 2:5] = -1.0
    placed = place_lesion(one, PLACE, GRID)
    assert placed is not None
    assert ndimage.label(placed.mask, np.ones((3, 3, 3)))[1] == 1
