"""The folds of a training as models, each with the statistics of its own training scans; calibration by them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.anomaly.calibrate import uncalibrated, with_training
from medvae.anomaly.crossfit import cross_fitted, scans_with_lesions
from medvae.anomaly.reference import with_reference
from medvae.checkpoint.folder import load, save
from medvae.checkpoint.folds import FoldModel, fold_folder
from medvae.checkpoint.model import weights_hash
from medvae.errors import ModelError
from medvae.training.finish import networks_of, to_model
from medvae.training.folds import progress_of_fold
from medvae.training.store import Scans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.run.work import Progress
    from medvae.training.networks import Networks
    from medvae.training.roles import Fold, Roles

log = logging.getLogger(__name__)

_REFERENCE_SCANS = 200  # training scans whose statistics are the first Reference


def first_scans(roles: Roles) -> Scans:
    """The scans that the statistics of the training are of."""
    return Scans(roles.all.files[:_REFERENCE_SCANS], roles.all.conditions)


def write_folds(
    folds: Sequence[Fold],
    fitted: Sequence[Networks],
    *,
    out: Path,
    device: str,
    on_progress: Callable[[Progress], None],
) -> list[FoldModel]:
    """Write the folder of each fold, with the statistics of its training scans; one that is whole stays."""
    found = []
    for number, (fold, networks) in enumerate(zip(folds, fitted, strict=True), start=1):
        place = fold_folder(out, number)
        if not _is_written(place, weights_hash(networks_of(networks.vae, networks.detector))):
            named = progress_of_fold(on_progress, number=number, count=len(folds))
            save(_model(fold.roles.anew(), networks, on_progress=named), place)
        found.append(FoldModel(load(place, device=device), frozenset(fold.held_out)))
    return found


def _model(roles: Roles, networks: Networks, *, on_progress: Callable[[Progress], None]) -> Model:
    bare = to_model(
        networks.vae,
        roles.all,
        detector=networks.detector,
        labels=roles.labels,
        settings=networks.settings,
        record=networks.record,
        on_progress=on_progress,
    )
    return with_training(bare, first_scans(roles), on_progress=on_progress)


def _is_written(folder: Path, weights: str) -> bool:
    """Whether the folder holds the whole model of these weights, of a run that was interrupted after that."""
    try:
        return load(folder, device="cpu").hash == weights
    except ModelError:
        return False


def with_folds(
    model: Model, folds: Sequence[FoldModel], roles: Roles, *, on_progress: Callable[[Progress], None]
) -> Model:
    """The model with its first Reference: calibrated on its own scans, those with lesions apart.

    Where all scans have lesions it is that of any training, uncalibrated.
    """
    ill = scans_with_lesions(model)
    files = [path for path in first_scans(roles).files if path.stem not in ill]
    if not files:
        log.warning("all training scans have lesions: cross-fitting needs healthy ones")
        return uncalibrated(model, first_scans(roles), on_progress=on_progress)
    trained = with_training(model, first_scans(roles), on_progress=on_progress)
    reference = cross_fitted(
        trained,
        folds,
        Scans(files, roles.all.conditions),
        on_progress=lambda one: on_progress(replace(one, stage="cross-fitting")),
    )
    return with_reference(trained, reference)
