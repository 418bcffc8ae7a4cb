"""Laws 1 and 2: a landmark keeps its place through read, prepare, to_native, write; one matrix there and back."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scans import (
    ORIENTATIONS,
    aligned_brain,
    as_scan,
    blob,
    centre_of_mass,
    centred,
    geometries,
    made_brain,
    rotation,
    waves,
)
from outside import toy_format, written_suffixes
from scipy import ndimage

import medvae
from medvae.io import discover, reading
from medvae.prepare.native import coverage, to_native
from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.scan import Geometry, Scan
from medvae.settings import PrepareSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def _another_format(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The laws hold for whatever format is installed."""
    with toy_format(tmp_path_factory.mktemp("site")):
        yield


def written_and_read(data: np.ndarray[Any, Any], geometry: Geometry, *, suffix: str = ".nii.gz") -> Scan:
    with TemporaryDirectory() as folder:
        path = medvae.write(Path(folder) / f"a{suffix}", data, geometry=geometry)
        (ref,), _ = discover.scans_of([path], ReadSettings())
        return reading.read(ref, ReadSettings())


def recipe(**changes: Any) -> Preparation:
    """The whole scan counts and values stay, so that only geometry is at work."""
    base = {"spacing": (1.5, 1.5, 1.5), "shape": (48, 48, 48), "foreground": "whole", "intensity": "none"}
    return Preparation(PrepareSettings(**(base | changes)))


def on_grid(prepared: Prepared) -> Geometry:
    """Where the grid lies in the world of the scan."""
    return Geometry(prepared.grid.shape, prepared.input.affine @ prepared.to_input)


# ------------------------------------------------------------------------------------------------- law 1: geometry


@given(geometry=geometries(shear=True), seed=st.integers(0, 2**16))
def test_read_of_write_is_the_same_scan(geometry: Geometry, seed: int) -> None:
    """In every format that is written."""
    data = np.random.default_rng(seed).normal(size=geometry.shape).astype(np.float32)
    for suffix in written_suffixes():
        scan = written_and_read(data, geometry, suffix=suffix)
        np.testing.assert_array_equal(scan.data, data)
        assert scan.geometry.distance_to(geometry) < 1e-4
        assert scan.warnings == ()


@pytest.mark.parametrize(
    "orientation", ORIENTATIONS, ids=lambda turn: "".join("xyz"[a] for a in np.abs(turn).argmax(0))
)
@settings(max_examples=2)
@given(data=st.data())
def test_a_landmark_keeps_its_place(orientation: np.ndarray[Any, Any], data: st.DataObject) -> None:
    """Read, prepare, to_native, write, in each of the 48 axis orders, oblique and anisotropic."""
    geometry = data.draw(geometries(orientation=orientation))
    off = np.array(data.draw(st.tuples(*[st.floats(-0.12, 0.12)] * 3))) * np.array(geometry.shape)
    landmark = geometry.to_world((np.array(geometry.shape) - 1) / 2 + off)
    near = 0.1 * max(*geometry.spacing, 1.5)
    suffix = data.draw(st.sampled_from(written_suffixes()))
    scan = written_and_read(blob(geometry, landmark, mm=1.5), geometry, suffix=suffix)
    prepared = prepare(scan, recipe(shape=(52, 52, 52)))
    there = centre_of_mass(prepared.image[0], on_grid(prepared))
    assert np.linalg.norm(there - landmark) < near
    back = written_and_read(to_native(prepared.image[0], prepared), prepared.input, suffix=suffix)
    assert np.linalg.norm(centre_of_mass(back.data, back.geometry) - landmark) < near
    assert back.geometry.distance_to(geometry) < 1e-4


def test_a_lesion_keeps_its_place_through_alignment() -> None:
    member, prepared = made_brain(), aligned_brain()
    lesion = centre_of_mass(member.lesion, member.geometry)
    assert prepared.label_map is not None
    there = centre_of_mass(prepared.label_map[0], on_grid(prepared))
    assert np.linalg.norm(there - lesion) < 1.0  # the grid's voxels have 4 mm
    back = written_and_read(to_native(prepared.label_map[0].astype(np.float32), prepared), prepared.input)
    assert np.linalg.norm(centre_of_mass(back.data, back.geometry) - lesion) < 1.0
    brightest = prepared.image[0][prepared.label_map[0] > 0].mean()
    assert brightest > prepared.image[0][(prepared.label_map[0] == 0) & prepared.mask[0]].mean() + 0.8


@settings(max_examples=10)
@given(geometry=geometries(shear=True))
def test_shear_stays_in_the_scan(geometry: Geometry) -> None:
    """The grid's axes are straight and have the asked length whatever the scan's are."""
    prepared = prepare(Scan(waves(geometry, mm=60), geometry), recipe())
    linear = on_grid(prepared).affine[:3, :3]
    np.testing.assert_allclose(linear.T @ linear, np.diag([1.5**2] * 3), atol=1e-6)
    assert np.linalg.det(linear) > 0, "no scan is mirrored"


# ------------------------------------------------------------------------------------------------- law 2: way back


def bound(prepared: Prepared, *, mm: float) -> float:
    """Error of there and back on waves of amplitude 1 and length `mm`.

    Linear interpolation errs by (πh/L)²/2 an axis and pass, the smoothing before the coarser grid takes 2π²σ²/L² an
    axis with σ = h/2.355: together 4.1 (πh/L)² for the coarser voxel h.
    """
    voxel = max(*prepared.input.spacing, *on_grid(prepared).spacing)
    return float(4.1 * (np.pi * voxel / mm) ** 2)


def inner(covered: np.ndarray[Any, Any], prepared: Prepared) -> np.ndarray[Any, Any]:
    """Voxels of the scan around which the grid says everything: two coarse voxels away from its rim."""
    steps = 2 * max(on_grid(prepared).spacing) / np.array(prepared.input.spacing) + 2
    rim = np.pad(covered, 1)
    distance = ndimage.distance_transform_edt(rim, sampling=1 / steps)[1:-1, 1:-1, 1:-1]
    return distance > 1


@given(
    geometry=geometries(),
    spacing=st.tuples(*[st.sampled_from([1.0, 1.5, 2.0, 3.0])] * 3),
    shape=st.tuples(*[st.integers(16, 30)] * 3),
)
def test_there_and_back_is_the_identity_on_a_smooth_volume(
    geometry: Geometry, spacing: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    data = waves(geometry, mm=90) + 2
    prepared = prepare(Scan(data, geometry), recipe(spacing=spacing, shape=shape))
    back = to_native(prepared.image[0], prepared)
    assert back.shape == prepared.input.shape == data.shape
    assert prepared.input == geometry
    covered = coverage(prepared)
    assert covered.dtype == np.uint8
    assert set(np.unique(covered)) <= {0, 1}
    within = inner(covered > 0, prepared)
    assert np.abs(back - data)[within].max(initial=0) < bound(prepared, mm=90)


def test_there_and_back_through_alignment() -> None:
    prepared = aligned_brain()
    data = waves(prepared.input, mm=120)
    grid_values = waves(on_grid(prepared), mm=120)
    back = to_native(grid_values, prepared)
    assert back.shape == prepared.input.shape
    within = inner(coverage(prepared) > 0, prepared)
    assert within.sum() > 20000
    assert np.abs(back - data)[within].max() < bound(prepared, mm=120)


@settings(max_examples=30)
@given(geometry=geometries(), data=st.data())
def test_a_point_lands_within_one_grid_voxel(geometry: Geometry, data: st.DataObject) -> None:
    """A lesion of one voxel, in a scan finer or coarser than the grid, aligned with it or not."""
    index = tuple(data.draw(st.integers(n // 4, 3 * n // 4)) for n in geometry.shape)
    values = np.zeros(geometry.shape, np.float32)
    values[index] = 1000
    values[0, 0, 0] = 1e-3  # not blank
    prepared = prepare(Scan(values, geometry), recipe(spacing=(2, 2, 2), shape=(40, 40, 40)))
    seen = on_grid(prepared)
    peak = np.unravel_index(prepared.image[0].argmax(), prepared.image[0].shape)
    offset = seen.to_index(geometry.to_world(index)) - peak
    assert np.abs(offset).max() <= 1
    assert prepared.image.max() > 0, "smoothing before going coarser keeps what lies between two samples"


@given(geometry=geometries(), seed=st.integers(0, 2**16))
def test_labels_keep_their_set_of_values(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.choice([0, 3, 7, 250], (3, 3, 3)), np.ones((8, 8, 8)))[tuple(map(slice, geometry.shape))]
    labels = labels.astype(np.int16)
    prepared = prepare(Scan(waves(geometry, mm=50), geometry), recipe(), label_map=labels)
    assert prepared.label_map is not None
    assert prepared.label_map.dtype == np.int16
    assert set(np.unique(prepared.label_map)) <= {0, *np.unique(labels)}
    back = to_native(prepared.label_map[0], prepared, labels=True)
    assert back.dtype == np.int16
    assert set(np.unique(back)) <= {0, *np.unique(labels)}
    same = (back == labels)[coverage(prepared) > 0]  # all but the voxels at the borders of the blocks
    assert same.mean() > 0.6


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_outside_the_grid_a_map_is_0_and_coverage_says_so(spacing: float) -> None:
    geometry = centred((30, 32, 34), rotation(10, -20, 5) @ np.diag([2, 1.5, 1.0]))
    prepared = prepare(Scan(waves(geometry, mm=40), geometry), recipe(spacing=(spacing,) * 3, shape=(12, 12, 12)))
    ones = to_native(np.ones(prepared.grid.shape, np.float32), prepared)
    covered = coverage(prepared)
    index = on_grid(prepared).to_index(geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1)))
    outside = ((index < -0.501) | (index > np.array(prepared.grid.shape) - 0.499)).any(axis=-1)
    assert outside.any()
    assert not ones[outside].any()
    assert not covered[outside].any()
    inside = ((index > 0) & (index < np.array(prepared.grid.shape) - 1)).all(axis=-1)
    assert (covered[inside] == 1).all()
    if spacing == 1.0:
        np.testing.assert_allclose(ones[inside & (ndimage.distance_transform_edt(covered) > 3)], 1, atol=0.02)


def test_coverage_is_the_foreground_that_lay_on_the_grid() -> None:
    prepared = aligned_brain()
    scan = as_scan(made_brain())
    covered = coverage(prepared)
    brain = scan.data != 0
    overlap = 2 * (covered * brain).sum() / (covered.sum() + brain.sum())
    assert overlap > 0.95
    assert covered.shape == scan.data.shape


def test_all_steps_are_one_matrix() -> None:
    """Resampling once through the composed matrix is what prepare does, to the bit."""
    from medvae.prepare.grid import resample

    prepared = aligned_brain()
    scan = as_scan(made_brain())
    values = resample(scan.data, prepared.to_input, prepared.grid.shape)
    mine = prepared.intensity.apply(values)
    np.testing.assert_array_equal(prepared.image[0][prepared.mask[0]], mine[prepared.mask[0]])
    assert (prepared.image[0][~prepared.mask[0]] == 0).all()
