"""Fitting the networks of a model one after the other, VAE and detector, with their log and record."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medvae.checkpoint.model import build_vae
from medvae.run.work import Progress, ignore
from medvae.training.detector import fit_detector, for_vae
from medvae.training.fit import fit, run_settings
from medvae.training.logs import log_to, read_epochs, training_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from medvae.detector.network import Detector
    from medvae.settings import Settings
    from medvae.training.epoch import Epoch
    from medvae.training.roles import Roles
    from medvae.vae.base import VAE


@dataclass(frozen=True, eq=False)
class Networks:
    """Fitted networks, in eval mode.

    Attributes:
        vae: with its σ frozen.
        detector: None where the settings want none.
        settings: of the run, with the steps that were taken in place of a time budget.
        record: how it went, without times.
        epochs: of the VAE.
    """

    vae: VAE = field(repr=False)
    detector: Detector | None = field(repr=False)
    settings: Settings
    record: Mapping[str, Any]
    epochs: Sequence[Epoch] = field(repr=False)


def fit_networks(
    roles: Roles,
    settings: Settings,
    *,
    fabric: Fabric,
    folder: Path,
    resume: bool,
    on_progress: Callable[[Progress], None] = ignore,
) -> Networks:
    """Train a VAE, and a detector where the settings want one. Each process of a run calls this.

    Args:
        roles: which scans are learned from.
        settings: of the run; the time budget, if any, is for both networks.
        fabric: device and precision.
        folder: where their state and log are kept.
        resume: go on from there.
        on_progress: called after each step, with the stages "plan", "train" and "detector".

    Raises:
        TrainingError: a loss is not a number, or the posterior has collapsed.
        SettingsError: fewer steps than are done, or another plan than the one that was followed.
    """
    vae = build_vae(settings, roles.all.conditions)
    chosen, own = (roles.training, roles.validation), for_vae(settings)
    running = fit(vae, *chosen, own, fabric=fabric, folder=folder, resume=resume, on_progress=on_progress)
    _run(running, folder / "log", resume=resume, logs=fabric.is_global_zero)
    detector, plan = fit_detector(
        roles.training, settings, fabric=fabric, folder=folder, resume=resume, on_progress=on_progress
    )
    epochs = read_epochs(folder / "log")
    changes = {
        "train": run_settings(settings.train, plan=epochs[-1].plan),
        "detector": settings.detector if plan is None else settings.detector.model_copy(update=plan.settings),
    }
    names = [path.stem for path in roles.validation.files]
    record = {**training_record(epochs), "training": len(roles.training), "validation": names}
    return Networks(vae, detector, settings.model_copy(update=changes), record, epochs)


def _run(epochs: Iterable[Epoch], log: Path, *, resume: bool, logs: bool) -> None:
    """Train to the end; the first process logs."""
    if not logs:
        deque(epochs, maxlen=0)
        return
    with log_to(log, resumed=resume) as write:
        for epoch in epochs:
            write(epoch)
