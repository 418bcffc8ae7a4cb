"""What counts: stripped brains with any background, bodies in air, all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_scans import as_scan, centred, made_brain

from medvae.prepare.foreground import dense_air, find_foreground, is_stripped, without_dark_rim
from medvae.scan import Geometry, Scan
from medvae.settings import PrepareSettings

if TYPE_CHECKING:
    from collections.abc import Callable

GEOMETRY = centred((24, 26, 28), np.diag([4.0, 4, 4]))
BALL = np.linalg.norm(np.indices(GEOMETRY.shape).T - (np.array(GEOMETRY.shape) - 1) / 2, axis=-1).T < 9
TISSUE = np.random.default_rng(0).normal(100, 20, GEOMETRY.shape).astype(np.float32)


def found(
    data: np.ndarray[Any, Any], rule: str = "nonzero", valid: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    return find_foreground(Scan(data.astype(np.float32), GEOMETRY, valid=valid), PrepareSettings(foreground=rule))


@pytest.mark.parametrize("background", [0.0, -3.0, -1024.0, 7.5])
def test_the_background_of_a_stripped_scan_may_have_any_value(background: float) -> None:
    np.testing.assert_array_equal(found(np.where(BALL, TISSUE, background)), BALL)


def test_dust_of_an_interpolation_is_background() -> None:
    dust = np.random.default_rng(1).normal(0, 1e-3, GEOMETRY.shape)
    np.testing.assert_array_equal(found(np.where(BALL, TISSUE, 0) + dust), BALL)


def test_z_scores_around_a_zero_background() -> None:
    z = (TISSUE - 100) / 20
    np.testing.assert_array_equal(found(np.where(BALL, z, 0)), BALL)


def test_one_wild_voxel_does_not_turn_the_brain_to_dust() -> None:
    data = np.where(BALL, TISSUE, 0)
    data[12, 12, 12] = 1e9
    np.testing.assert_array_equal(found(data), BALL)


def test_a_scan_without_background_is_all_foreground_but_its_zeros() -> None:
    data = TISSUE.copy()
    assert found(data).all()
    data[3, 3, 3] = 0
    assert (~found(data)).sum() == 1


def test_filled_voxels_never_count() -> None:
    valid = np.ones(GEOMETRY.shape, bool)
    valid[10:12, 10, 10] = False
    for rule in ("nonzero", "whole", "air"):
        assert not found(np.where(BALL, TISSUE, 0), rule, valid)[~valid].any()
    np.testing.assert_array_equal(found(TISSUE, "whole", valid), valid)


def test_a_made_brain_is_stripped_and_what_is_around_it_is_not() -> None:
    scan = as_scan(made_brain())
    brain = find_foreground(scan, PrepareSettings())
    np.testing.assert_array_equal(brain, scan.data != 0)
    assert is_stripped(brain, scan.geometry)
    assert not is_stripped(np.ones_like(brain), scan.geometry)
    small = Geometry(scan.geometry.shape, scan.geometry.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    assert not is_stripped(brain, small), "no brain has an eighth of the volume"


def body(spacing: float) -> tuple[Scan, np.ndarray[Any, Any]]:
    """A trunk along z with two lungs and a table below it, in HU; and the trunk."""
    geometry = centred((int(200 / spacing), int(200 / spacing), 6), np.diag([spacing, spacing, 8.0]))
    x, y, _ = np.moveaxis(geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1)), -1, 0)
    trunk = (x / 80) ** 2 + (y / 60) ** 2 < 1
    lungs = ((np.abs(x) - 35) / 22) ** 2 + (y / 30) ** 2 < 1
    table = (y < -70) & (y > -80)
    hu = np.full(geometry.shape, -1000.0)
    hu[table] = 100
    hu[trunk] = 40
    hu[lungs] = -850
    return Scan(hu.astype(np.float32), geometry, modality="CT", units="HU"), trunk


@pytest.mark.parametrize("spacing", [0.8, 2.0, 4.0])
def test_a_body_has_its_lungs_and_no_table(spacing: float) -> None:
    scan, trunk = body(spacing)
    mask = find_foreground(scan, PrepareSettings(foreground="air"))
    assert mask.shape == trunk.shape
    overlap = 2 * (mask & trunk).sum() / (mask.sum() + trunk.sum())
    assert overlap > 0.97
    assert not mask[:, scan.geometry.to_index([0, -75, 0]).astype(int)[1]].any()


@pytest.mark.parametrize("change", [lambda hu: hu.clip(-160, 240), lambda hu: hu.clip(0), lambda hu: hu * (hu > -500)])
def test_a_body_in_air_that_was_clipped_or_masked(
    change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
) -> None:
    """The value of the faces is air, though it is that of tissue; else the whole image would be body."""
    scan, trunk = body(2.0)
    scan = scan.with_data(change(scan.data))
    settings = PrepareSettings(foreground="air")
    mask = find_foreground(scan, settings)
    assert 2 * (mask & trunk).sum() / (mask.sum() + trunk.sum()) > 0.97
    assert dense_air(scan, settings) == scan.data[0, 0, 0]
    assert dense_air(body(2.0)[0], settings) is None


def test_slices_are_filled_across_the_body_whatever_the_axis_order() -> None:
    """Lungs open to the top of the scan are enclosed in axial slices only."""
    scan, trunk = body(2.0)
    turned = Scan(np.ascontiguousarray(scan.data.T), Geometry(scan.data.T.shape, scan.geometry.affine[:, [2, 1, 0, 3]]))
    mask = find_foreground(turned, PrepareSettings(foreground="air"))
    assert 2 * (mask & trunk.T).sum() / (mask.sum() + trunk.sum()) > 0.97


def test_nothing_but_air() -> None:
    assert not found(np.full(GEOMETRY.shape, -1000.0) + TISSUE, "air").any()


@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_air_at_the_rim_of_a_template_is_left_out_and_fluid_stays(offset: float) -> None:
    x, y, z = np.meshgrid(*[np.arange(-20, 20)] * 3, indexing="ij")
    brain = x**2 + y**2 + z**2 < 17**2
    head = np.where(x**2 + y**2 + z**2 < 19**2, 100.0, 0.0).astype(np.float32)
    sinus, cleft, cavity, bubble = brain & (z < -12), brain & (z > 14), brain & (x > 14), abs(x) + abs(y) + abs(z) < 4
    head[sinus] = 5
    head[cleft] = 35  # fluid between brain and skull, or a cavity that joins it
    head[cavity] = 30
    head[bubble] = 2  # dark, but brain is all around it
    found = without_dark_rim(head + np.float32(offset), brain, spacing=(2.0, 2.0, 2.0))
    assert np.array_equal(found, brain & ~sinus)


def test_a_small_part_of_a_brain_has_a_core_too() -> None:
    """A field of view may hold a few slices of it, or none."""
    brain = np.zeros((8, 8, 8), bool)
    assert not without_dark_rim(np.ones((8, 8, 8), np.float32), brain, spacing=(2.0, 2.0, 2.0)).any()
    brain[3:5] = True
    assert np.array_equal(without_dark_rim(np.ones((8, 8, 8), np.float32), brain, spacing=(2.0, 2.0, 2.0)), brain)
