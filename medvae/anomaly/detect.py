"""Anomaly maps of one scan: read, prepare, infer, map, bring back. `medvae detect` does this for every scan."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.anomaly_map import scan_maps, unknown_map
from medvae.anomaly.candidates import find_candidates
from medvae.anomaly.detection import Detection, NativeMap, Score
from medvae.anomaly.dicom import template_of, with_dicom
from medvae.anomaly.inference import infer
from medvae.anomaly.options import detect_settings, require_known
from medvae.anomaly.reference import reference_of
from medvae.anomaly.traits import scan_traits, unlike
from medvae.checkpoint.folder import load
from medvae.checkpoint.model import Model
from medvae.cohort.find import Cohort
from medvae.cohort.read import only, read
from medvae.io.reading import read_foreground
from medvae.prepare.load import Loaded, ReadAndPrepare, accepted
from medvae.prepare.native import brain_share, coverage, foreground_share, only_channel, outline, to_native
from medvae.prepare.preparation import prepare
from medvae.review.montage import PEAKS, Picture, find_peaks
from medvae.scan import ScanRef
from medvae.settings import DetectSettings, validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from medvae.anomaly.anomaly_map import AnomalyMap
    from medvae.anomaly.candidates import Candidates
    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.prepare.preparation import Prepared
    from medvae.scan import Scan
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)

LEAST_COVERED = 0.8  # a healthy stripped brain covers 0.85 or more of the template's


def detect(
    what: Any,
    model: Model | Path | str,
    *,
    maps: Sequence[str] | str | None = None,
    healthy_fpr: float | None = None,
    dicom: bool | Path | str | None = None,
    fusion: bool | None = None,
    id: str | None = None,  # noqa: A002
    affine: ArrayLike | None = None,
    mask: NDArray[np.bool_] | Path | str | None = None,
    conditions: Mapping[str, float | str] | None = None,
) -> Detection:
    """The anomaly maps of one scan, as `medvae detect` writes them.

    Draws, `detect.top` and the options of maps are those that the model's Reference was computed with.

    Args:
        what: all that `medvae.read` takes: a NIfTI file, a DICOM file, the folder of a series; a `ScanRef`, a `Scan`;
            an array with `affine`, an image of nibabel, a MONAI `MetaTensor`.
        model: from `medvae.load_model`, or its folder.
        maps: names of the maps, or one name; those of the model's settings if None. The first gives `score` and `p`.
        healthy_fpr: candidates per healthy scan, which sets their threshold; `detect.healthy_fpr` if None.
        dicom: `save` writes DICOM objects; `detect.dicom` if None. True for a scan that is given by its DICOM files;
            for another one the folder of the series that they belong to, which must have the voxels of the scan.
        fusion: `save` writes a DICOM series to be fused with the scan; `detect.fusion` if None.
        id: of the scan. By default the id that the command gives to the file in its folder; "scan" without a file.
        affine: of an array: 4×4, voxel index -> RAS+ mm.
        mask: foreground on the scan's own grid, bool `(X, Y, Z)`, or its file; that of a `ScanRef`, or found, if None.
        conditions: age, sex, ... for a model with conditions; those of a `ScanRef` if None.

    Returns:
        Maps on the scan's own grid, scores and warnings; its `save` writes the files of the command.

    Raises:
        InputError: no scan at the path, or more than one.
        ScanError: the scan cannot be used; the code says why.
        ModelError: the checkpoint cannot be read, or has no Reference.
        SettingsError: an unknown map, or one that was not calibrated; a condition that the model does not have.

    Example:
        >>> found = medvae.detect("new-scans/case.nii.gz", "model")
        >>> found.maps["residual_z"].data.shape == medvae.read("new-scans/case.nii.gz").data.shape
        True
        >>> folder = found.save("out/case")
    """
    model = model if isinstance(model, Model) else load(model)
    options, reference = detect_settings(model), reference_of(model)
    maps = (maps,) if isinstance(maps, str) else maps
    folder = dicom if isinstance(dicom, str | Path) else None
    asked = {"maps": maps, "healthy_fpr": healthy_fpr, "dicom": dicom if folder is None else True, "fusion": fusion}
    changes = {name: value for name, value in asked.items() if value is not None}
    options = validate(DetectSettings, {**options.model_dump(), **changes}, where="detect")
    require_known(reference, options, aligned=model.preparation.aligned)
    model.conditions.require(conditions or {})
    if not reference.calibrated:
        log.warning("the model is not calibrated: z and p rest on its training scans")
    for warning in reference.warnings:
        log.warning(warning)
    loaded, ref = _load(what, model, id=id, affine=affine, mask=mask, conditions=conditions)
    found = detect_prepared(loaded.prepared, loaded.scan, model, options=options)
    how = model.settings.read
    refs = [] if ref is None else [ref]
    template = None if folder is None else template_of(folder, refs, options=options, read=how)
    return with_dicom(found, ref, model=model, options=options, read=how, template=template)


def detect_prepared(
    prepared: Prepared, scan: Scan, model: Model, *, options: DetectSettings | None = None
) -> Detection:
    """All maps of one prepared scan on the scan's own grid, and its scores.

    Args:
        prepared: the scan on the model's grid; its id is that of the result.
        scan: as read, for the picture.
        model: with a Reference.
        options: maps and how they are scored, which `require_known` has accepted; those of the model if None.

    Raises:
        ModelError: the model has no Reference.
        SettingsError: an unknown map, or one that was not calibrated.
    """
    options, reference = options or detect_settings(model), reference_of(model)
    aligned = model.preparation.aligned
    for name in options.maps:
        if name not in reference.maps:
            raise unknown_map(name, aligned=aligned)
    inference = infer(model, prepared, draws=options.draws)
    on_grid = scan_maps(options.maps, inference, reference, options=options.options)
    covered = coverage(prepared)
    share = brain_share(prepared) if aligned else foreground_share(prepared, covered)
    wanted = {name: on_grid[name] for name in options.maps}
    maps, scores = {}, {}
    for name in options.maps:
        maps[name] = _native(wanted[name], prepared, covered, limit=reference.maps[name].limit)
        score = wanted[name].score(inference.foreground, top=options.top)
        scores[name] = Score(score, reference.p_value(name, score))
    first = next(iter(maps.values()))
    candidates = find_candidates(wanted, prepared, reference, options=options, aligned=aligned)
    return Detection(
        id=prepared.id,
        maps=maps,
        scores=scores,
        coverage=covered,
        covered_share=share,
        status=reference.status,
        n=reference.n,
        warnings=(
            *model.warnings,
            *reference.warnings,
            *prepared.warnings,
            *_cut(share, aligned=aligned),
            *_seen_before(prepared, model, reference),
            *_shift(inference, reference),
        ),
        candidates=candidates,
        picture=_picture(
            scan,
            first,
            find_peaks(
                wanted[first.name].values, prepared, first=[prepared.input.to_index(one.ras) for one in candidates.each]
            )[: candidates.places(PEAKS)],
            covered,
            candidates=candidates,
            template_brain=outline(prepared) if aligned else None,
        ),
        with_montage=options.montage,
        with_review=options.review,
        modality=scan.modality,
        units=prepared.units,
        source_hash=prepared.source_hash,
        to_mni=_to_mni(prepared) if aligned else None,
        pseudo_healthy=_pseudo_healthy(on_grid.pseudo_healthy(options.maps), prepared, scan, covered),
    )


def _pseudo_healthy(
    image: NDArray[np.float32] | None, prepared: Prepared, scan: Scan, covered: NDArray[np.uint8]
) -> NDArray[np.float32] | None:
    """The scan less what was taken out of it on the model's grid, so that it keeps its own fine detail."""
    if image is None:
        return None
    removed = only_channel(prepared.in_units(prepared.image) - prepared.in_units(image))
    return scan.data - np.where(covered > 0, to_native(removed, prepared), np.float32(0))


def _to_mni(prepared: Prepared) -> NDArray[np.float64]:
    """The scanner's RAS+ mm -> mm of the template that the scan was aligned to."""
    matrix: NDArray[np.float64] = prepared.grid.affine @ np.linalg.inv(prepared.input.affine @ prepared.to_input)
    return matrix


def _native(found: AnomalyMap, prepared: Prepared, covered: NDArray[np.uint8], *, limit: float) -> NativeMap:
    """A map on the scan's own grid, 0 where nothing was evaluated."""
    data = np.where(covered > 0, to_native(found.values, prepared), np.float32(0))
    return NativeMap(found.name, data, prepared.input, found.unit, limit)


def _cut(share: float | None, *, aligned: bool) -> tuple[str, ...]:
    """A warning where much of the scan was not evaluated."""
    if share is None or share >= LEAST_COVERED:
        return ()
    whole = "template's brain" if aligned else "scan's foreground"
    return (f"low_coverage: only {share:.0%} of the {whole} was evaluated",)


def _seen_before(prepared: Prepared, model: Model, reference: Reference) -> tuple[str, ...]:
    if prepared.source_hash in model.latents.hashes:
        return ("seen_in_training",)
    return ("seen_in_calibration",) if prepared.source_hash in reference.all_hashes else ()


def _shift(inference: Inference, reference: Reference) -> tuple[str, ...]:
    """Training scans fit their network too well to say what another scan should be like."""
    return unlike(scan_traits(inference), reference.traits) if reference.calibrated else ()


def _picture(
    scan: Scan,
    found: NativeMap,
    peaks: NDArray[np.intp],
    covered: NDArray[np.uint8],
    *,
    candidates: Candidates,
    template_brain: NDArray[np.bool_] | None,
) -> Picture:
    """The values are those of the file: a coarse grid of the scan has blunter peaks than the model's.

    The candidates are the first of the peaks.
    """
    values = found.data[tuple(peaks.T)]
    numbers = candidates.labels[tuple(peaks.T)]
    known = [one.number for one in candidates.each][: len(peaks)]
    numbers[: len(known)] = known  # a slice may be too thick for their labels
    order = np.argsort(-values, kind="stable")
    return Picture(
        scan=scan.data,
        heat=found.data,
        covered=covered > 0,
        geometry=found.geometry,
        peaks=peaks[order],
        values=tuple(float(value) for value in values[order]),
        numbers=tuple(int(number) for number in numbers[order]),
        limit=found.limit,
        unit=found.unit,
        outline=template_brain,
    )


def _load(
    what: Any,
    model: Model,
    *,
    id: str | None,  # noqa: A002
    affine: ArrayLike | None,
    mask: NDArray[np.bool_] | Path | str | None,
    conditions: Mapping[str, float | str] | None,
) -> tuple[Loaded, ScanRef | None]:
    """The scan as read, and on the model's grid: files as the command loads them; and these files, if it has any."""
    settings = model.settings.read
    if isinstance(what, str | Path | Cohort):
        what = only(what, settings)
    id = id or _id_of(what, settings)  # noqa: A001
    if isinstance(what, ScanRef):
        conditions = what.conditions if conditions is None else conditions
        what = replace(what.with_id(id), conditions=conditions)
        if mask is None and affine is None:
            return ReadAndPrepare(settings, model.preparation)(what), what
    scan = read(what, settings, affine=affine)
    if isinstance(mask, str | Path):
        mask = read_foreground(Path(mask), scan.geometry, settings)
    prepared = prepare(scan, model.preparation, id=id, mask=mask, conditions=conditions)
    return accepted(Loaded(scan, prepared), settings), what if isinstance(what, ScanRef) else None


def _id_of(what: Any, settings: ReadSettings) -> str:
    """The id that the command gives to the file of an image; "scan" for one without a file."""
    if isinstance(what, ScanRef):
        return what.id
    meta = getattr(what, "meta", None) or {}  # of MONAI
    path = what.get_filename() if hasattr(what, "get_filename") else meta.get("filename_or_obj")  # of nibabel
    return only(path, settings).id if isinstance(path, str | Path) and Path(path).is_file() else "scan"
