"""A disk that fills up while a pipeline of Python writes what is not of one scan: an OutputError, as documented."""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

import pytest

from medvae.checkpoint import arrays
from medvae.errors import OutputError
from medvae.pipelines import calibrate, train
from medvae.training import state

if TYPE_CHECKING:
    from pathlib import Path


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_while_a_training_keeps_its_state(
    blocks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train.train(blocks[0], config=blocks[1], out=tmp_path / "model")


def test_while_a_reference_is_written(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "model")
    monkeypatch.setattr(calibrate, "_keep", lambda ref, loaded, **_: train._stored(ref, loaded, without=()))
    monkeypatch.setattr(arrays, "save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        calibrate.calibrate(tmp_path / "model", blocks[0])
