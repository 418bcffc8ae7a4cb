"""Synthetic scans from a trained model: generate, screen for near-copies, write; repeatable from the seed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.checkpoint.folder import load
from medvae.evaluation.folder import remove_evaluation
from medvae.review.accepted import remove_accepted
from medvae.review.drawing import import_what_drawing_needs
from medvae.review.filling import remove_pages
from medvae.review.sample_list import SampleList
from medvae.review.sample_page import SamplePage
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Finished
from medvae.run.processes import Processes
from medvae.run.record import disk_errors, hash_of, read_record
from medvae.run.work import Result, ignore
from medvae.synthesis import generate, tables
from medvae.synthesis.rows import Row
from medvae.synthesis.synthesize import augment_settings, make_layout, with_screen
from medvae.synthesis.synthetic import SampleJob
from medvae.synthesis.to_scan import stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.run.outcomes import Outcome
    from medvae.run.work import Progress
    from medvae.synthesis.synthetic import SyntheticSet


def run(
    model: Path,
    *,
    out: Path,
    count: int,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    merge_with: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Write `count` synthetic scans and what a training run needs to read them.

    Sample number i is the same whatever the count; a second run with a larger one adds to the set. With `merge_with`, a
    real set in the same layout, the lists hold its scans, too.

    Args:
        model: folder of the model.
        out: output folder; a second run in it does what is missing.
        count: of samples.
        config: name of a preset, or path of a YAML file, with changes.
        overrides: `section.key=value` texts.
        merge_with: folder of the real set that the samples are appended to; with the layout `medvae` also a list.
        device: auto, cpu, cuda or cuda:N.
        overwrite: begin anew if the folder holds another run.
        on_progress: called while the copy screen is fitted, and after each sample.

    Returns:
        How each sample ended.

    Raises:
        ModelError: the checkpoint cannot be read, or holds too little for the sampler.
        SettingsError: an unknown sampler or setting, or a setting that has no effect here.
        InputError: the real set cannot be read, or the samples do not fit to it.
        OutputError: the folder holds another run, or the disk is full.
    """
    trained = load(model, device=device)
    options = augment_settings(trained.settings, config, overrides)
    synthesizer = generate.fit(trained, options.augment, seed=options.seed)
    layout = make_layout(synthesizer, merge_with=merge_with)
    identity = {"augment": options.augment.model_dump(mode="json"), "seed": options.seed, **_identity(trained)}
    identity |= {} if layout.real is None else {"merge_with": layout.real.folder.name}
    import_what_drawing_needs()
    with OutputFolder(out, command="augment", identity=identity, overwrite=overwrite) as folder:
        if overwrite:
            with disk_errors(out):
                remove_pages(out)
                remove_evaluation(out)
                remove_accepted(out)
        whole = with_screen(synthesizer, layout=layout, on_progress=on_progress)
        summary = run_jobs(
            [SampleJob(index) for index in range(count)],
            _nothing_to_read,
            partial(_generate, whole=whole),
            folder=folder,
            engine=Processes(),
            stage="augment",
            on_progress=on_progress,
        )
        rows, counts, files = _write_tables(folder, whole)
        folder.finish(summary, files=files, **counts, prepare=trained.preparation.to_json())
        pages = options.augment.review and layout.with_pages
        if pages:
            with folder.rows() as outcomes, disk_errors(out):
                SampleList(read_record(out), outcomes).write(out)
    lines = [f"{out}/review/index.html: the pages, to be opened in a browser"] if pages else []
    return Finished(out, summary, (*tables.report(counts), *layout.lines(rows), *lines))


def _identity(trained: Model) -> dict[str, str]:
    """Everything that a sample depends on besides its number and settings: weights, and the training scans' data."""
    kept = [trained.latents.to_set().hash, trained.training.to_set().hash]
    return {"model": trained.hash, "kept": hash_of(kept)}


def _nothing_to_read(_: SampleJob) -> None:
    """A sample is generated from the model alone."""


def _generate(job: SampleJob, _: None, *, whole: SyntheticSet) -> Result:
    scan = whole.scan(job.index)
    found = scan.result()
    if not (whole.synthesizer.settings.review and whole.layout.with_pages):
        return found
    page = SamplePage.of(job.id, found, values=stored(scan.image).astype(np.float32, copy=False))
    return replace(found, files=(*found.files, *whole.beside(scan), page))


def _write_tables(folder: OutputFolder, whole: SyntheticSet) -> tuple[list[Row], dict[str, Any], list[str]]:
    """The files about all samples in the folder, those of other runs included; returns rows, counts and their names."""
    with folder.rows() as outcomes, disk_errors(folder.path):
        rows = _rows(outcomes)
        files = tables.set_files(rows, whole, folder.path)
        for file in files:
            file.write(folder.path)
        refused = sum(one.code == "implausible" for one in outcomes)
        return rows, tables.counts(rows, whole, not_generated=refused), [file.name for file in files]


def _rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """The samples that were written, in the order of their numbers."""
    done = (one for one in outcomes if one.status == "ok")
    return sorted((Row(one.id, one.scores, one.facts, one.warnings) for one in done), key=lambda row: row.index)
