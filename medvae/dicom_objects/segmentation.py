"""Segmentations of the candidates: one segment per candidate, which the report refers to; and one per strength.

The second shows in viewers that draw no Parametric Map: its colours and limits are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from medvae import __version__
from medvae.dicom_objects.content import CREATOR, MAKER, SCHEME, equipment, text, uid
from medvae.dicom_objects.planes import frames, keep_own_frames, planes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.content import Content, Region
    from medvae.dicom_objects.source import Source

CANDIDATE = CodedConcept("candidate", SCHEME, "Candidate region of an anomaly map")
# From this many healthy limits on, a candidate or voxel has the next colour: yellow, orange, red (L*, a*, b*).
_STEPS = (1.0, 2.0)
_COLOURS = (CIELabColor(92.0, -10.0, 75.0), CIELabColor(72.0, 30.0, 75.0), CIELabColor(50.0, 70.0, 50.0))


@dataclass(frozen=True, eq=False)
class Segments:
    """Regions to be stored as the segments of one object.

    Attributes:
        name: of the object, in its UIDs.
        title: in its description.
        labels: uint16 `(columns, rows, slices)`: 0 = none, k = segment k.
        texts: of the segments, in order.
        strengths: of the segments: their value in healthy limits.
        tracked: UIDs of the segments that other objects refer to; () for none.
    """

    name: str
    title: str
    labels: NDArray[np.uint16] = field(repr=False)
    texts: tuple[str, ...]
    strengths: tuple[float, ...]
    tracked: tuple[str, ...] = ()


def shown(content: Content) -> tuple[Region, ...]:
    """The candidates that have a voxel of their own; two smaller than a voxel may share one."""
    there = set(np.unique(content.labels).tolist())
    return tuple(region for region in content.regions if region.number in there)


def by_candidate(content: Content, *, key: str) -> Segments:
    """A segment per candidate, in the order of `shown`, coloured by its peak."""
    regions, unit = shown(content), content.unit
    new = np.zeros(int(content.labels.max()) + 1, np.uint16)
    new[[region.number for region in regions]] = np.arange(1, len(regions) + 1)
    return Segments(
        "candidates",
        "candidates",
        new[content.labels],
        tuple(f"{one.number}: peak {one.peak:.3g} {unit}, {one.volume_ml:.3g} mL, p {one.p:.2g}" for one in regions),
        tuple(one.peak / max(content.limit, 1e-6) for one in regions),
        tuple(tracking_uid(one, key=key) for one in regions),
    )


def by_strength(content: Content) -> Segments:
    """The voxels of all candidates by the map's value in them: up to one healthy limit, up to two, above."""
    inside = content.labels > 0
    limits = [step * content.limit for step in _STEPS]
    grades = np.where(inside, 1 + np.digitize(content.data, limits), 0).astype(np.uint16)
    there = np.unique(grades[inside])
    new = np.zeros(len(limits) + 2, np.uint16)
    new[there] = np.arange(1, len(there) + 1)
    ends = ["", *(f"{limit:.3g}" for limit in limits), ""]
    names = [_between(low, high, content.unit) for low, high in pairwise(ends)]
    return Segments(
        "strengths",
        "candidates by strength",
        new[grades],
        tuple(names[grade - 1] for grade in there),
        tuple((0.0, *_STEPS)[grade - 1] for grade in there),
    )


def tracking_uid(region: Region, *, key: str) -> str:
    """What a candidate is called in all objects."""
    return uid(key, "candidate", str(region.number))


def segmentation(source: Source, content: Content, segments: Segments, *, key: str, offset: int) -> Dataset:
    """Segments as one object of binary frames; those without a voxel of a segment are left out.

    Args:
        source: the series.
        content: map and candidates.
        segments: what is stored.
        key: of the run, for UIDs.
        offset: of the series' number.
    """
    maker = AlgorithmIdentificationSequence(
        content.algorithm, codes.DCM.ArtificialIntelligence, __version__, parameters=content.parameters
    )
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=CANDIDATE,
            algorithm_type="AUTOMATIC",
            algorithm_identification=maker,
            display_color=_COLOURS[int(np.digitize(strength, _STEPS))],
            **_tracking(segments, number),
        )
        for number, (label, strength) in enumerate(zip(segments.texts, segments.strengths, strict=True), start=1)
    ]
    made: Dataset = Segmentation(
        source_images=source.images,
        pixel_array=frames(segments.labels),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=uid(key, segments.name, "series"),
        series_number=source.series_number(offset),
        sop_instance_uid=uid(key, segments.name),
        instance_number=1,
        content_label="CANDIDATES",
        content_description=text(segments.title, content.map),
        content_creator_name=CREATOR,
        series_description=text(f"{MAKER} {segments.title}", content.status),
        **equipment(content.model),
        **planes(source),
    )
    keep_own_frames(made, source)
    return made


def _tracking(segments: Segments, number: int) -> dict[str, str]:
    if not segments.tracked:
        return {}
    return {"tracking_uid": segments.tracked[number - 1], "tracking_id": segments.texts[number - 1].partition(":")[0]}


def _between(low: str, high: str, unit: str) -> str:
    if not low:
        return f"candidate, below {high} {unit}"
    return f"candidate, {low} to {high} {unit}" if high else f"candidate, above {low} {unit}"
