"""What a training run leaves for the eye, and what a checkpoint says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medvae.training.epoch import Epoch
from medvae.training.logs import log_to, read_epochs, training_record

if TYPE_CHECKING:
    from pathlib import Path

EPOCH = Epoch(
    step=10,
    plan=((0, 40), (8, 30)),
    loss=1.5,
    reconstruction=100.0,
    kl=12.5,
    beta=0.5,
    error=0.2,
    validation=1.25,
    validation_error=0.3,
    mean_image_error=0.5,
    active=7,
    scans_per_second=3.0,
    best=True,
)


def epoch(step: int, *, validation: float | None = 1.25, best: bool = True) -> Epoch:
    return replace(EPOCH, step=step, validation=validation, best=best, loss=step / 10)


def write(folder: Path, *epochs: Epoch, resumed: bool = False) -> None:
    with log_to(folder, resumed=resumed) as log:
        for one in epochs:
            log(one)


def test_epochs_come_back(tmp_path: Path) -> None:
    epochs = [epoch(10), epoch(20, validation=None), epoch(30, best=False)]
    write(tmp_path / "log", *epochs)
    assert read_epochs(tmp_path / "log") == epochs


def test_each_epoch_is_on_disk_at_once(tmp_path: Path) -> None:
    with log_to(tmp_path, resumed=False) as log:
        log(epoch(10))
        assert read_epochs(tmp_path) == [epoch(10)]


def test_a_resumed_run_goes_on_and_a_new_one_begins_its_own(tmp_path: Path) -> None:
    write(tmp_path, epoch(10), epoch(20))
    write(tmp_path, replace(epoch(20), kl=3.0), epoch(30), resumed=True)
    assert read_epochs(tmp_path) == [epoch(10), replace(epoch(20), kl=3.0), epoch(30)], "the later one counts"
    write(tmp_path, epoch(10))
    assert read_epochs(tmp_path) == [epoch(10)]
    assert len(list(tmp_path.glob("events*"))) == 1


@pytest.mark.parametrize("rest", ['{"step": 20, "st', "3", '{"step": 20}', ""])
def test_a_line_left_half_written_is_passed_over(tmp_path: Path, rest: str) -> None:
    write(tmp_path, epoch(10))
    with open(tmp_path / "train.jsonl", "a", encoding="utf-8") as file:
        file.write(rest)
    assert read_epochs(tmp_path) == [epoch(10)]


def test_a_resumed_run_begins_a_line_of_its_own_after_one_left_half_written(tmp_path: Path) -> None:
    write(tmp_path, epoch(10))
    with open(tmp_path / "train.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 20, "st')
    write(tmp_path, epoch(20), epoch(30), resumed=True)
    assert read_epochs(tmp_path) == [epoch(10), epoch(20), epoch(30)]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path, epoch(10), epoch(20, validation=None))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("loss")] == [(10, 1.0), (20, 2.0)]
    assert [(e.step, e.value) for e in events.Scalars("validation")] == [(10, 1.25)]
    assert "scans_per_second" not in events.Tags()["scalars"]


def test_a_checkpoint_says_which_step_was_kept_and_nothing_of_times() -> None:
    record = training_record([epoch(10), epoch(20), epoch(30, best=False)])
    assert record == {
        "steps": 30,
        "kept_step": 20,
        "loss": 2.0,
        "validation": 1.25,
        "validation_error": 0.3,
        "mean_image_error": 0.5,
        "kl": 12.5,
        "active_units": 7,
    }


def test_an_epoch_in_words_names_units_and_the_error_to_beat() -> None:
    assert str(EPOCH) == (
        "loss 1.500 nats/voxel, validation 1.250, error 0.300 (mean image 0.500), KL 12 nats/scan, 3.0 scans/s"
    )
    bare = replace(EPOCH, validation=None, validation_error=None, mean_image_error=None)
    assert str(bare) == "loss 1.500 nats/voxel, KL 12 nats/scan, 3.0 scans/s"
    assert EPOCH.steps == 30
