"""Fitting the networks of a model one after the other, VAE and detector, with their log and record."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medvae.checkpoint.model import build_vae
from medvae.run.work import Progress, ignore
from medvae.training.detector import fit_detector, for_vae
from medvae.training.fit import fit, run_settings
from medvae.training.logs import log_to, read_epochs, training_record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from medvae.detector.network import Detector
    from medvae.settings import Settings
    from medvae.training.epoch import Epoch
    from medvae.training.plan import Plan
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
    plan = _run(running, folder / "log", resume=resume, logs=fabric.is_global_zero)
    detector, detector_plan = fit_detector(
        roles.training, settings, fabric=fabric, folder=folder, resume=resume, on_progress=on_progress
    )
    epochs = [one for one in read_epochs(folder / "log") if one.step <= plan.total]  # one may be logged and not saved
    followed = {} if detector_plan is None else detector_plan.settings
    changes = {
        "train": run_settings(settings.train, plan=plan.changes),
        "detector": settings.detector.model_copy(update=followed),
    }
    names = [path.stem for path in roles.validation.files]
    record = {**training_record(epochs), "training": len(roles.training), "validation": names}
    return Networks(vae, detector, settings.model_copy(update=changes), record, epochs)


def _run(epochs: Generator[Epoch, None, Plan], log: Path, *, resume: bool, logs: bool) -> Plan:
    """Train to the end, and say which plan of steps was followed; the first process logs."""
    with log_to(log, resumed=resume) if logs else nullcontext() as write:
        while True:
            try:
                epoch = next(epochs)
            except StopIteration as end:
                plan: Plan = end.value
                return plan
            if write is not None:
                write(epoch)
