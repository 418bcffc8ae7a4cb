"""Structured report (TID 1500): place, volume, peak, mean and p of each candidate, bound to its segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes

from medvae import __version__
from medvae.dicom_objects.content import MAKER, SCHEME, equipment, text, uid
from medvae.dicom_objects.parametric_map import QUANTITY
from medvae.dicom_objects.segmentation import CANDIDATE, shown, tracking_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.content import Content, Region
    from medvae.dicom_objects.source import Source

_P = CodedConcept("p-value", SCHEME, "Conformal p-value of the mass of the region")
_AXES = (
    CodedConcept("peak-x", SCHEME, "Place of the peak, x to the left (frame of reference)"),
    CodedConcept("peak-y", SCHEME, "Place of the peak, y to the back (frame of reference)"),
    CodedConcept("peak-z", SCHEME, "Place of the peak, z to the head (frame of reference)"),
)
_MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right, "midline": None}


def report(source: Source, content: Content, segmentation: Dataset, *, key: str) -> Dataset:
    """The report.

    Args:
        source: the series.
        content: map and candidates.
        segmentation: the object with one segment per candidate, in the order of `shown`.
        key: of the run, for UIDs.
    """
    observer = DeviceObserverIdentifyingAttributes(
        uid=uid(MAKER, content.model),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=content.algorithm,
        serial_number=content.model,
    )
    context = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=observer)
    groups = [
        _group(region, content, _segment(number, source, segmentation), key=key)
        for number, region in enumerate(shown(content), start=1)
    ]
    measured = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=context),
        procedure_reported=codes.cid100.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    made: Dataset = Comprehensive3DSR(
        evidence=[*source.images, segmentation],
        content=measured,
        series_instance_uid=uid(key, "report series"),
        series_number=source.series_number(4),
        sop_instance_uid=uid(key, "report"),
        instance_number=1,
        is_complete=True,
        series_description=text(f"{MAKER} measurements", content.map, content.status),
        specific_character_set=source.first.get("SpecificCharacterSet"),
        **equipment(content.model),
    )
    return made


def _segment(number: int, source: Source, segmentation: Dataset) -> ReferencedSegment:
    """By its number alone: `from_segmentation` of highdicom 0.28 fails on an object with one segment."""
    series = SourceSeriesForSegmentation(str(source.first.SeriesInstanceUID))
    return ReferencedSegment(
        str(segmentation.SOPClassUID), str(segmentation.SOPInstanceUID), number, source_series=series
    )


def _group(
    region: Region, content: Content, segment: ReferencedSegment, *, key: str
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """One candidate; the peak's place as numbers, because the template allows no other points beside a segment."""
    unit = content.unit_code
    parameters = [f"{name}: {value}" for name, value in content.parameters.items()]
    measurements = [
        Measurement(codes.SCT.Volume, region.volume_ml, _MILLILITRE),
        Measurement(QUANTITY, region.peak, unit, derivation=codes.SCT.Maximum),
        Measurement(QUANTITY, region.mean, unit, derivation=codes.SCT.Mean),
        Measurement(_P, region.p, codes.UCUM.NoUnits),
        *(Measurement(axis, at, codes.UCUM.Millimeter) for axis, at in zip(_AXES, region.lps, strict=True)),
    ]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracking_uid(region, key=key), f"candidate {region.number}"),
        referenced_segment=segment,
        finding_type=CANDIDATE,
        algorithm_id=AlgorithmIdentification(content.algorithm, __version__, parameters),
        finding_sites=_sites(region),
        measurements=measurements,
    )


def _sites(region: Region) -> list[FindingSite] | None:
    if region.side is None:
        return None
    return [FindingSite(codes.SCT.Brain, laterality=_SIDES[region.side])]
