"""Prepared scans on disk: all of a scan comes back, and scans stay in memory while they fit."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_model

from medvae.prepare.preparation import Intensity
from medvae.scan import Geometry
from medvae.training.store import Scans, StoredScan, fetch, store, tell_of_copies
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 5)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_stored_scan_comes_back(tmp_path: Path, *, labelled: bool) -> None:
    classes = np.random.default_rng(0).integers(0, 4, (1, *small_model.SHAPE)).astype(np.int16)
    prepared = replace(
        small_model.scan(0),
        input=Geometry((20, 30, 40), np.diag([-0.3, 1 / 3, 2, 1])),
        intensity=Intensity(1 / 3, 20.0, -np.inf, np.inf, background=-1.0),
        label_map=classes if labelled else None,
        units="HU",
        modality=None,
        warnings=("whole_head", "ä"),
        conditions={"age": 33.5, "sex": "F"},
    )
    StoredScan("cache/one.safetensors", prepared).write(tmp_path)
    path = tmp_path / "cache" / "one.safetensors"
    again = fetch(path)
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


def test_copies_under_another_subject_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that was copied into the folder of another patient is in training and validation, or scores itself."""
    made = [("a", "p1", "x"), ("b", "p2", "x"), ("c", "p3", "y"), ("d", "p3", "y")]
    for name, subject, mark in made:
        store(replace(small_model.scan(0), id=name, subject=subject, source_hash=mark), tmp_path / name)
    tell_of_copies([tmp_path / "c", tmp_path / "d"])
    assert not caplog.records, "of one subject"
    tell_of_copies([tmp_path / name for name, _, _ in made])
    (record,) = caplog.records
    assert record.getMessage() == "a and b are copies of one scan under different subjects: leave one out"


def test_scans_are_kept_while_there_is_room(scans: Scans) -> None:
    all_kept = Scans(scans.files)
    assert all_kept[3] is all_kept[3]
    room = 6 * 16**3 * 2 + 1
    some = Scans(scans.files, _room=room)
    first = [some[i] for i in range(5)]
    assert [some[i] is first[i] for i in range(5)] == [True, True, False, False, False]
    assert np.array_equal(some[4].image, first[4].image)
    assert len(some) == 5


def test_label_maps_need_room_too(tmp_path: Path) -> None:
    labelled = replace(small_model.scan(0), label_map=np.zeros((1, *small_model.SHAPE), np.int16))
    store(labelled, tmp_path / "a")
    assert len(_kept(Scans([tmp_path / "a"], _room=7 * 16**3))) == 0
    assert len(_kept(Scans([tmp_path / "a"], _room=9 * 16**3))) == 1


def _kept(scans: Scans) -> dict[int, object]:
    _ = scans[0]
    return dict(scans._kept)


def test_a_word_that_the_training_scans_do_not_have_is_missing(tmp_path: Path) -> None:
    store(replace(small_model.scan(0), conditions={"site": "c", "age": 20.0}), tmp_path / "a")
    known = Conditions.fit(["site"], [{"site": "a"}, {"site": "b"}])
    assert Scans([tmp_path / "a"], known)[0].conditions == {"age": 20.0}
