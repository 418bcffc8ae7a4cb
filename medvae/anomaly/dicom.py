"""A detection as DICOM objects of the study that its scan was read from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.dicom_objects.content import Content, Region
from medvae.dicom_objects.source import NO_DICOM, Unfit, open_source

if TYPE_CHECKING:
    from medvae.anomaly.detection import Detection
    from medvae.checkpoint.model import Model
    from medvae.dicom_objects.source import Source
    from medvae.scan import ScanRef
    from medvae.settings import DetectSettings, ReadSettings

_SAME_MM = 1e-3  # the grid of the maps is that of the series, read twice


def with_dicom(
    found: Detection, ref: ScanRef | None, *, model: Model, options: DetectSettings, read: ReadSettings
) -> Detection:
    """The same detection, with the objects that the settings ask for; a warning where the headers cannot carry them.

    Args:
        found: of the scan.
        ref: the scan's files; None for a scan that was given in memory.
        model: that the maps are of.
        options: `dicom` and `fusion`.
        read: how the scan was read.

    Raises:
        OSError: a file of the scan cannot be opened.
    """
    if not options.dicom and not options.fusion:
        return found
    try:
        source = _source(found, ref, read)
    except Unfit as reason:
        return replace(found, warnings=(*found.warnings, f"{NO_DICOM}: {reason}; the NIfTI files are complete"))
    from medvae.dicom_objects.objects import Objects, for_fusion, map_and_candidates  # half a second: highdicom

    content, made = _content(found, model), Objects()
    if options.dicom:
        made |= map_and_candidates(source, content)
    if options.fusion:
        made |= for_fusion(source, content, replace(found, warnings=(*found.warnings, *made.warnings)).pixels())
    return replace(found, dicom=made.files, warnings=(*found.warnings, *made.warnings))


def _source(found: Detection, ref: ScanRef | None, read: ReadSettings) -> Source:
    if ref is None:
        raise Unfit("the scan was given in memory, without its files")
    source = open_source(ref, read)
    if source.geometry.distance_to(found.first.geometry) > _SAME_MM:
        raise Unfit("the series has another grid than the maps")
    return source


def _content(found: Detection, model: Model) -> Content:
    regions = [
        Region(one.number, one.lps, one.side, one.volume_ml, one.peak, one.mean, one.p) for one in found.candidates.each
    ]
    first, labels = found.first, found.candidates.labels
    return Content(first.name, first.data, first.unit, first.limit, found.status, labels, tuple(regions), model.hash)
