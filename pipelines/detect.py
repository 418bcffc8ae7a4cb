"""Anomaly maps of many scans: read, prepare, detect, write; one row of scores per scan."""

from __future__ import annotations

import csv
import io
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from medvae.anomaly.configured import configured
from medvae.anomaly.detect import detect_prepared
from medvae.anomaly.dicom import template_of, with_dicom
from medvae.anomaly.extremes import RATES
from medvae.anomaly.findings import findings_table
from medvae.anomaly.options import detect_settings, require_known
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.cohort.names import digest
from medvae.cohort.values import tell_of_conditions
from medvae.evaluation.folder import remove_evaluation
from medvae.io.files import write_text
from medvae.prepare.load import Loaded, ReadAndPrepare
from medvae.review.drawing import import_what_drawing_needs
from medvae.review.filling import remove_pages
from medvae.review.scan_page import ScanPage
from medvae.review.worklist import Worklist
from medvae.run.checks import check_disk, check_memory
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Finished, Outcome
from medvae.run.processes import Processes
from medvae.run.record import disk_errors
from medvae.run.work import Progress, Result, ignore
from medvae.settings import adjust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.scan import ScanRef
    from medvae.settings import DetectSettings, ReadSettings

log = logging.getLogger(__name__)

_SCORES, _FINDINGS = "scores.csv", "findings.csv"
_IN_16_BITS = 0.5  # size of a map in whole numbers
_COMPRESSED = 0.6  # share of its size that a map takes on the disk: mostly zeros and smooth


def run(
    scans: Any,
    *,
    model: Path,
    out: Path,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    template: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Write the maps, scores and montages of many scans into `out`.

    Args:
        scans: all that `medvae.find` takes.
        model: folder of the model.
        out: output folder; a second run in it does what is missing.
        config: name of a preset, or path of a YAML file, with changes.
        overrides: `section.key=value` texts.
        template: folder of the DICOM series that the objects of a single scan belong to, which was not read from DICOM.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that read ahead.
        overwrite: begin anew if the folder holds another run.
        on_progress: called after each scan.

    Returns:
        How each scan ended.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: no scan among the inputs; a template that is not a series, or for several scans.
        SettingsError: an unknown map or setting, or one that the model or its Reference was not computed with.
        OutputError: the folder holds another run, or the disk is full.
    """
    trained = load(model, device=device)
    reference = reference_of(trained)
    base = trained.settings.model_copy(update={"detect": detect_settings(trained)})
    settings = adjust(base, config, overrides, uses=("read", "detect"))
    options = settings.detect
    require_known(reference, options, aligned=trained.preparation.aligned)
    refs = find(scans, settings.read).refs
    series = None if template is None else template_of(template, refs, options=options, read=settings.read)
    tell_of_conditions(refs, trained.conditions.names)
    wanted = {part: getattr(settings, part).model_dump(mode="json") for part in ("read", "detect")}
    identity = {"model": trained.hash, "reference": reference.hash, "settings": wanted}
    if series is not None:
        identity["template"] = series.fingerprint()
    size = check_memory(refs, settings.read, workers=workers)
    fewer = f"write fewer maps: set detect.maps=[{options.maps[0]}]"
    hint = fewer if len(options.maps) > 1 else "choose a folder on another disk, or give fewer scans"
    check_disk(out, size * len(refs) * _share(options), hint=hint)
    if not reference.calibrated:
        log.warning("the model is not calibrated: z and p rest on its training scans; calibrate it on healthy scans")
    for warning in reference.warnings:
        log.warning(warning)
    import_what_drawing_needs()
    with OutputFolder(out, command="detect", identity=identity, overwrite=overwrite) as folder:
        if overwrite:
            with disk_errors(out):
                remove_pages(out)
                remove_evaluation(out)
        summary = run_jobs(
            refs,
            ReadAndPrepare(settings.read, trained.preparation),
            partial(_compute, trained=trained, options=options, read=settings.read, template=series),
            folder=folder,
            engine=Processes(workers),
            stage="detect",
            on_progress=on_progress,
        )
        with folder.rows() as rows, disk_errors(out):
            write_text(out / _SCORES, _table(rows, reference, options))
            write_text(out / _FINDINGS, findings_table(_searched(rows)))
        units = {name: method.UNIT for name, method in configured(options.maps, options.options).items()}
        folder.finish(
            summary,
            files=(_SCORES, _FINDINGS),
            reference=reference.in_words,
            warnings=[*trained.warnings, *reference.warnings],
            model=trained.card,
            units={name: units[name] for name in options.maps},
            thresholds=_thresholds(reference, options),
        )
        if options.review:
            with folder.rows() as rows, disk_errors(out):
                Worklist.of_run(out, rows).write(out)
    lines = [f"{out}: scores.csv, findings.csv, and one folder per scan in scans/ ({reference.in_words})"]
    lines += [f"{out}/review/index.html: the pages, to be opened in a browser"] if options.review else []
    return Finished(out, summary, tuple(lines) if summary.exit_code < 2 else ())


def _share(options: DetectSettings) -> float:
    """What the files of a scan take on the disk, in sizes of the scan in memory."""
    return _COMPRESSED * len(options.maps) + options.dicom + _IN_16_BITS * options.fusion


def _compute(
    ref: ScanRef,
    loaded: Loaded,
    *,
    trained: Model,
    options: DetectSettings,
    read: ReadSettings,
    template: ScanRef | None,
) -> Result:
    """All maps of one scan, on its own grid, and its scores."""
    found = detect_prepared(loaded.prepared, loaded.scan, trained, options=options)
    found = with_dicom(found, ref, model=trained, options=options, read=read, template=template)
    scores: dict[str, float | None] = {}
    for name, one in found.scores.items():
        scores |= {name: one.score, f"{name}_p": one.p}
    scores |= {"coverage": found.covered_share, "evaluated_ml": found.evaluated_ml}
    scores |= {"candidates": len(found.candidates.each)}
    candidates = json.dumps([one.to_json() for one in found.candidates.each])
    facts = {"candidates": candidates, "subject": digest(ref.subject)}  # a hash: `evaluate` only asks who is the same
    maps = {name: one.data for name, one in found.maps.items()}
    pages = (ScanPage(ref.id, maps=maps),) if options.review else ()
    files = (*found.files(f"scans/{ref.id}"), *pages)
    return Result(files, scores=scores, facts=facts, warnings=found.warnings)


def _searched(outcomes: Iterable[Outcome]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The scans that were mapped, and the candidates of each as the manifest keeps them."""
    mapped = (one for one in outcomes if one.status == "ok")
    return ((one.id, json.loads(one.facts.get("candidates") or "[]")) for one in mapped)


def _thresholds(reference: Reference, options: DetectSettings) -> dict[str, Any]:
    """By map, the mass of candidates, and the values of voxels by the share of a healthy scan that exceeds them.

    `left_out` has the rates of healthy scans that are left out in turn: above the nominal ones where scans are few.
    """
    found = {}
    for name in options.maps:
        extremes = reference.maps[name].extremes
        voxels = {f"{rate:g}": extremes.voxel_threshold(rate) for rate in RATES}
        left_out = {
            "candidates": extremes.left_out_regions(options.healthy_fpr),
            "voxels": {f"{rate:g}": extremes.left_out_share(rate) for rate in RATES},
        }
        candidates = extremes.mass_threshold(options.healthy_fpr)
        found[name] = {"candidates": candidates, "voxels": voxels, "left_out": left_out}
    return found


def _table(outcomes: Sequence[Outcome], reference: Reference, options: DetectSettings) -> str:
    """One row per scan, however it ended, and one for each that lay here before; n beside every p."""
    numbers = [column for name in options.maps for column in (name, f"{name}_p")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    numbers += ["coverage", "evaluated_ml", "candidates"]
    table.writerow(["id", "status", "code", *numbers, "calibrated", "n", "warnings"])
    facts = ["yes" if reference.calibrated else "no", reference.n]
    for outcome in outcomes:
        values = [outcome.scores.get(column) for column in numbers]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.writerow([outcome.id, outcome.status, outcome.code or "", *cells, *facts, "; ".join(outcome.warnings)])
    return text.getvalue()
