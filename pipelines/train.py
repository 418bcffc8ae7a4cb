"""Fit a VAE, and a detector where one is wanted, to a cohort: prepare every scan once, train, write one folder."""

from __future__ import annotations

import logging
import math
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medvae.anomaly.calibrate import check_maps, uncalibrated
from medvae.anomaly.folds import first_scans, with_folds, write_folds
from medvae.anomaly.reference import ENOUGH, reference_of
from medvae.checkpoint.folder import load, save
from medvae.checkpoint.folds import folds_record
from medvae.checkpoint.model import FOLDS, build_vae
from medvae.cohort.find import find
from medvae.cohort.lists import tell_of_splits
from medvae.cohort.values import tell_of_conditions
from medvae.errors import InputError, ScanError, SettingsError
from medvae.io.files import write_json
from medvae.lesions.network import USUAL_STEPS
from medvae.prepare.load import Loaded, ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.review import training as pictures
from medvae.review.filling import remove_pages
from medvae.review.latent_map import LATENT_MAP, latent_map
from medvae.review.training_page import TrainingPage
from medvae.run.checks import check_disk, check_memory
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Finished, Outcome, Summary
from medvae.run.processes import Processes
from medvae.run.record import disk_errors, read_record
from medvae.run.work import Progress, Result, ignore
from medvae.settings import Settings, configure, load_settings
from medvae.training import before
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.folds import begin_folds, fit_folds, time_of_one
from medvae.training.lesions import find_crops, fit_lesions, mask_files, masks_hash
from medvae.training.networks import fit_networks
from medvae.training.plan import check_plans
from medvae.training.roles import assign, assign_folds, parts, stored_at
from medvae.training.store import StoredScan, tell_of_copies
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lightning_fabric import Fabric

    from medvae.checkpoint.model import Model
    from medvae.cohort.find import Wanted
    from medvae.scan import ScanRef
    from medvae.training.roles import Fold, Roles
    from medvae.training.store import Scans

log = logging.getLogger(__name__)

_STATE = ("last", "best")
_SHOWN = 4  # scans in the picture of reconstructions
_UNUSABLE = "none of the scans can be used"


def run(
    scans: Wanted | Iterable[Wanted],
    *,
    settings: Settings,
    out: Path,
    device: str = "auto",
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    lesion_masks: Path | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Train on all scans and write the model folder `out`.

    Prepared scans are kept in `out/cache` until training has ended, its state in `out/last` and `out/best`. With
    `resume` an interrupted training goes on from there and ends with the same weights on a CPU; one that had ended
    goes on if it is given more steps or minutes.

    Args:
        scans: all that `medvae.find` takes.
        settings: of the run, complete.
        out: folder of the model.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that read ahead.
        resume: go on with a training in `out`.
        overwrite: begin anew if the folder holds another training.
        lesion_masks: lesion masks without their scans: a folder of NIfTI files, or one.
        on_progress: called after each scan and step; the stages are those of `train`.

    Returns:
        How each scan ended; with exit code 2 nothing was usable, and nothing was trained.

    Raises:
        InputError: no scans were found.
        OutputError: the folder holds another training, or one of other scans, or one of which scans cannot be used
            now; the disk is full.
        SettingsError: an unknown network, likelihood, map or sampler, one that the model cannot have, a wrong option, a
            grid that does not fit, a detector of binary shapes: these before scans are looked for; a condition
            that no scan has.
        ScanError: a lesion mask cannot be read.
        TrainingError: the loss is not a number, or the posterior has collapsed.
    """
    _check(settings)
    masks = _masks(lesion_masks, settings)
    refs = find(scans, settings).refs
    build_vae(settings, Conditions.fit(settings.model.conditions, [ref.conditions for ref in refs]))
    if settings.train.folds:
        parts([ref.subject for ref in refs], count=settings.train.folds, seed=settings.seed)  # enough of them?
    tell_of_conditions(refs, settings.model.conditions)
    tell_of_splits(refs)
    torch.manual_seed(settings.seed)
    fabric = make_fabric(device, precision=settings.train.precision)
    fabric.launch()
    if not fabric.is_global_zero:
        return _follow(refs, settings, fabric=fabric, out=out, resume=resume)
    same = {"settings": before.identity(settings), **({"lesion_masks": masks_hash(masks)} if masks else {})}
    with (
        OutputFolder(
            out, command="train", identity=same, overwrite=overwrite, exclusive=True, part_of_model=True
        ) as folder,
        disk_errors(out),
    ):
        if overwrite:
            _clear(out)
        finished = before.is_finished(out, settings, refs, resume=resume)
        before.check_scans(out, refs)
        refs = before.as_begun(out, refs) if resume else refs
        if finished:
            fabric.broadcast(obj=False)
            with folder.rows() as rows:
                return _done_before(out, [one for one in rows if one.status != "ok"])
        summary = _prepare(refs, settings, folder=folder, workers=workers, on_progress=on_progress)
        before.check_usable(out, summary.outcomes)
        fabric.broadcast(summary.exit_code != 2)
        if summary.exit_code == 2:
            return Finished(out, summary, (f"{_UNUSABLE}; the reasons are above",))
        before.keep_scans(out, summary.outcomes)
        model = _train(refs, settings, fabric=fabric, out=out, resume=resume, masks=masks, on_progress=on_progress)
        folder.keep_only(summary.outcomes)  # not what an earlier try had prepared besides
        facts = {**model.record, "warnings": list(model.warnings)}
        folder.finish(summary, model=model.hash, length=before.length(settings), **facts)
        TrainingPage(read_record(out)).write(out)
        folder.remove_outputs()  # the prepared scans
        _remove(out, "cache", "calibration")
        for place in () if settings.train.keep_state else (out, *(out / FOLDS).glob("*")):
            _remove(place, *_STATE)
    for warning in model.warnings:
        log.warning(warning)
    return Finished(out, summary, _next_steps(model, out))


def train(
    scans: Wanted | Iterable[Wanted],
    *,
    config: str | Path | Settings,
    out: Path | str,
    device: str = "auto",
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    lesion_masks: Path | str | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Model:
    """Train a model on healthy scans and write its folder, as `medvae train` does.

    Args:
        scans: all that `medvae.find` takes: a folder, files, a list (CSV, TSV, JSON), a `Selection`, `ScanRef`s.
        config: name of a preset ("brain-mri-t1"), path of a YAML file, or `Settings`; with `medvae.load_settings`
            single settings are changed, e.g. `load_settings("brain-mri-t1", ("train.minutes=30",))`.
        out: folder of the model.
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: processes that read ahead; 0 reads in this one. They import the script that is run: what it does must
            stand below `if __name__ == "__main__":`.
        resume: go on with an interrupted training, or with a finished one that is given more steps or minutes.
        overwrite: begin anew where the folder holds another training.
        lesion_masks: lesion masks without their scans (a folder of NIfTI files, or one), whose shapes are learned, too;
            needs `lesions.steps`.
        on_progress: called after each scan and step, with the stages "prepare", "plan", "train", "detector", "lesions",
            "latents" and "reference statistics"; with `train.folds` also "fold 1 of 3: train" and so on, and
            "cross-fitting".

    Returns:
        The model, as `medvae.load_model` gives it. It is not calibrated yet (see `medvae.calibrate`), unless
        `train.folds` calibrates it on its own training scans.

    Raises:
        InputError: no scans were found, or none can be used.
        OutputError: the folder holds another training, or one of other scans, or one of which scans cannot be used
            now; the disk is full.
        SettingsError: an unknown setting, a map that the model cannot have, a grid that does not fit.
        ScanError: a lesion mask cannot be read.
        TrainingError: the loss is not a number, or the posterior has collapsed.
        RunError: the device does not exist; the workers cannot start.

    Example:
        >>> model = medvae.train("scans", config="brain-mri-t1", out="model")
    """
    settings = config if isinstance(config, Settings) else load_settings(config)
    finished = run(
        scans,
        settings=settings,
        out=Path(out),
        device=device,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        lesion_masks=None if lesion_masks is None else Path(lesion_masks),
        on_progress=on_progress,
    )
    if finished.exit_code == 2:
        first = finished.summary.outcomes[0]
        raise InputError(f"{_UNUSABLE}; {first.id}: {first.message}", hint=first.hint)
    return load(finished.out, device=device)


def _check(settings: Settings) -> None:
    """Refuse settings that cannot work, whatever the scans are, before looking for them."""
    check_maps(settings)
    check_plans(settings)
    _check_grey_values(settings)
    configure("samplers", settings.augment.sampler, settings.augment.options)
    build_vae(settings)


def _check_grey_values(settings: Settings) -> None:
    """Refuse what changes grey values where scans are binary shapes: noise and simulated anomalies."""
    corrupted = settings.train.randomize.corrupt_noise or settings.train.randomize.corrupt_anomalies
    if settings.prepare.modality == "SHAPE" and (settings.detector.steps or corrupted):
        message = "a detector, coarse noise and simulated anomalies need grey values, and the scans are binary shapes"
        hint = "set detector.steps=0, train.randomize.corrupt_noise=0 and train.randomize.corrupt_anomalies=0"
        raise SettingsError(message, hint=hint)


def _masks(folder: Path | None, settings: Settings) -> list[Path]:
    """Masks of lesions without scans.

    Raises:
        SettingsError: there are some, and no lesions are to be learned.
        InputError: there are none in the folder.
        ScanError: one of them cannot be used.
    """
    if folder is None:
        return []
    if not settings.lesions.steps:
        message = "masks of lesions are given, and no lesions are learned"
        raise SettingsError(message, hint=f"set lesions.steps={USUAL_STEPS}")
    return mask_files(folder, settings.read)


def _follow(refs: Sequence[ScanRef], settings: Settings, *, fabric: Fabric, out: Path, resume: bool) -> Finished:
    """One more process of the same run: the first one prepares and writes."""
    if fabric.broadcast(obj=False):  # what the first process says
        refs = before.as_begun(out, refs) if resume else refs
        roles, one = assign(refs, settings, out=out), time_of_one(settings)
        own = fit_networks(roles, one, fabric=fabric, folder=out, resume=resume).settings
        fit_folds(assign_folds(refs, settings, out=out), own, fabric=fabric, out=out, resume=resume)
    return Finished(out, Summary(()))


def _clear(out: Path) -> None:
    """Remove the model that is trained anew, its page, and what `calibrate` left there."""
    for name in ("model.json", "scans.json"):
        (out / name).unlink(missing_ok=True)
    remove_pages(out)
    _remove(out, "cache", "calibration", FOLDS, *_STATE)


def _remove(out: Path, *folders: str) -> None:
    for name in folders:
        shutil.rmtree(out / name, ignore_errors=True)


def _done_before(out: Path, others: Sequence[Outcome]) -> Finished:
    ids = load(out, device="cpu").latents.ids
    hint = "pass resume=True and more steps or minutes to train it further, overwrite=True to train it anew"
    summary = Summary((*(Outcome(name, "ok") for name in ids), *others))
    return Finished(out, summary, (f"{out}: trained before; {hint}",))


def _prepare(
    refs: Sequence[ScanRef],
    settings: Settings,
    *,
    folder: OutputFolder,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> Summary:
    """Every scan on the model's grid, in the cache."""
    check_memory(refs, settings.read, workers=workers)
    hint = "train on fewer scans, on a coarser grid, or write to another disk"
    check_disk(folder.path, len(refs) * 4 * math.prod(settings.prepare.shape), hint=hint)
    summary = run_jobs(
        refs,
        ReadAndPrepare(settings.read, Preparation(settings.prepare)),
        partial(_stored, without=before.unused(folder.path)),
        folder=folder,
        engine=Processes(workers),
        stage="prepare",
        on_progress=on_progress,
    )
    for outcome in summary.outcomes:
        if outcome.status != "ok":  # what an earlier try left of a scan that has changed since
            stored_at(folder.path, outcome.id).unlink(missing_ok=True)
    return summary


def _stored(ref: ScanRef, loaded: Loaded, *, without: Collection[str]) -> Result:
    if ref.id in without:
        raise ScanError("this training was begun without it", code="not_in_training")
    file = StoredScan(f"cache/{ref.id}.safetensors", loaded.prepared)
    return Result((file,), warnings=loaded.prepared.warnings)


def _train(
    refs: Sequence[ScanRef],
    settings: Settings,
    *,
    fabric: Fabric,
    out: Path,
    resume: bool,
    masks: Sequence[Path],
    on_progress: Callable[[Progress], None],
) -> Model:
    """Fit, and write the checkpoint and the pictures."""
    roles, folds = assign(refs, settings, out=out), assign_folds(refs, settings, out=out)
    crops = find_crops(roles.all, settings, masks=masks)  # first: too few of them are an error
    _announce(roles, folds, out=out)
    begin_folds(out, folds, resume=resume)
    one = time_of_one(settings)
    fitted = fit_networks(roles, one, fabric=fabric, folder=out, resume=resume, on_progress=on_progress)
    nets = fit_folds(folds, fitted.settings, fabric=fabric, out=out, resume=resume, on_progress=on_progress)
    lesions = fit_lesions(crops, settings, device=fabric.device, on_progress=on_progress) if crops else None
    others = write_folds(folds, nets, out=out, device=str(fabric.device), on_progress=on_progress)
    bare = to_model(
        fitted.vae,
        roles.all,
        detector=fitted.detector,
        lesions=lesions,
        labels=roles.labels,
        settings=fitted.settings,
        record={**fitted.record, **folds_record(others)},
        on_progress=on_progress,
    )
    if others:
        model = with_folds(bare, others, roles, on_progress=on_progress)
    else:
        model = uncalibrated(bare, first_scans(roles), on_progress=on_progress)
    save(model, out)
    names = model.record["validation"]
    pictures.curves(out / "curves.png", fitted.epochs)
    _draw(model, roles.validation if names else roles.training, out=out)
    latents = model.latents
    found = latent_map(latents.mean, latents.ids, labels=latents.labels, validation=set(names))
    write_json(out / LATENT_MAP, found)
    return model


def _announce(roles: Roles, folds: Sequence[Fold], *, out: Path) -> None:
    counts = len(roles.training), len(roles.validation)
    log.info("%d training scans, %d validation scans (different subjects)", *counts)
    tell_of_copies(roles.all.files)
    if folds:
        log.info("cross-fitting: %d more networks, each trained without one part of the scans", len(folds))
    else:
        log.info("a p as low as 0.05 needs at least %d other healthy scans, for calibration", ENOUGH)
    if (out / "calibration").is_dir():
        log.warning("the model is trained further: calibrate it again afterwards")


def _draw(model: Model, scans: Scans, *, out: Path) -> None:
    shown = [scans[index] for index in range(min(_SHOWN, len(scans)))]
    pairs = [pictures.Pair(one, model.reconstruct_prepared(one)) for one in shown]
    title = "validation scans" if model.record["validation"] else "training scans (there are no validation scans)"
    spacing = model.preparation.grid.spacing
    pictures.reconstructions(out / "reconstructions.png", pairs, spacing=spacing, title=title)


def _next_steps(model: Model, out: Path) -> tuple[str, ...]:
    reference = reference_of(model)
    where = f"model: {out} ({model.record['steps']} steps); review/index.html shows how the training went"
    if reference.calibrated:
        return (where, f"{reference.in_words}; {reference.least_in_words}")
    needs = f"{ENOUGH} or more for a p as low as 0.05"
    return (where, f"next: calibrate it on healthy scans that it was not trained on, {needs}")
