"""Fit a VAE to a cohort: prepare every scan once, train, keep what detect and augment need in one folder."""

from __future__ import annotations

import logging
import math
import shutil
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from medvae import console
from medvae.anomaly.calibrate import uncalibrated
from medvae.anomaly.inference import infer
from medvae.checkpoint.folder import save
from medvae.checkpoint.model import build_vae
from medvae.cohort.find import find
from medvae.errors import InputError, OutputError
from medvae.prepare.preparation import Preparation
from medvae.review import training as pictures
from medvae.run.engine import (
    Done,
    OutputFolder,
    ReadAndPrepare,
    check_disk,
    check_memory,
    hash_of,
    require,
    run_scans,
)
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.fit import fit, run_settings
from medvae.training.logs import log_to, read_epochs, training_record
from medvae.training.split import held_out
from medvae.training.store import Scans, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.run.engine import Loaded, Summary
    from medvae.scan import ScanRef, Selection
    from medvae.settings import Settings
    from medvae.training.epoch import Epoch
    from medvae.vae.base import VAE

log = logging.getLogger(__name__)

_SCRATCH = ("cache", "last", "best")  # folders that go when training has ended well
_REFERENCE_SCANS = 200  # so many training scans show well enough what training scans look like
_SHOWN = 4  # scans in the picture of reconstructions


def run(
    selection: Selection,
    *,
    settings: Settings,
    out: Path,
    device: str,
    workers: int,
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Train on all scans of a selection and write the model folder `out`; returns the exit code.

    Prepared scans are cached in `out/cache` until training has ended well, the state of the fit in `out/last` and
    `out/best`; with `resume` an interrupted run goes on from there and ends with the same weights on a CPU.

    Raises:
        InputError: nothing usable among the inputs.
        OutputError: the folder holds another run, or the disk is full.
        TrainingError: the loss is not a number, or the posterior has collapsed.
    """
    refs = find(selection, settings.read).refs
    require(refs)
    torch.manual_seed(settings.seed)
    vae = build_vae(settings)  # a grid that does not fit is refused before anything is read
    fabric = make_fabric(device, precision=settings.train.precision)
    fabric.launch()
    if not fabric.is_global_zero:  # one more process of the same run: the first one prepares and writes
        fabric.barrier()
        training, validation = _roles(refs, out, settings)
        deque(fit(vae, training, validation, settings, fabric=fabric, folder=out, resume=resume), maxlen=0)
        return 0

    scans = hash_of([(ref.id, ref.subject, ref.label) for ref in refs])
    identity = {"settings": settings.model_dump(mode="json"), "scans": scans}
    folder = OutputFolder(out, command="train", identity=identity, overwrite=overwrite, part_of_model=True)
    if _before(out, resume=resume, overwrite=overwrite):
        return 0
    summary = _prepare(refs, settings, folder=folder, workers=workers)
    fabric.barrier()
    training, validation = _roles(refs, out, settings)
    log.info("%d scans to learn from, %d of other subjects to watch the fit", len(training), len(validation))

    done = 0
    with log_to(out / "log", resumed=resume) as write, console.progress(settings.train.steps, "train") as bar:
        for epoch in fit(vae, training, validation, settings, fabric=fabric, folder=out, resume=resume):
            write(epoch)
            bar.total(epoch.steps)
            bar.note(_note(epoch))
            bar.advance(epoch.step - done)
            done = epoch.step
    epochs = read_epochs(out / "log")
    record = {
        **training_record(epochs),
        "training": len(training),
        "validation": [path.stem for path in validation.files],
    }
    trained = _remember(vae, refs, out=out, settings=settings, record=record, plan=epochs[-1].plan)
    save(trained, out)
    pictures.curves(out / "curves.png", epochs)
    _draw(trained, validation if len(validation) else training, out=out)
    for name in _SCRATCH:
        shutil.rmtree(out / name)
    folder.finish(summary, model=trained.hash, **record)
    summary.report()
    console.out(f"model: {out}; curves.png and reconstructions.png there show how it went")
    return summary.exit_code


def _before(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether the folder holds the finished model of this very run; clears it to begin anew where that is asked for."""
    if overwrite:
        (out / "model.json").unlink(missing_ok=True)
        for name in (*_SCRATCH, "calibration"):  # what `calibrate` left there belongs to the model that goes
            shutil.rmtree(out / name, ignore_errors=True)
    if (out / "model.json").is_file():
        console.out(f"{out} holds the finished model of this run; --overwrite trains it again")
        return True
    if (out / "last").is_dir() and not resume:
        hint = "--resume goes on with it, --overwrite begins anew"
        raise OutputError("the folder holds an interrupted training", path=out, hint=hint)
    return False


def _prepare(refs: Sequence[ScanRef], settings: Settings, *, folder: OutputFolder, workers: int) -> Summary:
    """Every scan on the model's grid, in the cache."""
    check_memory(refs, settings.read, workers=workers)
    hint = "train on fewer scans, on a coarser grid, or write to another disk"
    check_disk(folder.path, len(refs) * 4 * math.prod(settings.prepare.shape), hint=hint)
    load = ReadAndPrepare(settings.read, Preparation(settings.prepare))
    handle = partial(_keep, out=folder.path)
    summary = run_scans(refs, load, handle, folder=folder, workers=workers, title="prepare")
    for outcome in summary.outcomes:
        if outcome.status != "ok":  # what an earlier try left of a scan that has changed since
            _cached(folder.path, outcome.id).unlink(missing_ok=True)
    if summary.exit_code == 2:
        summary.report()
        raise InputError("none of the scans can be used", hint="look at them with `medvae info --check`")
    return summary


def _keep(ref: ScanRef, loaded: Loaded, *, out: Path) -> Done:
    path = _cached(out, ref.id)

    def write() -> Sequence[str]:
        store(loaded.prepared, path)
        return (str(path.relative_to(out)),)

    return Done(write, warnings=loaded.prepared.warnings)


def _roles(refs: Sequence[ScanRef], out: Path, settings: Settings) -> tuple[Scans, Scans]:
    """The prepared scans to learn from, and those of other subjects that the fit is watched on."""
    usable = [ref for ref in refs if _cached(out, ref.id).is_file()]
    aside = held_out([ref.subject for ref in usable], share=settings.train.validation, seed=settings.seed)
    files = {role: [_cached(out, r.id) for r in usable if (r.subject in aside) == role] for role in (False, True)}
    return Scans(files[False]), Scans(files[True])


def _remember(
    vae: VAE, refs: Sequence[ScanRef], *, out: Path, settings: Settings, record: Mapping[str, Any], plan: Any
) -> Model:
    """The checkpoint, with what it keeps of all scans that the fit has seen."""
    usable = [ref for ref in refs if _cached(out, ref.id).is_file()]
    scans, labels = Scans([_cached(out, ref.id) for ref in usable]), [ref.label for ref in usable]
    steps = run_settings(settings.train, plan=plan)  # in the place of a time budget
    settings = settings.model_copy(update={"train": steps})
    with console.progress(len(scans), "remember") as bar:
        model = to_model(vae, scans, labels=labels, settings=settings, record=record)
    few = Scans(scans.files[:_REFERENCE_SCANS])
    with console.progress(2 * len(few), "reference statistics") as bar:
        return uncalibrated(model, few, on_progress=lambda progress: bar.advance())


def _draw(trained: Model, scans: Scans, *, out: Path) -> None:
    shown = [infer(trained, scans[index]) for index in range(min(_SHOWN, len(scans)))]
    pairs = [pictures.pair_of(one) for one in shown]
    title = "validation scans" if trained.record["validation"] else "training scans (none were held out)"
    spacing = trained.preparation.grid.spacing
    pictures.reconstructions(out / "reconstructions.png", pairs, spacing=spacing, title=title)


def _cached(out: Path, name: str) -> Path:
    return out / "cache" / f"{name}.safetensors"


def _note(epoch: Epoch) -> str:
    judged = "" if epoch.validation is None else f" val {epoch.validation:.3f}"
    numbers = f"loss {epoch.loss:.3f}{judged} rec {epoch.reconstruction:.0f} kl {epoch.kl:.0f} nats"
    return f"{numbers} active {epoch.active} {epoch.scans_per_second:.1f} scans/s"
