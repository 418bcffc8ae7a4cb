"""A brain that was scaled inside its mask is the same scan: its background says nothing, whatever its value."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from made_scans import MNI, aligned_brain, as_scan, centred, made_brain, rotation
from scipy import ndimage

from medvae.prepare.background import darkened, find_background
from medvae.prepare.foreground import find_foreground
from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.scan import Scan
from medvae.settings import PrepareSettings

GEOMETRY = centred((28, 30, 32), rotation(5, 10, -5) @ np.diag([2.0, 2, 2]))
DISTANCE = np.linalg.norm(np.indices(GEOMETRY.shape).T - (np.array(GEOMETRY.shape) - 1) / 2, axis=-1).T
BALL = DISTANCE < 11
NOISE = np.random.default_rng(0)
# a magnitude image: white and grey matter with noise, fluid near 0
TISSUE = np.abs(np.where(NOISE.random(GEOMETRY.shape) < 0.2, 60, 400) + NOISE.normal(0, 60, GEOMETRY.shape)).clip(1)
RAW = np.where(BALL, TISSUE, 0.0)
Z = (RAW - RAW[BALL].mean()) / RAW[BALL].std()
RECIPE = Preparation(PrepareSettings(spacing=(3, 3, 3), shape=(24, 24, 24)))


def scan(data: np.ndarray[Any, Any], **more: Any) -> Scan:
    return Scan(np.asfortranarray(data, np.float32), GEOMETRY, modality="MR", **more)


@cache
def raw() -> Prepared:
    return prepare(scan(RAW), RECIPE)


def apart(one: Prepared, other: Prepared) -> float:
    """Largest difference of prepared values: unit is the tissue's spread."""
    assert (one.mask != other.mask).mean() < 0.001
    both = one.mask & other.mask
    return float(np.abs(one.image - other.image)[both].max())


def with_clipped_tails() -> np.ndarray[Any, Any]:
    low, high = np.percentile(RAW[BALL], (0.5, 99.5))
    clipped = RAW.clip(low, high)
    return np.where(BALL, (clipped - clipped[BALL].mean()) / clipped[BALL].std(), 0)


SCALED = {
    "z-scores, background 0": np.where(BALL, Z, 0),
    "z-scores, background at the minimum": np.where(BALL, Z, Z[BALL].min()),
    "z-scores of all voxels": (RAW - RAW.mean()) / RAW.std(),
    "z-scores, background at -10": np.where(BALL, Z, -10),
    "z-scores, background at -1000": np.where(BALL, Z, -1000),
    "z-scores, background above": np.where(BALL, Z, 5),
    "z-scores in float16": np.where(BALL, Z, 0).astype(np.float16),
    "tails clipped, then z-scores": with_clipped_tails(),
    "-1 to 1, background 0": np.where(BALL, 2 * RAW / RAW.max() - 1, 0),
    "-1 to 1, background -1": 2 * RAW / RAW.max() - 1,
    "0 to 1": RAW / RAW.max(),
    "shifted": RAW + 1000,
}


@pytest.mark.parametrize("name", SCALED)
def test_scaling_inside_a_mask_changes_nothing(name: str) -> None:
    assert apart(prepare(scan(SCALED[name]), RECIPE), raw()) < 0.25


@pytest.mark.parametrize("name", SCALED)
def test_nor_with_a_mask_in_the_list(name: str) -> None:
    inner = DISTANCE < 9
    one, other = (prepare(scan(data), RECIPE, mask=inner) for data in (SCALED[name], RAW))
    assert apart(one, other) < 0.25


def test_z_scores_in_coarse_steps() -> None:
    """Much of the tissue then has the value of the background; of the rim a few voxels are lost to it."""
    one = prepare(scan(np.where(BALL, np.rint(Z / 0.05) * 0.05, 0)), RECIPE)
    both = one.mask & raw().mask
    assert np.abs(one.image - raw().image)[both].mean() < 0.05
    assert both.sum() > 0.99 * raw().mask.sum()


def test_mixing_the_background_in_would_be_seen() -> None:
    """The bound above is no wide one."""
    naive = prepare(
        scan(np.where(BALL, Z, 0)),
        Preparation(PrepareSettings(spacing=(3, 3, 3), shape=(24, 24, 24), foreground="whole")),
    )
    both = naive.mask & raw().mask
    values = (naive.intensity.invert(naive.image) - Z[BALL].mean()) / Z[BALL].std()
    mine = (raw().intensity.invert(raw().image) - RAW[BALL].mean()) / RAW[BALL].std()
    assert np.abs(values - mine)[both].max() > 1


def test_magnitude_images_are_left_as_they_are() -> None:
    for data in (RAW, RAW / 7, np.where(BALL, TISSUE + 3000, 0), np.where(BALL, TISSUE, 0) - 50):
        one = scan(data)
        background = find_background(one)
        assert not background.odd
        assert darkened(one, background) is one
    ringing = np.where(NOISE.random(GEOMETRY.shape) < 0.02, -RAW, RAW)  # a spline leaves a few values below 0
    assert not find_background(scan(ringing)).odd


def test_tissue_with_the_value_of_the_background_is_tissue() -> None:
    """Single voxels, and small groups of them as a coarser scan leaves when it is resampled."""
    z = np.where(BALL, Z, 0)
    z[14, 15, 16] = z[10:12, 15:17, 16:18] = 0
    found = find_foreground(scan(z), PrepareSettings())
    np.testing.assert_array_equal(found, BALL)


def test_a_cavity_that_was_masked_out_stays_dark() -> None:
    cavity = np.linalg.norm(np.indices(GEOMETRY.shape).T - np.array([13, 14, 15]), axis=-1).T < 4
    one, other = (prepare(scan(np.where(cavity, 0, data)), RECIPE) for data in (np.where(BALL, Z, 0), RAW))
    assert apart(one, other) < 0.25
    middle = np.unravel_index(ndimage.distance_transform_edt(one.mask[0]).argmax(), one.mask[0].shape)
    assert one.image[0][middle] < -1.5


def test_one_dark_voxel_does_not_darken_the_rim() -> None:
    z = np.where(BALL, Z, 0)
    z[14, 15, 16] = -80
    assert find_background(scan(z)).stands_for > -5


def test_what_is_done_is_said() -> None:
    (warning,) = prepare(scan(np.where(BALL, Z, 0)), RECIPE).warnings
    assert warning.startswith("unusual background value 0 ")
    assert raw().warnings == ()


def test_values_stay_in_the_units_of_the_scan() -> None:
    one = prepare(scan(np.where(BALL, Z, 0)), RECIPE)
    assert one.intensity.invert(one.image)[one.mask].mean() == pytest.approx(Z[BALL].mean(), abs=0.3)


def test_filled_voxels_say_nothing_about_the_background() -> None:
    valid = np.ones(GEOMETRY.shape, bool)
    valid[12:15, 13:16, 14:17] = False
    one = prepare(scan(np.where(valid, np.where(BALL, Z, 0), -500), valid=valid), RECIPE)
    other = prepare(scan(np.where(valid, RAW, 9e5), valid=valid), RECIPE)
    assert apart(one, other) < 0.25


@pytest.mark.parametrize("values", [RAW, Z])
def test_nan_around_a_brain_is_its_background(values: np.ndarray[Any, Any]) -> None:
    """As SPM and FSL leave it; a hole in the tissue stays unknown, however large it is."""
    lowest = values[BALL].min()
    assert apart(prepare(scan(np.where(BALL, values, lowest), valid=BALL), RECIPE), raw()) < 0.25
    for hole in (np.s_[13:15, 13:15, 15:17], np.s_[9:18, 10:19, 11:20]):
        valid = BALL.copy()
        valid[hole] = False
        one = scan(np.where(valid, values, lowest), valid=valid)
        known = darkened(one, find_background(one)).valid
        assert known is not None
        np.testing.assert_array_equal(known, valid | ~BALL)


def test_a_scan_of_one_value_has_no_tissue() -> None:
    background = find_background(scan(np.full(GEOMETRY.shape, 3.0)))
    assert background.where.all()
    assert not background.odd


def test_a_scaled_brain_is_aligned_like_the_brain_itself() -> None:
    """The template finds it in the same place, and the prepared image is the same to the rim."""
    brain, before = as_scan(made_brain()), aligned_brain()
    inside = brain.data > 0
    z = (brain.data - brain.data[inside].mean()) / brain.data[inside].std()
    after = prepare(brain.with_data(np.where(inside, z, 0).astype(np.float32)), Preparation(MNI))
    corners = before.grid.corners() @ np.linalg.inv(before.grid.affine)[:3, :3].T
    assert (
        np.abs((after.to_input - before.to_input)[:3, :3] @ corners.T).max() < 1
    )  # voxels of 2 mm, in the far corners
    both = (before.mask & after.mask)[0]
    difference = np.abs(before.image - after.image)[0]
    rim = both & ~ndimage.binary_erosion(both, iterations=2)
    assert difference[rim].mean() < 0.1
    assert difference[both & ~rim].mean() < 0.05
    assert np.corrcoef(before.image[0][both], after.image[0][both])[0, 1] > 0.99
