"""Parametric Map: the values of a map in float32, as the NIfTI file has them, for archives and Slicer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import CodedConcept

from medvae.dicom_objects.content import CREATOR, SCHEME, equipment, text, uid
from medvae.dicom_objects.planes import frames, keep_own_frames, planes, sort_ascending

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.content import Content
    from medvae.dicom_objects.source import Source

_SHORT = 16  # characters of a Short String
QUANTITY = CodedConcept("anomaly", SCHEME, "Anomaly score")


def parametric_map(source: Source, content: Content, *, key: str) -> Dataset:
    """The map as one object, its frames ascending along row cosines × column cosines."""
    window = VOILUTTransformation(
        window_center=content.high / 2, window_width=content.high, voi_lut_function="LINEAR_EXACT"
    )
    made = ParametricMap(
        source_images=source.images,
        pixel_array=frames(content.data),
        series_instance_uid=uid(key, "map series"),
        series_number=source.series_number(1),
        sop_instance_uid=uid(key, "map"),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[value_mapping(content)],
        voi_lut_transformations=[window],
        content_label="HEATMAP",
        content_description=text(content.map, content.unit),
        content_creator_name=CREATOR,
        series_description=text(content.algorithm, content.unit, content.status),
        **equipment(content.model),
        **planes(source),
    )
    sort_ascending(made, source)
    keep_own_frames(made, source)
    made.FloatPixelData = frames(content.data).astype("<f4").tobytes()
    return made


def value_mapping(content: Content) -> RealWorldValueMapping:
    """Stored values are the map's, in its unit."""
    return RealWorldValueMapping(
        lut_label=content.map[:_SHORT],
        lut_explanation=text(content.map, content.unit),
        unit=content.unit_code,
        value_range=(float(content.data.min()), float(content.data.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=QUANTITY,
    )
