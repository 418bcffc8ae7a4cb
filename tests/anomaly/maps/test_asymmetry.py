"""The asymmetry map beside a plain version, and what its sides and its middle plane are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.prepare.grid import mirrored
from medvae.scan import Geometry
from medvae.statistics import Moments

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = np.ndarray[Any, np.dtype[np.float32]]


@cache
def model() -> Model:
    return linear_model.known_model(("asymmetry",))


@cache
def sharp_model() -> Model:
    """Its maps are hardly smoothed: the grid is only 24 mm wide."""
    return linear_model.known_model(("asymmetry",), options={"asymmetry": {"scales_mm": [1], "side_mm": 2}})


def run(prepared: Prepared, known: Model | None = None) -> Values:
    return anomaly_map("asymmetry", infer(known or model(), prepared)).values


def plain_mirror(values: Values, grid: Geometry) -> Values:
    """Voxel by voxel: the world coordinate, its counterpart, and the two voxels around that."""
    result = np.full(values.shape, np.nan)
    for i, j, k in np.ndindex(values.shape):
        x, y, z = grid.to_world((i, j, k))
        at = grid.to_index((-x, y, z))[0]
        low = int(np.floor(at + 1e-6))
        weights = [(low, 1 - (at - low)), (low + 1, at - low)]
        used = [(n, weight) for n, weight in weights if weight > 1e-5]
        if all(0 <= n < len(values) for n, _ in used):
            result[i, j, k] = sum(weight * values[n, j, k] for n, weight in used)
    return result


def plain_difference(prepared: Prepared) -> Values:
    known = np.where(prepared.mask[0], prepared.image[0], np.nan)
    return known - plain_mirror(known, prepared.grid)


@pytest.mark.parametrize("corner", [-11.0, -12.5, -7.0, -11.8])
def test_mirrored_beside_the_plain_version(corner: float) -> None:
    affine = np.diag([2.0, 2, 3, 1])
    affine[0, 3] = corner
    grid = Geometry((12, 3, 2), affine)
    values = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    values[3, 1] = np.nan
    np.testing.assert_allclose(mirrored(values, grid), plain_mirror(values, grid), rtol=1e-4, atol=1e-5)


def test_beside_the_plain_version() -> None:
    prepared, reference = linear_model.scan(0, lesion=3), reference_of(model())
    inside, grid = prepared.mask[0], prepared.grid
    moments = Moments.empty((1, *grid.shape))
    for one in linear_model.healthy():
        known = ~np.isnan(plain_difference(one))
        moments.add(np.nan_to_num(plain_difference(one))[None].astype(np.float32), known[None] & one.mask)
    normal = moments.normal(spacing=grid.spacing)
    z = np.abs((plain_difference(prepared) - normal.mean[0]) / normal.sd[0])
    atlas = anomaly_map("atlas", infer(model(), prepared)).values
    unusual = smooth_inside(atlas, inside, spacing=grid.spacing, mm=4)
    other = np.nan_to_num(plain_mirror(unusual, grid))
    expected = np.sqrt(2 / np.pi)
    shared = np.nan_to_num(z * 2 * unusual**2 / (unusual**2 + other**2 + 1e-12), nan=expected).astype(np.float32)
    parts = [smooth_inside(shared, inside, spacing=grid.spacing, mm=mm) for mm in (3, 6, 9)]
    by_hand = (np.mean(parts, axis=0) - expected) / reference.maps["asymmetry"].scale
    np.testing.assert_allclose(run(prepared)[inside], by_hand[inside], rtol=1e-3, atol=1e-4)
    assert np.isnan(plain_difference(prepared)[inside]).any(), "some voxels have no counterpart"


def test_the_side_of_the_lesion_lights_up() -> None:
    found = run(linear_model.scan(0, lesion=4), sharp_model())
    here = np.zeros(found.shape, bool)
    here[linear_model.LESION] = True
    assert found[here].mean() > 4 * found[here[::-1]].mean()
    reflected = linear_model.scan(0)
    image = reflected.image.copy()
    image[0][here[::-1]] += 4
    other = run(replace(reflected, image=image), sharp_model())
    assert other[here[::-1]].mean() > 4 * other[here].mean()


def test_what_is_the_same_on_both_sides_is_no_asymmetry() -> None:
    """A change of both sides leaves the difference as it was, whatever the atlas says of it."""
    prepared = linear_model.scan(0)
    here = np.zeros(prepared.grid.shape, bool)
    here[linear_model.LESION] = True
    image = prepared.image.copy()
    image[0][here | here[::-1]] += 4
    changed = run(replace(prepared, image=image))
    one_side = run(linear_model.scan(0, lesion=4))
    assert changed[here].mean() < 0.2 * one_side[here].mean()


def test_a_voxel_without_a_counterpart_is_neutral() -> None:
    """Half of the brain is missing: the other half has nothing to be compared with."""
    prepared = linear_model.scan(0, hole=False)
    mask = prepared.mask.copy()
    mask[:, :6] = False
    half = replace(prepared, mask=mask, image=np.where(mask, prepared.image, 0).astype(np.float32))
    np.testing.assert_allclose(run(half), 0, atol=1e-5)
