"""Anomaly maps of one scan: read, prepare, infer, map, bring back. `medvae detect` does this for every scan."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.anomaly_map import scan_maps
from medvae.anomaly.detection import Detection, NativeMap, Score
from medvae.anomaly.inference import infer
from medvae.anomaly.options import detect_settings, require_known
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.checkpoint.model import Model
from medvae.cohort.find import find
from medvae.errors import InputError, ScanError
from medvae.io import reading
from medvae.prepare.load import Loaded, ReadAndPrepare
from medvae.prepare.native import coverage, to_native
from medvae.prepare.preparation import prepare
from medvae.review.montage import Picture, find_peaks
from medvae.scan import Scan, ScanRef, Selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.reference import Reference
    from medvae.prepare.preparation import Prepared
    from medvae.settings import DetectSettings, ReadSettings

log = logging.getLogger(__name__)


def detect(
    what: Path | str | ScanRef | Scan,
    model: Model | Path | str,
    *,
    maps: Sequence[str] | None = None,
    id: str | None = None,  # noqa: A002
    mask: NDArray[np.bool_] | None = None,
    conditions: Mapping[str, float | str] | None = None,
) -> Detection:
    """The anomaly maps of one scan, as `medvae detect` writes them.

    Draws, `top` and the options of maps are those that the model's Reference was computed with.

    Args:
        what: a NIfTI file, a DICOM file or the folder of a series; a `ScanRef` of `medvae.find`; or a `Scan`.
        model: from `medvae.load_model`, or its folder.
        maps: names of the maps; those of the model's preset if None. The first one gives `score` and `p`.
        id: of the scan; that which the command gives to this file if None, else "scan".
        mask: foreground on the scan's own grid, bool `(X, Y, Z)`; that of a `ScanRef`, or found, if None.
        conditions: age, sex, ... for a model with conditions; those of a `ScanRef` if None.

    Returns:
        Maps on the scan's own grid, scores and warnings; `save` writes the files of the command.

    Raises:
        InputError: no scan at the path, or more than one.
        ScanError: the scan cannot be used; the code says why.
        ModelError: the checkpoint cannot be read, or has no Reference.
        SettingsError: an unknown map, or one that the Reference does not know.

    Example:
        >>> found = medvae.detect("new-scans/case.nii.gz", "model")
        >>> found.maps["residual_z"].data.shape
        >>> found.save("out/case")
    """
    model = model if isinstance(model, Model) else load(model)
    options, reference = detect_settings(model), reference_of(model)
    if maps is not None:
        options = options.model_copy(update={"maps": tuple(maps)})
    require_known(reference, options, aligned=model.preparation.aligned)
    if not reference.calibrated:
        log.warning("the model is not calibrated: z and p rest on its training scans")
    loaded = _load(what, model, mask=mask, conditions=conditions, id=id)
    return detect_prepared(loaded.prepared, loaded.scan, model, options=options)


def detect_prepared(
    prepared: Prepared, scan: Scan, model: Model, *, options: DetectSettings | None = None
) -> Detection:
    """All maps of one prepared scan on the scan's own grid, and its scores.

    Args:
        prepared: the scan on the model's grid; its id is that of the result.
        scan: as read, for the picture.
        model: with a Reference.
        options: maps and how they are scored; as the Reference was computed if None.

    Raises:
        ModelError: the model has no Reference.
        SettingsError: an unknown map, or options that the Reference was not computed with.
    """
    options, reference = options or detect_settings(model), reference_of(model)
    require_known(reference, options, aligned=model.preparation.aligned)
    inference = infer(model, prepared, draws=options.draws)
    on_grid = scan_maps(options.maps, inference, reference, options=options.options)
    covered = coverage(prepared)
    maps, scores = {}, {}
    for name in options.maps:
        found = on_grid[name]
        data = np.where(covered > 0, to_native(found.values, prepared), np.float32(0))
        maps[name] = NativeMap(name, data, prepared.input, found.unit, reference.maps[name].limit)
        score = found.score(inference.foreground, top=options.top)
        scores[name] = Score(score, reference.p_value(name, score))
    first = next(iter(maps.values()))
    return Detection(
        id=prepared.id,
        maps=maps,
        scores=scores,
        coverage=covered,
        status=reference.status,
        n=reference.n,
        warnings=(*prepared.warnings, *_seen_before(prepared, model, reference)),
        picture=_picture(scan, first, find_peaks(on_grid[first.name].values, prepared), covered),
        with_montage=options.montage,
    )


def _seen_before(prepared: Prepared, model: Model, reference: Reference) -> tuple[str, ...]:
    if prepared.source_hash in model.latents.hashes:
        return ("seen_in_training",)
    return ("seen_in_calibration",) if prepared.source_hash in reference.scan_hashes else ()


def _picture(scan: Scan, found: NativeMap, peaks: NDArray[np.intp], covered: NDArray[np.uint8]) -> Picture:
    """The values are those of the file: a coarse grid of the scan has blunter peaks than the model's."""
    values = found.data[tuple(peaks.T)]
    order = np.argsort(-values, kind="stable")
    shown = tuple(float(value) for value in values[order])
    return Picture(scan.data, found.data, covered > 0, found.geometry, peaks[order], shown, found.limit, found.unit)


def _load(
    what: Any,
    model: Model,
    *,
    id: str | None,  # noqa: A002
    mask: NDArray[np.bool_] | None,
    conditions: Mapping[str, float | str] | None,
) -> Loaded:
    """The scan as read, and on the model's grid."""
    settings = model.settings.read
    if isinstance(what, str | Path):
        what = _one(Path(what), settings)
    if isinstance(what, ScanRef):
        known = what.conditions if conditions is None else conditions
        what = replace(what, id=id or what.id, conditions=known)
        if mask is None:
            return ReadAndPrepare(settings, model.preparation)(what)
        id, conditions, what = what.id, what.conditions, reading.read(what, settings)  # noqa: A001
    prepared = prepare(what, model.preparation, id=id or "scan", mask=mask, conditions=conditions)
    return Loaded(what, prepared)


def _one(path: Path, settings: ReadSettings) -> ScanRef:
    """The one scan at a path that can be used."""
    refs = find(Selection((path,)), settings).refs
    usable = [ref for ref in refs if len(refs) == 1 or _is_usable(ref, settings)]
    if len(usable) != 1:
        message = f"{len(refs)} scans, {len(usable)} of them usable"
        raise InputError(message, path=path, hint="name one file or series; `medvae.find` lists them")
    return usable[0]


def _is_usable(ref: ScanRef, settings: ReadSettings) -> bool:
    try:
        reading.inspect(ref, settings)
    except ScanError:
        return False
    return True
