"""Measure what healthy looks like to a model, on scans that its training has not seen: its Reference."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from typing import TYPE_CHECKING

from medvae import console, plugins
from medvae.anomaly.calibrate import check_options, make_reference
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.arrays import save_set
from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.errors import InputError, ScanError
from medvae.run.engine import Done, OutputFolder, ReadAndPrepare, check_disk, check_memory, require, run_scans
from medvae.settings import adjust
from medvae.training.store import Scans, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.run.engine import Loaded
    from medvae.scan import ScanRef, Selection

log = logging.getLogger(__name__)

_FEW = 20  # below this many scans no p-value can be less than 0.05


def run(
    selection: Selection,
    *,
    model: Path,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    workers: int = 0,
) -> int:
    """Make the Reference of a model from healthy scans and write it into the model's folder; returns the exit code.

    Scans that training has seen, and scans of its subjects, are left out: their residuals are too small.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: nothing usable among the inputs.
        SettingsError: an unknown setting, or one that belongs to the model.
    """
    trained = load(model, device=device)
    options = adjust(trained.settings, config, overrides)
    check_options(trained, options.detect)
    refs = find(selection, options.read).refs
    require(refs)
    out = model / "calibration"  # the prepared scans are kept here until the Reference is written
    folder = OutputFolder(out, command="calibrate", identity={"model": trained.hash})
    size = check_memory(refs, options.read, workers=workers)
    check_disk(out, 2 * size * len(refs), hint="calibrate with fewer scans")
    load_one = ReadAndPrepare(options.read, trained.preparation)
    handle = partial(_keep, trained=trained, out=out)
    summary = run_scans(refs, load_one, handle, folder=folder, workers=workers, title="prepare")
    usable = [out / outcome.outputs[0] for outcome in summary.outcomes if outcome.status == "ok"]
    if not usable:
        summary.report()
        raise InputError("none of the scans can be used", hint="healthy scans that training has not seen are needed")

    def scans() -> Iterator[Prepared]:
        kept = Scans(usable)
        return (kept[index] for index in range(len(kept)))

    with console.progress(2 * len(usable), "calibrate") as bar:
        reference = make_reference(
            trained,
            scans,
            names=plugins.names("maps"),
            calibrated=True,
            detect=options.detect,
            on_scan=bar.advance,
        )
    save_set(model, "reference", reference.to_set())
    folder.finish(summary, reference=reference.status)
    shutil.rmtree(out / "cache")
    summary.report()
    console.out(f"{model}: {reference.status}; the smallest p of a scan is {1 / (reference.n + 1):.3f}")
    before = reference_of(trained)
    if before.calibrated and reference.n < before.n:
        log.warning("the Reference of %d healthy scans that was there is replaced; calibrate on all at once", before.n)
    if reference.n < _FEW:
        log.warning("with fewer than %d healthy scans no p can be below 0.05", _FEW - 1)
    return summary.exit_code


def _keep(ref: ScanRef, loaded: Loaded, *, trained: Model, out: Path) -> Done:
    prepared, path = loaded.prepared, out / "cache" / f"{ref.id}.safetensors"
    named = ref.subject != ref.id  # a subject that a list names; an id may be the same by chance
    if prepared.source_hash in trained.latents.hashes or (named and ref.subject in trained.latents.subjects):
        raise ScanError("training has seen this scan or its subject", code="seen_in_training")

    def write() -> Sequence[str]:
        store(prepared, path)
        return (str(path.relative_to(out)),)

    return Done(write, warnings=prepared.warnings)
