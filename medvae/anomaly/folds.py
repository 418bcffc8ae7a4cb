"""The folds of `train`: networks that leave out one part of the scans each, and the calibration that they make."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.anomaly.calibrate import uncalibrated
from medvae.anomaly.crossfit import cross_fitted, scans_with_lesions
from medvae.anomaly.reference import with_reference
from medvae.checkpoint.folder import load, save
from medvae.checkpoint.folds import FoldModel, fold_folder
from medvae.checkpoint.model import weights_hash
from medvae.errors import ModelError
from medvae.training.finish import networks_of, to_model
from medvae.training.folds import progress_of_fold, settings_of_fold
from medvae.training.networks import fit_networks
from medvae.training.store import Scans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from medvae.checkpoint.model import Model
    from medvae.run.work import Progress
    from medvae.settings import Settings
    from medvae.training.roles import Fold, Roles

_REFERENCE_SCANS = 200  # training scans whose statistics are the first Reference


def first_scans(roles: Roles) -> Scans:
    """The scans that the statistics of the training are of."""
    return Scans(roles.all.files[:_REFERENCE_SCANS], roles.all.conditions)


def train_folds(
    folds: Sequence[Fold],
    settings: Settings,
    *,
    fabric: Fabric,
    out: Path,
    resume: bool,
    on_progress: Callable[[Progress], None],
) -> list[FoldModel]:
    """Train the folds, and write their folders."""
    chosen, found = settings_of_fold(settings), []
    for number, fold in enumerate(folds, start=1):
        place = fold_folder(out, number)
        named = progress_of_fold(on_progress, number=number, count=len(folds))
        fitted = fit_networks(fold.roles, chosen, fabric=fabric, folder=place, resume=resume, on_progress=named)
        if not _is_written(place, weights_hash(networks_of(fitted.vae, fitted.detector))):
            bare = to_model(
                fitted.vae,
                fold.roles.all,
                detector=fitted.detector,
                labels=fold.roles.labels,
                settings=fitted.settings,
                record=fitted.record,
                on_progress=named,
            )
            save(uncalibrated(bare, first_scans(fold.roles), on_progress=named), place)
        found.append(FoldModel(load(place, device=str(fabric.device)), frozenset(fold.held_out)))
    return found


def _is_written(folder: Path, weights: str) -> bool:
    """Whether the folder holds the whole model of these weights, of a run that was interrupted after that."""
    try:
        return load(folder, device="cpu").hash == weights
    except ModelError:
        return False


def with_folds(
    model: Model, folds: Sequence[FoldModel], roles: Roles, *, on_progress: Callable[[Progress], None]
) -> Model:
    """The model calibrated on its own scans, those with lesions apart."""
    ill = scans_with_lesions(model)
    files = [path for path in first_scans(roles).files if path.stem not in ill]
    reference = cross_fitted(
        model,
        folds,
        Scans(files, roles.all.conditions),
        on_progress=lambda one: on_progress(replace(one, stage="cross-fitting")),
    )
    return with_reference(model, reference)
