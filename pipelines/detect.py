"""Anomaly maps of a directory of scans: read, prepare, infer, map, bring back, write; one row of scores a scan."""

from __future__ import annotations

import csv
import io
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae import console, plugins
from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.calibrate import require_known
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.io.files import write_text
from medvae.io.formats import nifti
from medvae.prepare.native import coverage, to_native
from medvae.review.montage import Picture, find_peaks, scan_montage
from medvae.run.engine import (
    RESEARCH_USE,
    Done,
    OutputFolder,
    ReadAndPrepare,
    check_disk,
    check_memory,
    disk_errors,
    require,
    run_scans,
)
from medvae.settings import adjust

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.anomaly.anomaly_map import AnomalyMap
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.run.engine import Loaded, Outcome
    from medvae.scan import ScanRef, Selection
    from medvae.settings import DetectSettings, Settings

log = logging.getLogger(__name__)

_COMPRESSED = 0.6  # share of its size that a map takes on the disk: mostly zeros and smooth


def run(
    selection: Selection,
    *,
    model: Path,
    out: Path,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
) -> int:
    """Write the maps, scores and montages of all scans of a selection into `out`; returns the exit code.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: nothing usable among the inputs.
        SettingsError: an unknown map or setting, or one that the model or its Reference was not made with.
        OutputError: the folder holds another run, or the disk is full.
    """
    trained = load(model, device=device)
    settings = adjust(_as_calibrated(trained), config, overrides)
    options = settings.detect
    require_known(reference_of(trained), options)
    refs = find(selection, settings.read).refs
    require(refs)
    wanted = {part: getattr(settings, part).model_dump(mode="json") for part in ("read", "detect")}
    identity = {"model": trained.hash, "reference": reference_of(trained).hash, "settings": wanted}
    folder = OutputFolder(out, command="detect", identity=identity, overwrite=overwrite)
    size = check_memory(refs, settings.read, workers=workers)
    check_disk(out, _COMPRESSED * size * len(options.maps) * len(refs), hint="write fewer maps (--map)")
    if not reference_of(trained).calibrated:
        log.warning("the model is uncalibrated: z and p rest on training scans; run `medvae calibrate` first")

    load_one = ReadAndPrepare(settings.read, trained.preparation)
    handle = partial(_judge, trained=trained, options=options, out=out)
    summary = run_scans(refs, load_one, handle, folder=folder, workers=workers, title="detect")
    outcomes = sorted([*folder.others(refs), *summary.outcomes], key=lambda one: one.id)
    _write_scores(outcomes, trained, options, out=out)
    folder.finish(summary, reference=reference_of(trained).status, units=_units(options))
    summary.report()
    console.out(f"{out}: scores.csv, and a folder a scan in scans/ ({reference_of(trained).status})")
    return summary.exit_code


def _judge(ref: ScanRef, loaded: Loaded, *, trained: Model, options: DetectSettings, out: Path) -> Done:
    """All maps of one scan, on its own grid, and its scores."""
    prepared, reference = loaded.prepared, reference_of(trained)
    inference = infer(trained, prepared, draws=options.draws)
    found = [anomaly_map(name, inference, reference, options=options.options.get(name)) for name in options.maps]
    scores: dict[str, float | str | None] = {}
    for one in found:
        score = one.score(prepared.mask[0], top=options.top)
        scores |= {one.name: score, f"{one.name}_p": reference.p_value(one.name, score)}
    warnings = list(prepared.warnings)
    if prepared.source_hash in trained.latents.hashes:
        warnings.append("seen_in_training")
    elif prepared.source_hash in reference.scan_hashes:
        warnings.append("seen_in_calibration")

    def write() -> Sequence[str]:
        place = f"scans/{ref.id}"
        covered = coverage(prepared)
        nifti.write(out / place / "coverage.nii.gz", covered, prepared.input, description="1 where the maps speak")
        heats = [np.where(covered > 0, to_native(one.values, prepared), np.float32(0)) for one in found]
        for one, heat in zip(found, heats, strict=True):
            text = f"{one.name}, {one.unit}, {reference.status}; research use only"
            limits = (0.0, reference.limits[one.name])
            nifti.write(out / place / f"{one.name}.nii.gz", heat, prepared.input, description=text, limits=limits)
        names = [f"{place}/{one.name}.nii.gz" for one in found] + [f"{place}/coverage.nii.gz"]
        if options.montage:
            names.append(f"{place}/montage.png")
            title = _title(ref, found[0], scores, reference, warnings)
            picture = _picture(loaded, found[0], heats[0], covered > 0, limit=reference.limits[found[0].name])
            scan_montage(out / names[-1], picture, title=title, footer=f"{reference.status}. {RESEARCH_USE}")
        return names

    return Done(write, scores, tuple(warnings))


def _as_calibrated(trained: Model) -> Settings:
    """The model's settings, with the options of maps and scores that its Reference was made with."""
    reference = reference_of(trained)
    made_with = {"options": dict(reference.options), "top": reference.top, "draws": reference.draws}
    detect = trained.settings.detect.model_copy(update=made_with)
    return trained.settings.model_copy(update={"detect": detect})


def _picture(
    loaded: Loaded, found: AnomalyMap, heat: NDArray[np.float32], covered: NDArray[np.bool_], *, limit: float
) -> Picture:
    peaks = find_peaks(found, loaded.prepared)
    values = heat[tuple(peaks.T)]  # of the file: a coarse grid of the scan has blunter peaks than the model's
    order = np.argsort(-values, kind="stable")
    shown = tuple(float(value) for value in values[order])
    return Picture(loaded.scan.data, heat, covered, loaded.prepared.input, peaks[order], shown, limit, found.unit)


def _title(
    ref: ScanRef, found: AnomalyMap, scores: Mapping[str, Any], reference: Reference, warnings: Sequence[str]
) -> str:
    p = scores[f"{found.name}_p"]
    said = reference.status
    if p is not None:
        least = ", the least that n allows" if np.isclose(p, 1 / (reference.n + 1)) else ""
        said = f"p = {p:.3f}{least} ({reference.status})"
    lines = f"{ref.id}: {found.name}, score {scores[found.name]:.3g} {found.unit}, {said}"
    return "\n".join([lines, *([f"warning: {', '.join(warnings)}"] if warnings else [])])


def _write_scores(outcomes: Sequence[Outcome], trained: Model, options: DetectSettings, *, out: Path) -> None:
    """`scores.csv`: a row a scan, whatever became of it, and one for each that lay here before; n beside every p."""
    numbers = [column for name in options.maps for column in (name, f"{name}_p")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "status", "code", *numbers, "calibrated", "n", "warnings"])
    facts = ["yes" if reference_of(trained).calibrated else "no", reference_of(trained).n]
    for outcome in outcomes:
        values = [outcome.scores.get(column) for column in numbers]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.writerow([outcome.id, outcome.status, outcome.code or "", *cells, *facts, "; ".join(outcome.warnings)])
    with disk_errors(out):
        write_text(out / "scores.csv", text.getvalue())


def _units(options: DetectSettings) -> dict[str, str]:
    return {name: plugins.load("maps", name).UNIT for name in options.maps}
