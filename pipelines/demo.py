"""The whole story on made brains: make a cohort, train, calibrate, detect, augment, and judge what was held out.

The only recipe that calls others: it runs what a user runs, from files to files, in OUT/cohort, model, maps, synthetic.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from medvae import console
from medvae.evaluation.metrics import compare, scan_auroc
from medvae.evaluation.truth import read_scores, read_voxels
from medvae.pipelines import augment, calibrate, detect, train
from medvae.run.engine import RESEARCH_USE, Done, OutputFolder, disk_errors, run_scans
from medvae.scan import Selection
from medvae.simulate import cohort as simulated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.evaluation.truth import Case
    from medvae.run.outcomes import Finished
    from medvae.scan import ScanRef
    from medvae.settings import Settings
    from medvae.simulate.phantom import Member

SIZES = {"train": 24, "calibrate": 12, "test": 16}
SYNTHETIC = 12


def run(out: Path, *, settings: Settings, device: str, workers: int, overwrite: bool) -> int:
    """Run the demo in the folder `out`; returns the exit code. An interrupted demo goes on where it stopped.

    Raises:
        OutputError: the folder holds a demo with other settings, or the disk is full.
    """
    begun = time.monotonic()
    busy = workers + 1 if workers else 0  # where this process only writes what others have made or prepared
    model, maps, synthetic = out / "model", out / "maps", out / "synthetic"
    refs = simulated.members(SIZES)

    console.out(f"1/5 make {len(refs)} brains from the MNI152 template")
    made = _make(refs, out / "cohort", seed=settings.seed, workers=busy, overwrite=overwrite)
    healthy, others, tested = (Selection((made,), split=name) for name in SIZES)

    console.out(f"\n2/5 train on {SIZES['train']} of them, all healthy")
    codes: list[int] = [
        train.run(
            healthy,
            settings=settings,
            out=model,
            device=device,
            workers=busy,
            resume=not overwrite,
            overwrite=overwrite,
        )
    ]
    console.out(f"\n3/5 calibrate on {SIZES['calibrate']} others, healthy, too")
    codes += [_finish(calibrate.run(others, model=model, device=device, workers=busy))]

    console.out(f"\n4/5 detect in {SIZES['test']} that nothing has seen yet, half of them with a lesion")
    found = detect.run(tested, model=model, out=maps, device=device, workers=workers, overwrite=overwrite)
    codes += [_finish(found)]

    console.out(f"\n5/5 augment: {SYNTHETIC} synthetic scans")
    codes += [augment.run(model, out=synthetic, count=SYNTHETIC, device=device, overwrite=overwrite).exit_code]

    cases = [simulated.case(ref, out / "cohort") for ref in refs if ref.split == "test"]
    _report(cases, maps, names=settings.detect.maps)
    _where_to_look(out, next(case for case in cases if case.truth is not None))
    console.out(f"Made data are easier than patients and no evidence for them. {RESEARCH_USE}")
    console.out(f"It took {time.monotonic() - begun:.0f} s.")
    return max(codes)


def _finish(finished: Finished) -> int:
    finished.summary.report()
    for line in finished.lines:
        console.out(line)
    return finished.exit_code


def _make(refs: Sequence[ScanRef], cohort: Path, *, seed: int, workers: int, overwrite: bool) -> Path:
    """The scans, the masks of their lesions, and the list, whose path is returned."""
    folder = OutputFolder(cohort, command="demo", identity={"seed": seed, "sizes": SIZES}, overwrite=overwrite)
    handle = partial(_keep, cohort=cohort)
    summary = run_scans(refs, simulated.Maker(seed), handle, folder=folder, workers=workers, title="make")
    with disk_errors(cohort):
        made = simulated.write_list(refs, cohort)
    folder.finish(summary)
    return made


def _keep(ref: ScanRef, member: Member, *, cohort: Path) -> Done:
    return Done(partial(simulated.write, ref, member, cohort))


def _report(cases: Sequence[Case], maps: Path, *, names: Sequence[str]) -> None:
    """How well each map finds the lesions, beside what chance would."""
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
    console.out(f"\n{len(cases)} held-out brains, {sum(ill)} with a lesion; 95% intervals over brains:\n")
    console.table(["map", "voxel AP", f"AP of {first} less this", "scan AUROC"], rows)
    console.out(f"chance: AP {found.prevalence:.3f}, the share of lesion voxels; AUROC 0.500")
    console.out("baselines without a network: atlas, intensity")


def _where_to_look(out: Path, example: Case) -> None:
    console.out("\nWhere to look:")
    console.out(f"  {out / 'maps' / 'scans' / example.id / 'montage.png'}: a brain with a lesion, and its map")
    console.out(f"  {out / 'maps'}: all maps, on each scan's own grid, and scores.csv")
    console.out(f"  {out / 'cohort'}: the scans, and in truth/ the lesions as they were implanted")
    console.out(f"  {out / 'synthetic' / 'montage.png'}: synthetic scans beside their nearest training scans\n")
