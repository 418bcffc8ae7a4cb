"""A detection as DICOM objects of the study that its scan was read from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.cohort.read import only
from medvae.dicom_objects.content import Content, Region
from medvae.dicom_objects.source import NO_DICOM, Unfit, open_source
from medvae.errors import InputError, ScanError, SettingsError
from medvae.io.same_voxels import turned_onto

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.anomaly.detection import Detection
    from medvae.checkpoint.model import Model
    from medvae.dicom_objects.source import Source
    from medvae.scan import ScanRef
    from medvae.settings import DetectSettings, ReadSettings


def with_dicom(
    found: Detection,
    ref: ScanRef | None,
    *,
    model: Model,
    options: DetectSettings,
    read: ReadSettings,
    template: ScanRef | None = None,
) -> Detection:
    """The same detection, with the objects that the settings ask for; a warning where the headers cannot carry them.

    Args:
        found: of the scan.
        ref: the scan's files; None for a scan that was given in memory.
        model: that the maps are of.
        options: `dicom` and `fusion`.
        read: how the scan was read.
        template: the series that the objects belong to, for a scan that was not read from DICOM.

    Raises:
        ScanError: `template_mismatch`, the template has other voxels than the scan.
        OSError: a file of the scan cannot be opened.
    """
    if not options.dicom and not options.fusion:
        return found
    try:
        source = _source(template or ref, read)
    except Unfit as reason:
        return replace(found, warnings=(*found.warnings, f"{NO_DICOM}: {reason}; the NIfTI files are complete"))
    from medvae.dicom_objects.objects import Objects, for_fusion, map_and_candidates  # half a second: highdicom

    content, made = _content(found, model, source), Objects()
    if options.dicom:
        made |= map_and_candidates(source, content)
    if options.fusion:
        made |= for_fusion(source, content, replace(found, warnings=(*found.warnings, *made.warnings)).pixels())
    return replace(found, dicom=made.files, warnings=(*found.warnings, *made.warnings))


def template_of(path: Path | str, refs: Sequence[ScanRef], *, options: DetectSettings, read: ReadSettings) -> ScanRef:
    """The series in a folder that the objects of a scan belong to.

    Only one scan at a time has a template: others on the same grid may be of another patient.

    Raises:
        InputError: there is no series, or more than one; several scans, or one that was read from DICOM.
        SettingsError: no objects are asked for.
    """
    if not options.dicom and not options.fusion:
        raise SettingsError("a template has no effect without DICOM objects", hint="set detect.dicom=true")
    hint = "leave the template out, or name one NIfTI file"
    if len(refs) > 1:
        raise InputError(f"a template series belongs to one scan; found {len(refs)}", hint=hint)
    if any(ref.format == "dicom" for ref in refs):
        raise InputError("the scan was read from DICOM: its objects belong to its own series", hint=hint)
    template = only(path, read)
    if template.format != "dicom":
        raise InputError("the template is not a DICOM series", path=path, hint="name the folder of a DICOM series")
    return template


def _source(ref: ScanRef | None, read: ReadSettings) -> Source:
    if ref is None:
        raise Unfit("the scan was given in memory, without its files")
    return open_source(ref, read)


def _content(found: Detection, model: Model, source: Source) -> Content:
    """Map and candidates on the grid of the series, which programs may have stored with other axes."""
    first, here = found.first, found.first.geometry
    data = turned_onto(first.data, here, source.geometry)
    labels = turned_onto(found.candidates.labels, here, source.geometry)
    if data is None or labels is None:
        message = f"the voxels of the template, {source.geometry.shape}, are not those of the scan, {here.shape}"
        raise ScanError(message, code="template_mismatch")
    regions = [
        Region(one.number, one.lps, one.side, one.volume_ml, one.peak, one.mean, one.p) for one in found.candidates.each
    ]
    return Content(first.name, data, first.unit, first.limit, found.status, labels, tuple(regions), model.hash)
