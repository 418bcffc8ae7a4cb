"""Batches are drawn from prepared scans by counters, with conditions and label maps, and made ahead by threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small_model
import torch

from medvae.training import batches
from medvae.training.batches import Batch, ahead, plain_batch, training_batch
from medvae.training.store import Scans, fetch, store
from medvae.vae.conditions import Conditions


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 5)


def batch(scans: Scans, step: int, *, rank: int = 0, world: int = 1, seed: int = 0, **train: Any) -> Batch:
    settings = small_model.settings(seed=seed, train=train)
    return training_batch(scans, step=step, rank=rank, world=world, settings=settings)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("inputs", "image", "mask"))


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


def test_each_scan_of_a_batch_is_read_once(described: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is full, a scan comes from the disk each time."""
    read: list[object] = []
    monkeypatch.setattr("medvae.training.store.fetch", lambda path: read.append(path) or fetch(path))
    batch(Scans(described.files, AGES, _room=0), 0, batch=2)
    assert len(read) == 2


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


# ------------------------------------------------------------------------------------------ conditions and label maps

AGES = Conditions.fit(["age", "sex"], [{"age": 20.0, "sex": "F"}, {"age": 60.0, "sex": "M"}])


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    """Four scans with age, sex and, every other one, a label map of the block that is bright."""
    folder = tmp_path_factory.mktemp("described")
    files = [folder / str(i) for i in range(4)]
    for i, path in enumerate(files):
        one = replace(small_model.scan(i), conditions={"age": 20.0 + 10 * i, "sex": "FM"[i % 2]})
        labels = np.zeros(one.mask.shape, np.int16)
        labels[:, 4:12, 5:11, 3:9] = 1
        image = np.where(one.mask, 2 * labels - 1.0, 0).astype(np.float32)
        store(replace(one, image=image, label_map=labels if i % 2 == 0 else None), path)
    return Scans(files, AGES)


def test_a_model_without_conditions_and_label_maps_is_the_special_case(scans: Scans) -> None:
    assert batch(scans, 0).c is None
    assert batch(scans, 0).label_map is None
    assert plain_batch(scans, 0).c is None
    assert plain_batch(scans, 0).label_map is None


def test_conditions_go_along_as_numbers(described: Scans) -> None:
    order = [batches._shuffled(i, 4, seed=0) for i in range(4)]
    made = batch(described, 0, batch=4, drop_conditions=0)
    expected = [AGES.vector({"age": 20.0 + 10 * i, "sex": "FM"[i % 2]}) for i in order]
    assert made.c is not None
    assert made.c.dtype == torch.float32
    assert np.array_equal(made.c.numpy(), np.stack(expected))
    plain = plain_batch(described, 3)
    assert plain.c is not None
    assert np.array_equal(plain.c.numpy()[0], AGES.vector({"age": 50.0, "sex": "M"}))


def test_conditions_are_dropped_each_and_all_with_the_same_probability(described: Scans) -> None:
    """Missing alone: d (1 − d); both missing: d + (1 − d) d². Images do not change."""
    off = dict.fromkeys(("spatial", "gamma", "bias", "blur", "noise"), 0)
    made = [batch(described, step, batch=8, drop_conditions=0.3, randomize=off) for step in range(75)]
    c = torch.cat([one.c for one in made if one.c is not None])
    age, sex = c[:, 1] == 1, c[:, 4] == 1
    both = 0.3 + 0.7 * 0.09
    assert (age & sex).float().mean().item() == pytest.approx(both, abs=0.06)
    assert (age & ~sex).float().mean().item() == pytest.approx(0.7 * 0.3 * 0.7, abs=0.05)
    again = batch(described, 7, batch=8, drop_conditions=0.3)
    assert again.c is not None
    assert torch.equal(again.c, c[56:64])
    assert torch.equal(again.inputs, batch(described, 7, batch=8, drop_conditions=0).inputs)


def test_label_maps_go_along_with_the_warp(described: Scans) -> None:
    off = dict.fromkeys(("gamma", "bias", "blur", "noise"), 0) | {"spatial": 1}
    made = batch(described, 0, batch=4, randomize=off)
    assert made.label_map is not None
    assert made.label_map.dtype == torch.int16
    labelled = [batches._shuffled(i, 4, seed=0) % 2 == 0 for i in range(4)]
    assert sum(labelled) == 2
    for image, mask, labels, known in zip(made.image, made.mask, made.label_map, labelled, strict=True):
        if not known:
            assert (labels == -1).all(), "a scan without a label map"
            continue
        agree = ((image > 0) == (labels == 1))[mask].float().mean()
        assert agree > 0.9, "moved by the same warp, nearest neighbour for linear"
        assert set(labels.unique().tolist()) == {0, 1}


def test_a_plain_batch_has_the_label_map(described: Scans) -> None:
    labels = plain_batch(described, 2).label_map
    assert labels is not None
    assert np.array_equal(labels[0].numpy(), described[2].label_map)


# ----------------------------------------------------------------------------------------------------------- ahead


def numbered(step: int) -> Batch:
    return Batch(*(torch.full((1,), step) for _ in range(3)))


def test_steps_come_in_order_though_some_take_longer() -> None:
    def make(step: int) -> Batch:
        time.sleep(0.02 * (step % 3 == 0))
        return numbered(step)

    assert [int(one.image) for one in ahead(make, range(4, 30))] == list(range(4, 30))
    assert not list(ahead(make, range(3, 3)))


def test_an_error_comes_at_its_step_and_ends_the_threads() -> None:
    def make(step: int) -> Batch:
        if step == 3:
            raise OSError("gone")
        return numbered(step)

    steps = ahead(make, range(100))
    assert [int(next(steps).image) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(steps)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_only_a_few_are_ahead_and_closing_ends_it() -> None:
    made: list[int] = []

    def make(step: int) -> Batch:
        made.append(step)
        return numbered(step)

    steps = ahead(make, range(1000))
    next(steps)
    steps.close()
    assert len(made) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
