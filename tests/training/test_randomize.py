"""Random changes: the warp's formula, streams apart, the same seed the same scan, corruption of the input alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvae.settings import RandomizeSettings
from medvae.training.randomize import Example, FusedWarp, Randomize

SHAPE = (17, 21, 19)
SPACING = (2.0, 2.0, 3.0)
OFF = {"spatial": 0, "gamma": 0, "bias": 0, "blur": 0, "noise": 0}
EVERY = {"spatial": 1, "gamma": 1, "bias": 1, "blur": 1, "noise": 1}
EVERY_CORRUPTION = {**EVERY, "corrupt_noise": 1, "corrupt_anomalies": 1, "corrupt_boxes": 1}
MASK = torch.zeros(1, *SHAPE, dtype=torch.bool)
MASK[:, 2:-2, 2:-2, 2:-2] = True
IMAGE = torch.where(
    MASK, torch.from_numpy(np.random.default_rng(0).normal(size=(1, *SHAPE))).float(), torch.tensor(0.0)
)
LABELS = (MASK & (IMAGE > 0.5)).to(torch.int16) * 7


def millimetres() -> torch.Tensor:
    """Position of each voxel from the centre of the grid, `(3, X, Y, Z)`."""
    axes = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class Set(FusedWarp):
    """A warp whose parameters are given, not drawn."""

    def randomize(self, data: Any = None) -> None:
        self._do_transform = True


def warp(**parameters: Any) -> Set:
    fixed = Set(RandomizeSettings(control=5, spatial=1), SPACING)
    for name, value in parameters.items():
        setattr(fixed, name, value)
    return fixed


def ramps(fixed: Set) -> torch.Tensor:
    """Where each voxel of the output takes its value from, mm: the warp of three ramps."""
    everywhere = torch.ones(1, *SHAPE, dtype=torch.bool)
    return torch.cat([fixed(ramp[None], everywhere, None)[0] for ramp in millimetres()])


def chain(seed: int = 0, **settings: Any) -> Example:
    floor = 3.0
    change = Randomize(RandomizeSettings(**(OFF | settings)), SPACING).set_random_state(seed)
    return change(IMAGE, MASK, label_map=LABELS, floor=floor)


# ------------------------------------------------------------------------------------------------------------ the warp


def test_a_scale_of_two_and_a_shift_in_the_stated_order() -> None:
    """The output at y is the input at A⁻¹(y − t): first the shift is undone, then the scale."""
    shift = torch.tensor([4.0, -2.0, 3.0])
    seen = ramps(warp(inverse=torch.eye(3) / 2, shift=shift))
    np.testing.assert_allclose(seen, (millimetres() - shift.view(3, 1, 1, 1)) / 2, atol=1e-4)


def test_a_displacement_is_taken_in_output_space() -> None:
    """At a control point the output is the input at A⁻¹(y − u − t); with a scale of two u counts half."""
    control = torch.zeros(3, 5, 5, 5)
    control[:, 2, 2, 2] = torch.tensor([3.0, -2.0, 1.0])  # the point in the middle of the grid
    seen = ramps(warp(inverse=torch.eye(3) / 2, shift=torch.tensor([1.0, 1.0, 1.0]), control=control))
    middle = tuple((n - 1) // 2 for n in SHAPE)
    np.testing.assert_allclose(seen[:, *middle], [(-3 - 1) / 2, (2 - 1) / 2, (-1 - 1) / 2], atol=1e-4)
    np.testing.assert_allclose(seen[:, 8, 10, 0], (millimetres()[:, 8, 10, 0] - 1) / 2, atol=1e-4)  # the rim stays


def test_a_rotation_turns_the_anatomy_forward() -> None:
    """A quarter turn from x to y carries what lies on +x to +y, in mm whatever the spacing."""
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    image = torch.zeros(1, *SHAPE)
    image[0, 12, 10, 9] = 1  # 8 mm on +x
    moved, _, _ = warp(inverse=turn.T)(image, torch.ones_like(image, dtype=torch.bool), None)
    assert np.unravel_index(int(moved[0].argmax()), SHAPE) == (8, 14, 9)  # 8 mm on +y


def test_large_displacements_are_clipped_so_that_nothing_folds() -> None:
    control = torch.zeros(3, 5, 5, 5)
    control[0, 1:-1, 1:-1, 1:-1] = torch.from_numpy(np.random.default_rng(0).choice([-50, 50], (3, 3, 3))).float()
    seen = ramps(warp(control=control))
    assert (seen[0].diff(dim=0) > 0).all()


def test_a_mirror_is_left_and_right() -> None:
    fixed = warp(mirror=True)
    seen = ramps(fixed)
    np.testing.assert_allclose(seen, millimetres() * torch.tensor([-1.0, 1, 1]).view(3, 1, 1, 1), atol=1e-4)


def test_a_mirror_alone() -> None:
    """It is drawn apart from the warp."""
    example = chain(mirror=1)
    np.testing.assert_allclose(example.image, IMAGE.flip(1), atol=1e-4)
    np.testing.assert_array_equal(example.label_map, LABELS.flip(1))
    assert example.record["mirrored"] is True
    assert example.record["inverse"] is None


def test_labels_and_mask_move_with_the_image() -> None:
    image = torch.where(LABELS > 0, torch.tensor(4.0), torch.tensor(1.0)) * MASK
    fixed = warp(inverse=torch.eye(3), shift=torch.tensor([2.0, 4.0, -3.0]))  # whole voxels
    moved, mask, labels = fixed(image, MASK, LABELS)
    assert labels is not None
    assert (labels.dtype, mask.dtype) == (torch.int16, torch.bool)
    assert set(labels.unique().tolist()) <= {0, 7}
    np.testing.assert_array_equal(labels[0, 1:, 2:, :-1], LABELS[0, :-1, :-2, 1:])
    np.testing.assert_array_equal((moved > 2), labels > 0)
    np.testing.assert_array_equal(mask[0, 1:, 2:, :-1], MASK[0, :-1, :-2, 1:])


def test_outside_the_moved_mask_is_the_background() -> None:
    image = torch.where(MASK, IMAGE, torch.tensor(-1.0))  # air, as a CT is prepared
    moved, mask, _ = warp(shift=torch.tensor([6.0, 0.0, 0.0]))(image, MASK, None)
    assert (moved[~mask] == -1).all()


def test_what_comes_from_beyond_the_grid_is_its_edge() -> None:
    """A scan that is cut off by the grid goes on, image, mask and labels alike; background goes on as background."""
    cut_off = torch.zeros_like(MASK)
    cut_off[:, :9] = True
    image = torch.where(cut_off, torch.tensor(3.0), torch.tensor(-1.0))
    labels = torch.where(cut_off, 5, 0).to(torch.int16)
    moved, mask, moved_labels = warp(shift=torch.tensor([6.0, 0.0, 0.0]))(image, cut_off, labels)  # three voxels
    assert moved_labels is not None
    assert mask[:, :12].all()
    assert not mask[:, 12:].any()
    np.testing.assert_allclose(moved[mask], 3)
    np.testing.assert_allclose(moved[~mask], -1)
    np.testing.assert_array_equal(moved_labels, torch.where(mask, 5, 0))


def test_a_warp_that_is_not_drawn_changes_nothing() -> None:
    example = chain()
    for mine, theirs in (
        (example.image, IMAGE),
        (example.input, IMAGE),
        (example.mask, MASK),
        (example.label_map, LABELS),
    ):
        assert mine is not None
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert example.record["inverse"] is None
    assert example.record["mirrored"] is False


@given(seed=st.integers(0, 10**6))
def test_what_is_drawn_stays_within_the_settings(seed: int) -> None:
    settings = RandomizeSettings(spatial=1, rotate=7, scale=0.1, shift=3, elastic=2, control=6)
    one = FusedWarp(settings, SPACING)
    one.set_random_state(seed)
    one.randomize()
    stretch = np.linalg.svd(np.linalg.inv(one.inverse.numpy()), compute_uv=False)
    assert stretch.min() > 1 / 1.1 - 1e-6
    assert stretch.max() < 1.1 + 1e-6
    assert one.shift.abs().max() <= 3
    rim = one.control.clone()
    rim[:, 1:-1, 1:-1, 1:-1] = 0
    assert not rim.any()


# ---------------------------------------------------------------------------------------------------------- the chain


def test_the_same_seed_the_same_scan_and_another_seed_another() -> None:
    settings = EVERY_CORRUPTION
    first, again, other = chain(5, **settings), chain(5, **settings), chain(6, **settings)
    for name in ("input", "image", "mask", "label_map"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert first.record == again.record != other.record
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("off", ["spatial", "gamma", "bias", "blur", "noise", "corrupt_noise", "corrupt_anomalies"])
def test_one_step_never_moves_the_draws_of_another(off: str) -> None:
    every = EVERY_CORRUPTION
    full, less = chain(3, **every).record, chain(3, **{**every, off: 0}).record
    of_step = {"spatial": ("inverse", "shift_mm", "elastic_mm"), "blur": ("blur_voxels",)}.get(off, (off,))
    for key, value in full.items():
        if key in of_step:
            assert not less[key]
        else:
            assert less[key] == value, key


def test_the_record_is_plain_data_and_says_what_each_step_did() -> None:
    record = chain(1, **EVERY_CORRUPTION).record
    assert json.loads(json.dumps(record)) == record
    assert 0.8 <= record["gamma"] <= 1.25
    assert all(0.25 <= sigma <= 1 for sigma in record["blur_voxels"])
    assert 0 < record["noise"] < 0.15
    assert len(record["bias"]) == 20
    assert max(map(abs, record["bias"])) <= 0.1
    assert 0 < record["elastic_mm"] < 6
    assert record["corrupt_noise"] is True
    assert record["corrupt_anomalies"] in (1, 2, 3)
    assert record["corrupt_boxes"]


@pytest.mark.parametrize("settings", [{"corrupt_noise": 1}, {"corrupt_anomalies": 1}, {"corrupt_boxes": 1}])
def test_corruption_leaves_the_target_clean(settings: dict[str, float]) -> None:
    spoiled, clean = chain(2, **EVERY, **settings), chain(2, **EVERY)
    assert torch.equal(spoiled.image, clean.image)
    assert torch.equal(clean.input, clean.image)
    changed = spoiled.input != spoiled.image
    assert changed.any()
    assert not (changed & ~spoiled.mask).any(), "the background is left alone"


def test_erased_boxes_hold_the_background() -> None:
    example = chain(4, corrupt_boxes=1)
    for (x, y, z), (a, b, c) in example.record["corrupt_boxes"]:
        assert not example.input[0, x : x + a, y : y + b, z : z + c].any()
    changed = (example.input != example.image).float().mean()
    assert 0 < changed < 0.2


def test_a_bias_field_multiplies_what_the_scanner_measured() -> None:
    """At the floor (no signal) nothing changes; z-scores around 0 do, as the tissue there has a signal."""
    image = torch.where(MASK, torch.tensor(-3.0), torch.tensor(0.0))  # with a floor of 3: no signal
    image[0, 8:, 5:-5, 5:-5] = 0.0
    change = Randomize(RandomizeSettings(**(OFF | {"bias": 1})), SPACING).set_random_state(0)
    out = change(image, MASK, floor=3.0).image
    dark = MASK & (image == -3)
    np.testing.assert_allclose(out[dark], -3, atol=1e-6)
    assert (out[MASK & ~dark] != 0).float().mean() > 0.9


def test_the_background_stays_what_preparation_gave_it() -> None:
    image = torch.where(MASK, IMAGE, torch.tensor(-1.0))
    change = Randomize(RandomizeSettings(**EVERY), SPACING).set_random_state(0)
    example = change(image, MASK, floor=3.0)
    assert (example.image[~example.mask] == -1).all()
    everywhere = torch.ones_like(MASK)
    assert change(IMAGE, everywhere, floor=3.0).image.isfinite().all()


def test_plain_tensors_come_out() -> None:
    example = chain(0, **EVERY)
    for tensor in (example.input, example.image, example.mask, example.label_map):
        assert type(tensor) is torch.Tensor
    assert example.image.dtype == example.input.dtype == torch.float32


def test_blur_goes_on_beyond_the_edge() -> None:
    """A crop fills its box: with zeros beyond the edge it would get a dark frame."""
    chain = Randomize(RandomizeSettings(**{**OFF, "blur": 1}), (1.0, 1.0, 1.0)).set_random_state(3)
    image = torch.full((1, 12, 10, 8), 2.0)
    found = chain(image, torch.ones_like(image, dtype=torch.bool), floor=5.0)
    assert found.record["blur_voxels"]
    torch.testing.assert_close(found.image, image, rtol=0, atol=1e-3)
