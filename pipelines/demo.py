"""Everything on simulated brains: simulate a cohort, train, calibrate, detect, augment, evaluate on held-out scans.

The only recipe that calls others. It does what a user does, from files to files, in OUT/cohort, model, maps, synthetic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medvae.evaluation.metrics import compare, scan_auroc
from medvae.evaluation.truth import read_scores, read_voxels
from medvae.pipelines import augment, calibrate, detect, train
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Finished, Summary
from medvae.run.processes import Processes
from medvae.run.record import RESEARCH_USE, disk_errors
from medvae.run.work import Progress, Result, ignore
from medvae.scan import Selection
from medvae.simulate import cohort as simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from medvae.evaluation.truth import Case
    from medvae.settings import Settings
    from medvae.simulate.cohort import MemberJob
    from medvae.simulate.phantom import Member

SIZES = {"train": 24, "calibrate": 12, "test": 16}
SYNTHETIC = 12
_STAGES = 5


def run(
    out: Path,
    *,
    settings: Settings,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Run the demo in the folder `out`. An interrupted demo continues where it stopped.

    Args:
        out: receives the folders cohort, model, maps and synthetic.
        settings: of the model and of the maps; their seed is also that of the cohort.
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: processes that read ahead.
        overwrite: begin anew.
        on_progress: called as the stages go on; `stage` begins with the number of the stage, e.g. "2/5 train".

    Raises:
        OutputError: the folder holds a demo with other settings, or the disk is full.
    """
    begun = time.monotonic()
    jobs = simulated.members(SIZES, seed=settings.seed)
    options = _Options(settings, device, workers, overwrite, on_progress)
    ended = _stages(jobs, out, options)
    cases = [simulated.case(job, out / "cohort") for job in jobs if job.split == "test"]
    lines = [line for one in ended for line in one.lines]
    lines += _evaluation(cases, out / "maps", names=settings.detect.maps)
    lines += _where_to_look(out, next(case for case in cases if case.truth is not None))
    lines += [f"Simulated scans are easier than scans of patients: this is no clinical evidence. {RESEARCH_USE}"]
    lines += [f"time: {time.monotonic() - begun:.0f} s"]
    return Finished(out, Summary(tuple(one for part in ended for one in part.summary.outcomes)), tuple(lines))


@dataclass(frozen=True)
class _Options:
    """What all stages are given."""

    settings: Settings
    device: str
    workers: int
    overwrite: bool
    on_progress: Callable[[Progress], None]

    @property
    def busy(self) -> int:
        """Workers where this process only writes what the others have simulated or prepared."""
        return self.workers + 1 if self.workers else 0

    def progress(self, number: int) -> Callable[[Progress], None]:
        """Progress of a stage, under its number."""
        return lambda one: self.on_progress(replace(one, stage=f"{number}/{_STAGES} {one.stage}"))


def _stages(jobs: Sequence[MemberJob], out: Path, options: _Options) -> list[Finished]:
    """Simulate, train, calibrate, detect, augment."""
    device, overwrite, progress = options.device, options.overwrite, options.progress
    cohort, model = _simulate(jobs, out / "cohort", options), out / "model"
    healthy, others, tested = (Selection((out / "cohort" / simulated.LIST,), split=name) for name in SIZES)
    trained = train.run(
        healthy,
        settings=options.settings,
        out=model,
        device=device,
        workers=options.busy,
        resume=not overwrite,
        overwrite=overwrite,
        on_progress=progress(2),
    )
    calibrated = calibrate.run(others, model=model, device=device, workers=options.busy, on_progress=progress(3))
    detected = detect.run(
        tested,
        model=model,
        out=out / "maps",
        device=device,
        workers=options.workers,
        overwrite=overwrite,
        on_progress=progress(4),
    )
    synthetic = augment.run(
        model,
        out=out / "synthetic",
        count=SYNTHETIC,
        device=device,
        overwrite=overwrite,
        on_progress=progress(5),
    )
    return [cohort, trained, calibrated, detected, synthetic]


def _simulate(jobs: Sequence[MemberJob], cohort: Path, options: _Options) -> Finished:
    """Write the scans, the masks of their lesions, and the list."""
    identity = {"seed": options.settings.seed, "sizes": SIZES}
    with OutputFolder(cohort, command="demo", identity=identity, overwrite=options.overwrite) as folder:
        summary = run_jobs(
            jobs,
            simulated.simulate,
            _as_files,
            folder=folder,
            engine=Processes(options.busy),
            stage="simulate",
            on_progress=options.progress(1),
        )
        with disk_errors(cohort):
            simulated.write_list(jobs, cohort)
        folder.finish(summary)
    return Finished(cohort, summary, (f"{cohort}: {len(jobs)} brains, simulated from the MNI152 template",))


def _as_files(job: MemberJob, member: Member) -> Result:
    return Result(simulated.files(job, member))


def _evaluation(cases: Sequence[Case], maps: Path, *, names: Sequence[str]) -> list[str]:
    """How well each map finds the lesions, compared with chance."""
    first, *_ = names
    done = read_scores(maps, first)
    cases = [case for case in cases if case.id in done]
    found = compare([read_voxels(maps, case, maps=names) for case in cases], first)
    ill, subjects = [case.truth is not None for case in cases], [case.subject for case in cases]
    rows = []
    for name in names:
        by_id = read_scores(maps, name)
        auroc = scan_auroc([by_id[case.id] for case in cases], ill, subjects=subjects)
        rows.append([name, str(found.ap[name]), str(found.gain.get(name, "")), str(auroc)])
    return [
        "",
        f"{len(cases)} held-out brains, {sum(ill)} with a lesion; 95% confidence intervals over brains:",
        "",
        *_table(["map", "voxel AP", f"AP of {first} minus this", "scan AUROC"], rows),
        f"chance: AP {found.prevalence:.3f} (the fraction of lesion voxels), AUROC 0.500",
        "baselines without a network: atlas, intensity",
    ]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned columns."""
    cells = [list(headers), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _where_to_look(out: Path, example: Case) -> list[str]:
    return [
        "",
        "Where to look:",
        f"  {out / 'maps' / 'scans' / example.id / 'montage.png'}: a brain with a lesion, and its map",
        f"  {out / 'maps'}: all maps, on the grid of each scan, and scores.csv",
        f"  {out / 'cohort'}: the scans, and the masks of the lesions in truth/",
        f"  {out / 'synthetic' / 'montage.png'}: synthetic scans and their nearest training scans",
        "",
    ]
