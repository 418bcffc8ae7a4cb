"""The log of a training: one JSON line per epoch, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from medvae.training.epoch import Epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_NUMBERS = ("loss", "reconstruction", "kl", "beta", "error", "validation", "validation_error", "active")


@contextmanager
def log_to(folder: Path, *, resumed: bool) -> Iterator[Callable[[Epoch], None]]:
    """A function that writes an epoch to `folder/train.jsonl` and to TensorBoard's event files there.

    A run that does not go on from an earlier one begins its own files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not resumed:
        for old in folder.iterdir():
            old.unlink()
    path = folder / "train.jsonl"
    half_a_line = path.is_file() and not path.read_bytes().endswith(b"\n")  # of a killed run
    with open(path, "a", encoding="utf-8") as lines, SummaryWriter(str(folder)) as board:
        if half_a_line:
            lines.write("\n")

        def write(epoch: Epoch) -> None:
            lines.write(json.dumps(asdict(epoch)) + "\n")
            lines.flush()
            for name in _NUMBERS:
                value = getattr(epoch, name)
                if value is not None:
                    board.add_scalar(name, value, epoch.step)

        yield write


def read_epochs(folder: Path) -> list[Epoch]:
    """The epochs logged so far, the latest version of each; a line that a killed run left half written is left out."""
    known: dict[int, Epoch] = {}
    for line in (folder / "train.jsonl").read_text("utf-8").splitlines():
        try:
            tree = json.loads(line)
            epoch = Epoch(**{**tree, "plan": tuple((step, total) for step, total in tree["plan"])})
        except (ValueError, TypeError, KeyError):
            continue
        known[epoch.step] = epoch
    return [known[step] for step in sorted(known)]


def training_record(epochs: Sequence[Epoch]) -> dict[str, Any]:
    """What a checkpoint keeps of its training; no times, so that the same run gives the same bytes."""
    kept = [epoch for epoch in epochs if epoch.best][-1]
    return {
        "steps": epochs[-1].step,
        "kept_step": kept.step,
        "loss": kept.loss,
        "validation": kept.validation,
        "validation_error": kept.validation_error,
        "mean_image_error": kept.mean_image_error,
        "kl": kept.kl,
        "active_units": kept.active,
    }
