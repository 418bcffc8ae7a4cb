"""Alignment finds a known pose, follows the scan when it is turned, repeats to the bit, and notices when it fails."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from made_scans import aligned_brain, as_scan, centred, made_brain, pose, rotation
from scipy import ndimage

from medvae.errors import ScanError
from medvae.prepare import align, template
from medvae.prepare.align import DOUBTFUL, LEAST, SURE, Alignment, align_to_template
from medvae.prepare.likeness import likeness, overlap
from medvae.scan import Geometry, Scan

# A head pitched, turned and tilted, smaller than the template, away from the centre: template mm -> scan mm.
POSE = pose(rotation(14, -8, 10) @ np.diag([0.95, 0.88, 0.92]), (25, -12, 40))


@cache
def brain() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Geometry]:
    """The template at 3 mm with room around it, its mask, and where it lies in the pose."""
    grid = template.centred_grid((3, 3, 3), (76, 88, 86))
    data, mask = template.on_grid(grid)
    return data * mask, mask, Geometry(grid.shape, POSE @ grid.affine)


def distances(matrix: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How far the points of the template's brain are from where they should be, mm."""
    grid = template.centred_grid((8, 8, 8), (24, 28, 24))
    points = grid.to_world(np.argwhere(template.on_grid(grid)[1]))
    moved = points @ (matrix - truth)[:3, :3].T + (matrix - truth)[:3, 3]
    return np.linalg.norm(moved, axis=1)


def receive_field(geometry: Geometry) -> np.ndarray[Any, Any]:
    """Falls to a third across the head, as near a surface coil."""
    where = geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1)) - geometry.to_world(
        (np.array(geometry.shape) - 1) / 2
    )
    return np.exp(where @ [0.003, 0.005, -0.004]).astype(np.float32)


def refused(scan: Scan, mask: np.ndarray[Any, Any] | None) -> ScanError:
    with pytest.raises(ScanError) as caught:
        align_to_template(scan, mask)
    return caught.value


def test_a_known_pose_is_found() -> None:
    data, mask, geometry = brain()
    found = align_to_template(Scan(data, geometry), mask)
    assert distances(found.matrix, POSE).max() < 1
    assert found.likeness > 0.8
    assert found.overlap is not None
    assert found.overlap > 0.95
    assert found.doubt is None


def test_in_spite_of_a_receive_field_noise_another_contrast_and_negative_values() -> None:
    data, mask, geometry = brain()
    rng = np.random.default_rng(0)
    other = (data / data.max()) ** 0.7 * receive_field(geometry)
    scan = Scan((other - 0.8 + rng.normal(0, 0.03, data.shape)).astype(np.float32), geometry)
    found = align_to_template(scan, mask)
    assert distances(found.matrix, POSE).mean() < 1.5
    assert distances(found.matrix, POSE).max() < 4


def test_a_whole_head_with_scalp_and_neck() -> None:
    data, mask, geometry = brain()
    rng = np.random.default_rng(0)
    outwards = ndimage.distance_transform_edt(~mask) * 3
    scalp = (outwards > 9) & (outwards < 18)
    x, y, z = np.indices(mask.shape)
    neck = (np.hypot(x - 38, y - 38) < 16) & (z < 20) & (outwards > 9)
    head = np.where(scalp | neck, 1.6 * data.max(), data) * receive_field(geometry)
    scan = Scan(np.abs(head + rng.normal(0, 4, head.shape)).astype(np.float32), geometry)
    found = align_to_template(scan, None)
    assert distances(found.matrix, POSE).mean() < 2.5
    assert found.likeness > 0.7
    assert found.overlap is None, "a whole head has no mask to compare"


def test_alignment_follows_the_scan() -> None:
    """The same brain, held differently: the template lands on the same places of it."""
    prepared, scan = aligned_brain(), as_scan(made_brain())
    before = scan.geometry.affine @ prepared.to_input @ np.linalg.inv(prepared.grid.affine)
    moved = pose(rotation(-18, 12, -15), (-30, 50, 20))
    turned = Scan(scan.data, Geometry(scan.geometry.shape, moved @ scan.geometry.affine))
    after = align_to_template(turned, scan.data != 0).matrix
    assert distances(after, moved @ before).max() < 1.5


def test_a_made_brain_covers_the_template() -> None:
    prepared = aligned_brain()
    brain_mask = template.on_grid(prepared.grid)[1]
    both = (prepared.mask[0] & brain_mask).sum()
    assert 2 * both / (prepared.mask.sum() + brain_mask.sum()) > 0.93


def test_the_same_to_the_bit_whatever_the_threads_and_the_order_in_memory() -> None:
    prepared, scan = aligned_brain(), as_scan(made_brain())
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(4)
        again = Scan(np.ascontiguousarray(scan.data), scan.geometry)
        matrix = align_to_template(again, again.data != 0).matrix
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    to_input = np.linalg.inv(scan.geometry.affine) @ matrix @ prepared.grid.affine
    assert to_input.tobytes() == prepared.to_input.tobytes()


# ------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("flips", "words"), [((0, 2), "upside down"), ((0, 1), "facing backwards")], ids=["upside down", "facing back"]
)
def test_a_wrong_orientation_is_noticed(flips: tuple[int, int], words: str) -> None:
    scan = as_scan(made_brain())
    world_axes = np.abs(scan.geometry.affine[:3, :3]).argmax(axis=1)  # the array axis nearest to each world axis
    data = np.flip(scan.data, [int(world_axes[axis]) for axis in flips])
    problem = refused(Scan(np.ascontiguousarray(data), scan.geometry), data != 0)
    assert problem.code == "registration_failed"
    assert words in str(problem), "the true reason"


def test_a_ball_of_noise_is_noticed() -> None:
    geometry = centred((45, 55, 45), np.diag([4.0, 4, 4]))
    ball = np.linalg.norm(geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1)), axis=-1) < 70
    noise = np.random.default_rng(0).normal(100, 20, geometry.shape).astype(np.float32)
    assert refused(Scan(np.where(ball, noise, 0).astype(np.float32), geometry), ball).code == "registration_failed"


def test_noise_without_a_head_is_noticed() -> None:
    geometry = centred((40, 40, 40), np.diag([5.0, 5, 5]))
    noise = np.random.default_rng(0).normal(100, 20, geometry.shape).astype(np.float32)
    assert refused(Scan(noise, geometry), None).code == "registration_failed"


@pytest.mark.parametrize("spacing", [1.0, 0.05])
def test_what_is_far_too_small_is_noticed(spacing: float) -> None:
    data = template.on_grid(template.centred_grid((4, 4, 4), (48, 56, 48)))[0]
    problem = refused(Scan(data, centred(data.shape, np.eye(3) * spacing)), None)
    assert problem.code == "registration_failed"


def test_a_brain_of_half_the_size_is_refused_for_its_size() -> None:
    data, mask, geometry = brain()
    small = Scan(data, Geometry(geometry.shape, np.diag([0.6, 0.6, 0.6, 1]) @ geometry.affine))
    assert "times the size" in str(refused(small, mask))


def test_a_large_mass_that_displaces_tissue_changes_nothing() -> None:
    """A dark mass of 50 mm radius in one hemisphere, 5 mm slices, grey and white matter nearly alike."""
    data, mask, geometry = brain()
    where = (
        np.linalg.inv(POSE)[:3]
        @ np.concatenate(
            [geometry.to_world(np.moveaxis(np.indices(data.shape), 0, -1)).reshape(-1, 3), np.ones((data.size, 1))],
            axis=1,
        ).T
    )
    mass = (np.linalg.norm(where.T - [-40, -20, 20], axis=1) < 50).reshape(data.shape) & mask
    ill = np.where(mass, 0.3 * data.max(), np.where(mask, 100 + 0.2 * data, 0)).astype(np.float32)
    ill = np.repeat(ill[:, :, :84].reshape(*ill.shape[:2], 42, 2).mean(axis=3), 2, axis=2)
    slices = Geometry(ill.shape, geometry.affine)
    found = align_to_template(Scan(ill, slices), mask[:, :, :84] & (ill > 0))
    assert distances(found.matrix, POSE).mean() < 4


# ------------------------------------------------------------------------------------------------------- likeness


def test_likeness_is_the_median_of_block_correlations() -> None:
    """Beside a plain version: np.corrcoef in every block of 5³ voxels that lies mostly in the brain."""
    grid = template.wide_grid(4.0)
    theirs, brain_mask = template.on_grid(grid)
    mine = theirs + np.random.default_rng(0).normal(0, 30, grid.shape).astype(np.float32)
    found = []
    for corner in np.ndindex(*(-(-n // 5) for n in grid.shape)):
        box = tuple(slice(5 * i, 5 * i + 5) for i in corner)
        inside = brain_mask[box]
        if inside.sum() > 0.5 * 125:
            found.append(np.corrcoef(mine[box][inside], theirs[box][inside])[0, 1])
    assert likeness(mine, grid, np.eye(4)) == pytest.approx(np.median(found), abs=1e-4)


def test_likeness_does_not_see_contrast_or_a_lesion_in_less_than_half_of_the_brain() -> None:
    data, _, geometry = brain()
    weak = likeness(np.where(data > 0, 500 + 0.1 * data, 0).astype(np.float32), geometry, POSE)
    assert weak > 0.85
    half = data.copy()
    half[: data.shape[0] // 3] = np.random.default_rng(0).normal(size=half[: data.shape[0] // 3].shape)
    assert likeness(half, geometry, POSE) > 0.85
    assert abs(likeness(np.ones_like(data), geometry, POSE)) < 0.01


def test_overlap_is_the_dice_coefficient() -> None:
    _, mask, geometry = brain()
    assert overlap(mask, geometry, POSE) > 0.97
    half = mask & (np.arange(mask.shape[0]) < mask.shape[0] // 2)[:, None, None]
    assert overlap(half, geometry, POSE) == pytest.approx(2 / 3, abs=0.03)


def test_what_is_between_sure_and_least_is_doubtful() -> None:
    assert Alignment(np.eye(4), SURE, 0.9).doubt is None
    doubt = Alignment(np.eye(4), (SURE + LEAST) / 2, 0.91).doubt
    assert doubt is not None
    assert doubt.startswith(f"{DOUBTFUL}: local r = 0.38")
    assert "0.91" in doubt


def test_an_inverted_head_is_refused_as_what_it_is() -> None:
    data, _, geometry = brain()
    volume = align._Volume(data, geometry)
    with pytest.raises(ScanError, match=r"r = -0.40 \(dark and bright are swapped, as in T2") as caught:
        align._checked(Alignment(np.eye(4), -0.4, 0.9), volume, volume)
    assert caught.value.code == "registration_failed"


def test_a_start_beside_the_scan_leads_nowhere_and_stops_nothing() -> None:
    data, _, geometry = brain()
    volume = align._Volume(data, geometry)
    far = sitk.Euler3DTransform()
    far.SetTranslation((1000, 0, 0))
    found, metric = align._register(volume.at(8).itk(), 8, far, step=4, whole=True)
    assert metric == np.inf
    assert found is far
    with pytest.raises(ScanError) as caught:
        align._stripped(volume, pose(np.eye(3), (1000, 0, 0)))
    assert caught.value.code == "registration_failed"


def test_a_foreground_of_one_value_is_blank() -> None:
    data, mask, geometry = brain()
    assert refused(Scan(np.where(mask, np.float32(5), data), geometry), mask).code == "blank"
