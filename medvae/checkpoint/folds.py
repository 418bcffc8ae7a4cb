"""The folds of a cross-fitted model: models beside it that were trained without one part of its scans each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvae.checkpoint.folder import load
from medvae.checkpoint.model import FOLDS
from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model

_TRAIN_AGAIN = "copy the whole model folder again, or train again"


@dataclass(frozen=True, eq=False)
class FoldModel:
    """A model and the training scans that it has not seen.

    Attributes:
        model: trained on all other scans of the training.
        held_out: ids of those that were left out.
    """

    model: Model
    held_out: frozenset[str]


def fold_folder(model: Path, number: int) -> Path:
    """The folder of a fold, from 1."""
    return model / FOLDS / str(number)


def folds_record(folds: Sequence[FoldModel]) -> dict[str, Any]:
    """What the record of a model has of its folds; nothing where there are none."""
    if not folds:
        return {}
    return {FOLDS: [{"model": one.model.hash, "held_out": sorted(one.held_out)} for one in folds]}


def fold_hashes(model: Model) -> tuple[str, ...]:
    """Hashes of the weights of a model's folds; () where there are none."""
    return tuple(one["model"] for one in model.record.get(FOLDS, ()))


def load_folds(model: Model) -> tuple[FoldModel, ...]:
    """The folds of a model, from its folder onto its device; () where there are none.

    Raises:
        ModelError: the model is in no folder; a fold is missing, damaged, or another one than was trained with it.
    """
    known = model.record.get(FOLDS, ())
    if known and model.path is None:
        message = "the folds of a model lie in its folder, and this one was not loaded from a folder"
        raise ModelError(message, hint="pass its folder")
    return tuple(_load(model, number, one) for number, one in enumerate(known, start=1))


def _load(model: Model, number: int, known: Any) -> FoldModel:
    assert model.path is not None
    folder = fold_folder(model.path, number)
    fold = load(folder, device=str(model.device))
    if fold.hash != known["model"]:
        raise ModelError("this fold was not trained with the model", path=folder, hint=_TRAIN_AGAIN)
    return FoldModel(fold, frozenset(known["held_out"]))
