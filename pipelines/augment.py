"""Synthetic scans from a trained model: generate, screen for near-copies, write; repeatable from the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.checkpoint.folder import load
from medvae.run.engine import Done, OutputFolder, disk_errors, hash_of, run_scans
from medvae.run.outcomes import Finished
from medvae.run.work import ignore
from medvae.scan import ScanRef
from medvae.synthesis import generate, tables
from medvae.synthesis.synthesize import augment_settings, with_screen
from medvae.synthesis.synthetic import SampleJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.run.engine import Outcome, Summary
    from medvae.run.work import Progress
    from medvae.synthesis.synthetic import SyntheticSet


def run(
    model: Path,
    *,
    out: Path,
    count: int,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Write `count` synthetic scans and what a training run needs to read them.

    Sample number i is the same whatever the count; a second run with a larger one adds to the set.

    Raises:
        ModelError: the checkpoint cannot be read, or holds too little for the sampler.
        SettingsError: an unknown sampler or setting, or a setting that has no effect here.
        OutputError: the folder holds another run, or the disk is full.
    """
    trained = load(model, device=device)
    options = augment_settings(trained.settings, config, overrides)
    synthesizer = generate.fit(trained, options.augment, seed=options.seed)
    identity = {"augment": options.augment.model_dump(mode="json"), "seed": options.seed, **_identity(trained)}
    folder = OutputFolder(out, command="augment", identity=identity, overwrite=overwrite)

    whole = with_screen(synthesizer, on_progress=on_progress)
    jobs = [SampleJob(index) for index in range(count)]
    summary = _run_jobs(jobs, whole, folder=folder, model=model)
    rows = _rows([*summary.outcomes, *folder.others(_refs(jobs, model))])
    with disk_errors(out):
        for file in tables.set_files(rows, whole):
            file.write(out)
    counts = tables.counts(rows, whole)
    folder.finish(summary, **counts)
    return Finished(out, summary, tables.report(counts))


def _identity(trained: Model) -> dict[str, str]:
    """Everything that a sample depends on besides its number and settings: weights, and the training scans' data."""
    kept = [trained.latents.to_set().hash, trained.training.to_set().hash]
    return {"model": trained.hash, "kept": hash_of(kept)}


def _rows(outcomes: Iterable[Outcome]) -> list[tables.Row]:
    """The samples that were written, now or by earlier runs, in the order of their numbers."""
    rows = [
        tables.Row(one.id, one.scores, one.scores, one.warnings)  # type: ignore[arg-type]
        for one in outcomes
        if one.status == "ok"
    ]
    return sorted(rows, key=lambda row: row.index)


def _run_jobs(jobs: Sequence[SampleJob], whole: SyntheticSet, *, folder: OutputFolder, model: Path) -> Summary:
    """Until there is `run_jobs`: the same over `run_scans`, which knows scans only."""
    job_of = {job.id: job for job in jobs}

    def handle(ref: ScanRef, _: None) -> Done:
        result = whole.scan(job_of[ref.id].index).result()

        def write() -> list[str]:
            for file in result.files:
                file.write(folder.path)
            return [file.name for file in result.files]

        return Done(write, {**result.facts, **result.scores}, result.warnings)

    return run_scans(_refs(jobs, model), lambda ref: None, handle, folder=folder, workers=0, title="augment")


def _refs(jobs: Sequence[SampleJob], model: Path) -> list[ScanRef]:
    return [ScanRef(job.id, "synthetic", (model / "model.json",)) for job in jobs]
