"""Measure what healthy looks like to a model, on scans that its training has not seen: its Reference."""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.configured import usable
from medvae.anomaly.crossfit import KeptScans, cross_fitted
from medvae.anomaly.options import check_options
from medvae.anomaly.reference import ENOUGH, NAME, reference_of
from medvae.anomaly.site import statistics_for_site, with_thresholds_of
from medvae.checkpoint.arrays import save_set
from medvae.checkpoint.folder import load
from medvae.checkpoint.folds import load_folds
from medvae.checkpoint.model import Model
from medvae.cohort.find import find
from medvae.cohort.names import both_forms
from medvae.cohort.values import tell_of_conditions
from medvae.errors import InputError, ModelError, OutputError, ScanError, SettingsError
from medvae.prepare.load import Loaded, ReadAndPrepare
from medvae.review.healthy import UNREAD, Readings, in_words
from medvae.run.checks import check_disk, check_memory
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Finished
from medvae.run.processes import Processes
from medvae.run.record import disk_errors, hash_of, read_record
from medvae.run.work import Progress, Result, ignore
from medvae.settings import adjust
from medvae.training.store import Scans, StoredScan, tell_of_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.folds import FoldModel
    from medvae.scan import ScanRef
    from medvae.settings import DetectSettings

log = logging.getLogger(__name__)

_NEEDED = "give healthy scans that training has not seen"
_OTHER_HINT = "give a list with a column `subject` and other names if these are other people; else ignore it"


def run(
    scans: Any,
    *,
    model: Path,
    verdicts: Path | None = None,
    thresholds_only: bool = False,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    device: str = "auto",
    workers: int = 0,
    on_progress: Callable[[Progress], None] = ignore,
) -> Finished:
    """Make the Reference of a model from healthy scans and write it into the model's folder.

    Scans that training has seen, and scans of its subjects, are left out: their residuals are too small. A model that
    was trained with `train.folds` uses the training scans that it has kept as well, each mapped by the fold that has
    not seen it.

    Args:
        scans: all that `medvae.find` takes.
        model: folder of the model.
        verdicts: JSON that the pages of `detect` exported; scans that it does not call healthy are left out.
        thresholds_only: keep the mean and spread of each voxel that the model has, and take thresholds, scores and p
            from these scans alone: a few healthy ones of another site (`medvae.anomaly.site`).
        config: name of a preset, or path of a YAML file, with changes.
        overrides: `section.key=value` texts, or values by `section.key`.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that read ahead.
        on_progress: called after each scan of each pass.

    Returns:
        How each scan ended; with exit code 2 nothing was usable, and the model is as it was.

    Raises:
        ModelError: the checkpoint cannot be read; thresholds alone for a model that is not calibrated.
        InputError: no scan among the inputs; no file of verdicts on them.
        OutputError: the disk is full, or the folder cannot be written.
        SettingsError: an unknown setting, one that belongs to the model, or one of `detect` beside `thresholds_only`.
    """
    readings = Readings.of(verdicts)
    trained = load(model, device=device)
    settings = adjust(trained.settings, config, overrides, uses=("read", "detect"))
    names = usable(trained, settings.detect.maps)
    check_options(trained, settings.detect, names=names)
    behind = statistics_for_site(trained).behind if thresholds_only else ()
    people = both_forms(*trained.latents.subjects)
    if thresholds_only and settings.detect != trained.settings.detect:
        message = "thresholds alone are for the maps that the model was calibrated with: detect.* cannot be changed"
        raise SettingsError(message, hint="leave detect.* out, or calibrate on all healthy scans")
    folds = load_folds(trained)
    refs = find(scans, settings.read).refs
    tell_of_conditions(refs, trained.conditions.names)
    record = model / "calibration"  # of the scans that the Reference is of; what an unfinished run has done is apart
    out = record / "unfinished"
    size = check_memory(refs, settings.read, workers=workers)
    check_disk(out, 2 * size * len(refs), hint="calibrate on fewer scans")
    identity: dict[str, Any] = {"model": trained.hash, "read": settings.read.model_dump(mode="json")}
    identity |= {"thresholds_only": thresholds_only, "behind": hash_of(sorted(behind))}  # which scans are refused
    anew = verdicts is not None or not _is_of(out, identity)  # what an unfinished run prepared was not judged
    with (
        OutputFolder(
            out,
            command="calibrate",
            identity=identity,
            overwrite=anew,
            exclusive=True,
            part_of_model=True,
            scratch=True,
        ) as folder,
        disk_errors(model),
    ):
        summary = run_jobs(
            refs,
            ReadAndPrepare(settings.read, trained.preparation),
            partial(_keep, trained=trained, people=people, readings=readings, behind=behind),
            folder=folder,
            engine=Processes(workers),
            stage="prepare",
            on_progress=on_progress,
        )
        if verdicts:
            readings.require(summary.outcomes, path=verdicts)
        healthy = Scans([out / outcome.outputs[0] for outcome in summary.outcomes if outcome.status == "ok"])
        tell_of_copies(healthy.files)
        if not len(healthy):
            return Finished(model, summary, (f"none of the scans can be used; {_NEEDED}",))
        if thresholds_only:
            reference = with_thresholds_of(trained, healthy, on_progress=on_progress)
        else:
            reference = _reference(
                trained, folds, healthy=healthy, names=names, detect=settings.detect, on_progress=on_progress
            )
        save_set(model, NAME, reference.to_set())
        folder.keep_only(summary.outcomes)
        warnings = [*trained.warnings, *reference.warnings]
        folder.finish(summary, reference=reference.in_words, warnings=warnings)
        folder.remove_outputs()  # the prepared scans
    with disk_errors(record):
        for name in ("run.json", "manifest.jsonl"):
            (out / name).replace(record / name)
    shutil.rmtree(out, ignore_errors=True)  # and what a killed run had not listed yet
    _warn(reference, before=trained)
    said = (in_words(summary.outcomes, n=reference.n),) if verdicts else ()
    return Finished(model, summary, (f"{model}: {reference.in_words}; {reference.least_in_words}", *said))


def calibrate(
    model: Model | Path | str,
    scans: Any,
    *,
    out: Path | str | None = None,
    verdicts: Path | str | None = None,
    thresholds_only: bool = False,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    device: str | None = None,
    workers: int = 0,
    on_progress: Callable[[Progress], None] = ignore,
) -> Model:
    """Measure what healthy looks like to a model, as `medvae calibrate` does: z and p then rest on these scans.

    Args:
        model: from `medvae.load_model`, or its folder. The Reference is written into the folder.
        scans: healthy scans that training has not seen: all that `medvae.find` takes. With fewer than 19 no p can be
            as low as 0.05.
        out: calibrate a copy of the model in this new folder, and leave the model itself as it is. The copy is removed
            if the calibration fails or is interrupted.
        verdicts: JSON that the pages of `detect` exported. A scan with a candidate that was called a lesion, is unsure
            or has no verdict is left out.
        thresholds_only: keep the mean and spread of each voxel that the model has, and take thresholds, scores and p
            from these scans alone: a few healthy ones of another site.
        config: name of a preset, or path of a YAML file, with changes of `read` and `detect`.
        overrides: single changes, as those of `medvae.load_settings`, e.g. {"detect.maps": ["restoration"]}.
        device: "auto", "cpu", "cuda" or "cuda:N"; None takes that of a `Model`, and "auto" for a folder.
        workers: processes that read ahead; 0 reads in this one. They import the script that is run: what it does must
            stand below `if __name__ == "__main__":`.
        on_progress: called after each scan of each pass.

    Returns:
        The model with its Reference.

    Raises:
        InputError: nothing usable among the scans; no file of verdicts on them.
        ModelError: the checkpoint cannot be read, or the model was never saved; thresholds alone for a model that is
            not calibrated.
        OutputError: `out` exists already, or the disk is full.
        SettingsError: an unknown setting, one that belongs to the model, or one of `detect` beside `thresholds_only`.
        RunError: the device does not exist; the workers cannot start.

    Example:
        >>> model = medvae.calibrate("model", "healthy", out="calibrated")
        >>> model.path.name
        'calibrated'
    """
    folder = model.path if isinstance(model, Model) else Path(model)
    if folder is None:
        raise ModelError("the model has not been saved to a folder", hint="save it, and pass the folder")
    said = None if verdicts is None else Path(verdicts)
    where = device or (str(model.device) if isinstance(model, Model) else "auto")
    with nullcontext(folder) if out is None else _copied(folder, Path(out)) as place:
        finished = run(
            scans,
            model=place,
            verdicts=said,
            thresholds_only=thresholds_only,
            config=config,
            overrides=overrides,
            device=where,
            workers=workers,
            on_progress=on_progress,
        )
        if finished.exit_code == 2:
            first = finished.summary.outcomes[0]
            hint = _NEEDED if first.hint.startswith("ignore") else first.hint  # without it no scan is left
            raise InputError(f"none of the scans can be used; {first.id}: {first.message}", hint=hint)
        return load(place, device=where)


@contextmanager
def _copied(model: Path, out: Path) -> Iterator[Path]:
    """A copy of a model folder, without what an earlier calibration has left in it; it goes where the block fails."""
    load(model, device="cpu")  # a folder that is not a model is not copied
    if out.exists():
        raise OutputError("the folder exists already", path=out, hint="choose a new folder")
    with disk_errors(out):
        out.mkdir(parents=True)
    try:
        with disk_errors(out):
            shutil.copytree(model, out, ignore=shutil.ignore_patterns("calibration", ".*"), dirs_exist_ok=True)
        yield out
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _is_of(unfinished: Path, identity: dict[str, Any]) -> bool:
    """Whether an unfinished calibration read its scans as this one does, for the same model, and refused the same."""
    try:
        return bool(read_record(unfinished)["identity"] == identity)
    except InputError:  # there is none, or what is left of it cannot be read
        return False


def _keep(
    ref: ScanRef,
    loaded: Loaded,
    *,
    trained: Model,
    people: frozenset[str],
    readings: Readings = UNREAD,
    behind: Collection[str] = (),
) -> Result:
    """The prepared scan, if training has not seen it, no verdict keeps it out and the model takes its conditions.

    `people` are the subjects of training in both forms; `behind` are hashes of the scans that the mean and spread are
    of, where these stay.
    """
    prepared = loaded.prepared
    named = ref.subject_given or ref.subject != ref.id  # the name of a file alone may be the same by chance
    if prepared.source_hash in trained.latents.hashes:
        raise ScanError("training has seen this scan", code="seen_in_training")
    if named and both_forms(ref.subject) & people:
        raise ScanError("training has seen a subject of this name", code="seen_in_training", hint=_OTHER_HINT)
    if prepared.source_hash in behind:
        raise ScanError("this scan is among those that the model's mean and spread come from", code="seen_in_training")
    judged = readings.check(prepared.source_hash)
    trained.condition(prepared.conditions)
    file = StoredScan(f"cache/{ref.id}.safetensors", prepared)
    return Result((file,), facts=judged, warnings=prepared.warnings)


def _reference(
    model: Model,
    folds: Sequence[FoldModel],
    *,
    healthy: Scans,
    names: Sequence[str],
    detect: DetectSettings,
    on_progress: Callable[[Progress], None],
) -> Reference:
    """From healthy scans; of a model with folds, from the training scans that it has kept as well."""
    own, counts = KeptScans.without_lesions(model), (len(model.training.ids), len(model.latents.ids))
    if folds and counts[0] < counts[1]:
        log.warning(
            "cross-fitting uses the %d of %d training scans that the model has kept (train.keep_scans)", *counts
        )
    if not folds or not len(own):
        return make_reference(model, healthy, calibrated=True, names=names, detect=detect, on_progress=on_progress)
    return cross_fitted(model, folds, own, new=healthy, names=names, detect=detect, on_progress=on_progress)


def _warn(reference: Reference, *, before: Model) -> None:
    for warning in (*before.warnings, *reference.warnings):
        log.warning(warning)
    earlier = reference_of(before)
    if earlier.calibrated and reference.n < earlier.n and not reference.statistics_of:
        log.warning("replaced the Reference of %d healthy scans; to use them too, calibrate on all at once", earlier.n)
    if reference.n < ENOUGH:
        log.warning("with fewer than %d healthy scans no p can be as low as 0.05", ENOUGH)
