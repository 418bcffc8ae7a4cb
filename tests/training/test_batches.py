"""Prepared scans on disk, the batches drawn from them by counters, and batches made ahead."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model
import torch

from medvae.prepare.preparation import Intensity
from medvae.scan import Geometry
from medvae.training import batches
from medvae.training.batches import Batch, Scans, fetch, made_ahead, plain_batch, store, training_batch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 5)


def batch(scans: Scans, step: int, *, rank: int = 0, world: int = 1, seed: int = 0, **train: Any) -> Batch:
    settings = small_model.settings(seed=seed, train=train)
    return training_batch(scans, step=step, rank=rank, world=world, settings=settings)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("inputs", "image", "mask"))


@pytest.mark.parametrize("label", [None, "ill"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_stored_scan_comes_back(tmp_path: Path, *, label: str | None, labelled: bool) -> None:
    classes = np.random.default_rng(0).integers(0, 4, (1, *small_model.SHAPE)).astype(np.int16)
    prepared = replace(
        small_model.scan(0),
        input=Geometry((20, 30, 40), np.diag([-0.3, 1 / 3, 2, 1])),
        intensity=Intensity(1 / 3, 20.0, -np.inf, np.inf, background=-1.0),
        label_map=classes if labelled else None,
        units="HU",
        modality=None,
        warnings=("whole_head", "ä"),
    )
    store(prepared, tmp_path / "one.safetensors", label=label)
    again, found = fetch(tmp_path / "one.safetensors")
    assert found == label
    for one in fields(prepared):
        ours, theirs = getattr(prepared, one.name), getattr(again, one.name)
        if one.name == "image":
            assert theirs.dtype == np.float32
            np.testing.assert_allclose(theirs, ours, atol=0.004)
        elif isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, one.name
            assert np.array_equal(ours, theirs), one.name
        else:
            assert ours == theirs, one.name


def test_storing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store(small_model.scan(0), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_scans_are_kept_while_there_is_room(scans: Scans) -> None:
    all_kept = Scans(scans.files)
    assert all_kept[3] is all_kept[3]
    room = 6 * 16**3 * 2 + 1
    some = Scans(scans.files, _room=room)
    first = [some[i] for i in range(5)]
    assert [some[i] is first[i] for i in range(5)] == [True, True, False, False, False]
    assert np.array_equal(some[4].image, first[4].image)
    assert len(some) == 5


def test_a_batch_depends_on_seed_and_step_alone(scans: Scans) -> None:
    fresh = Scans(scans.files)
    first = batch(fresh, 7)
    assert first.inputs.shape == first.image.shape == first.mask.shape == (2, 1, *small_model.SHAPE)
    assert (first.inputs.dtype, first.image.dtype, first.mask.dtype) == (torch.float32, torch.float32, torch.bool)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(5)
    for step in (3, 12):
        batch(fresh, step)
    assert same(batch(fresh, 7), first)
    assert same(batch(Scans(scans.files), 7), first)
    assert not same(batch(fresh, 8), first)
    assert not same(batch(fresh, 7, seed=1), first)


def test_asking_for_batches_does_not_move_the_scans(scans: Scans) -> None:
    fresh = Scans(scans.files)
    before = [fresh[i].image.copy() for i in range(5)]
    for step in range(6):
        batch(fresh, step, randomize={"spatial": 0, "noise": 1, "bias": 1, "gamma": 1, "corrupt_boxes": 1})
    assert all(np.array_equal(fresh[i].image, image) for i, image in enumerate(before))


def test_processes_share_the_batch_of_one(scans: Scans) -> None:
    """Two processes with two scans each draw what one process with four draws."""
    whole = batch(scans, 3, batch=4)
    parts = [batch(scans, 3, rank=rank, world=2, batch=2) for rank in (0, 1)]
    for name in ("inputs", "image", "mask"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_every_scan_comes_once_a_round_in_a_new_order() -> None:
    rounds = [tuple(batches._shuffled(7 * r + i, 7, seed=0) for i in range(7)) for r in range(6)]
    assert all(sorted(one) == list(range(7)) for one in rounds)
    assert len(set(rounds)) > 4
    assert rounds[0] != tuple(batches._shuffled(i, 7, seed=1) for i in range(7))


def test_without_random_changes_a_batch_is_the_scans(scans: Scans) -> None:
    off = dict.fromkeys(("spatial", "gamma", "bias", "blur", "noise"), 0)
    images = [scans[i].image for i in range(5)]
    seen: Counter[int] = Counter()
    for step in range(5):
        made = batch(scans, step, randomize=off)
        assert torch.equal(made.inputs, made.image)
        for image in made.image.numpy():
            seen.update(i for i, known in enumerate(images) if np.allclose(known, image, atol=1e-5))
    assert seen == dict.fromkeys(range(5), 2)


def test_a_plain_batch_is_one_scan(scans: Scans) -> None:
    made = plain_batch(scans, 2)
    assert np.array_equal(made.image[0].numpy(), scans[2].image)
    assert made.inputs is made.image
    assert np.array_equal(made.mask[0].numpy(), scans[2].mask)


# ------------------------------------------------------------------------------------------------------ made ahead


def numbered(step: int) -> Batch:
    return Batch(*(torch.full((1,), step) for _ in range(3)))


def test_steps_come_in_order_though_some_take_longer() -> None:
    def make(step: int) -> Batch:
        time.sleep(0.02 * (step % 3 == 0))
        return numbered(step)

    assert [int(one.image) for one in made_ahead(make, range(4, 30))] == list(range(4, 30))
    assert not list(made_ahead(make, range(3, 3)))


def test_an_error_comes_at_its_step_and_ends_the_threads() -> None:
    def make(step: int) -> Batch:
        if step == 3:
            raise OSError("gone")
        return numbered(step)

    steps = made_ahead(make, range(100))
    assert [int(next(steps).image) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(steps)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_only_a_few_are_made_ahead_and_closing_ends_it() -> None:
    made: list[int] = []

    def make(step: int) -> Batch:
        made.append(step)
        return numbered(step)

    steps = made_ahead(make, range(1000))
    next(steps)
    steps.close()
    assert len(made) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
