"""What cross-fitting adds to a training: its share of the time, the settings of a fold, and where folds are kept.

OUT/folds/
  parts.json   ids of the scans that each fold leaves out
  1 ... K      a model folder each, with its log and the state of its training
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.checkpoint.folds import fold_folder
from medvae.checkpoint.model import FOLDS
from medvae.io.files import write_json
from medvae.run.work import ignore
from medvae.training.networks import fit_networks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from medvae.run.work import Progress
    from medvae.settings import Settings
    from medvae.training.networks import Networks
    from medvae.training.roles import Fold

_PARTS = "parts.json"


def begin_folds(out: Path, folds: Sequence[Fold], *, resume: bool) -> None:
    """Note which scans each fold leaves out; remove folds of an earlier training that cannot go on."""
    held_out = [list(fold.held_out) for fold in folds]
    if not resume or _read(out / FOLDS / _PARTS) != held_out:
        shutil.rmtree(out / FOLDS, ignore_errors=True)
    if folds:
        write_json(out / FOLDS / _PARTS, held_out)


def time_of_one(settings: Settings) -> Settings:
    """The settings of the model itself: of a time budget it gets as much as each of the folds."""
    minutes, count = settings.train.minutes, settings.train.folds
    if minutes is None:
        return settings
    return settings.model_copy(update={"train": settings.train.model_copy(update={"minutes": minutes / (count + 1)})})


def settings_of_fold(settings: Settings) -> Settings:
    """The settings of a fold: as the model itself was trained, step by step; no scans and no lesions are kept.

    Args:
        settings: of the model, with the plan that its training followed.
    """
    train = settings.train.model_copy(update={"folds": 0, "keep_scans": 0})
    return settings.model_copy(update={"train": train, "lesions": settings.lesions.model_copy(update={"steps": 0})})


def fit_folds(
    folds: Sequence[Fold],
    settings: Settings,
    *,
    fabric: Fabric,
    out: Path,
    resume: bool,
    on_progress: Callable[[Progress], None] = ignore,
) -> list[Networks]:
    """Train the networks of each fold, one after the other. Each process of a run calls this.

    Args:
        folds: which scans are left out.
        settings: of the model itself, with the plan that its training followed.
        fabric: device and precision.
        out: folder of the model.
        resume: go on where an earlier run was interrupted.
        on_progress: called as by `fit_networks`.
    """
    return [
        fit_networks(
            fold.roles.anew(),
            settings_of_fold(settings),
            fabric=fabric,
            folder=fold_folder(out, number),
            resume=resume,
            on_progress=progress_of_fold(on_progress, number=number, count=len(folds)),
        )
        for number, fold in enumerate(folds, start=1)
    ]


def progress_of_fold(on_progress: Callable[[Progress], None], *, number: int, count: int) -> Callable[[Progress], None]:
    """Progress whose stages name the fold, e.g. "fold 2 of 3: train"."""
    return lambda one: on_progress(replace(one, stage=f"fold {number} of {count}: {one.stage}"))


def _read(path: Path) -> object:
    """JSON; None where there is none, or a damaged file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
