"""Objects are read back by pydicom, highdicom and SimpleITK: the same values at the same mm, the same bytes again."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_made import GEOMETRY, NAME, PATIENT, enhanced, find_one, plane, save
from made_objects import LIMIT, PICTURE, SHAPE, content, planes, series, values_at
from pydicom import dcmread

from medvae.dicom_objects.fusion import scale_of
from medvae.dicom_objects.objects import Objects, for_fusion, map_and_candidates
from medvae.dicom_objects.source import Unfit, open_source
from medvae.io.dicom.quiet import quiet
from medvae.io.formats import dicom
from medvae.scan import ScanRef
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.content import Content
    from medvae.dicom_objects.source import Source

Made = tuple["Source", "Content", Objects]


@pytest.fixture(scope="module", params=planes())
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    source = series(tmp_path_factory.mktemp("series"), planes()[request.param])
    shown = content(source.geometry)
    return source, shown, map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)


def opened(objects: Objects, name: str) -> Dataset:
    return dcmread(BytesIO(objects.files[name]))


def lps_of_pixels(one: Dataset, position: Any, orientation: Any, spacing: Any) -> NDArray[np.float64]:
    """Of the pixels of one frame, `(rows, columns, 3)` (PS3.3, C.7.6.2.1.1)."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    r, c = np.meshgrid(np.arange(one.Rows), np.arange(one.Columns), indexing="ij")
    between_rows, between_columns = map(float, spacing)
    place: NDArray[np.float64] = (
        np.array(position, float) + c[..., None] * row * between_columns + r[..., None] * column * between_rows
    )
    return place


def frames_of(one: Dataset) -> list[NDArray[np.float64]]:
    """The places of the pixels of each frame."""
    shared = one.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    return [
        lps_of_pixels(one, group.PlanePositionSequence[0].ImagePositionPatient, orientation, spacing)
        for group in one.PerFrameFunctionalGroupsSequence
    ]


def test_nothing_is_left_out(made: Made) -> None:
    assert made[2].warnings == ()
    slices = {f"fusion/{number:04d}.dcm" for number in range(1, SHAPE[2] + 1)}
    assert set(made[2].files) == {
        "map.dcm",
        "candidates.dcm",
        "strengths.dcm",
        "report.dcm",
        "picture.dcm",
        *slices,
    }


def test_the_map_has_the_values_of_the_array_in_ascending_frames(made: Made) -> None:
    source, shown, objects = made
    one = opened(objects, "map.dcm")
    assert one.ContentLabel == "HEATMAP"
    assert one.ContentQualification == "RESEARCH"
    pixels = one.pixel_array
    assert pixels.dtype == np.float32
    normal = np.cross(source.orientation[:3], source.orientation[3:])
    heights = []
    for frame, places in zip(pixels, frames_of(one), strict=True):
        assert np.array_equal(frame, values_at(shown.data, source.geometry, places))
        heights.append(places[0, 0] @ normal)
    assert (np.diff(heights) > 0).all()
    index = [g.FrameContentSequence[0].DimensionIndexValues for g in one.PerFrameFunctionalGroupsSequence]
    assert index == list(range(1, SHAPE[2] + 1))


def test_highdicom_reads_the_map_as_the_same_volume(made: Made) -> None:
    source, shown, objects = made
    volume = highdicom.imread(BytesIO(objects.files["map.dcm"])).get_volume(dtype=np.float32)
    assert volume.frame_of_reference_uid == source.first.FrameOfReferenceUID
    index = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1)
    lps = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    assert np.array_equal(volume.array, values_at(shown.data, source.geometry, lps))


def test_the_map_names_unit_window_and_source(made: Made) -> None:
    source, _, objects = made
    one = opened(objects, "map.dcm")
    shared = one.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert float(shared.FrameVOILUTSequence[0].WindowWidth) == pytest.approx(3 * LIMIT)
    referenced = one.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.first.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == SHAPE[2]
    for image, group in zip(source.images, one.PerFrameFunctionalGroupsSequence, strict=True):
        (origin,) = group.DerivationImageSequence[0].SourceImageSequence
        assert origin.ReferencedSOPInstanceUID == image.SOPInstanceUID


@pytest.mark.parametrize("name", ["candidates", "strengths"])
def test_segments_lie_where_the_candidates_do(made: Made, name: str) -> None:
    source, shown, objects = made
    one = opened(objects, f"{name}.dcm")
    found = np.zeros(SHAPE, np.uint16)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(np.float64)
    for frame, places, group in zip(one.pixel_array, frames_of(one), one.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        at = np.rint(values_at(index, source.geometry, places)).astype(int)[frame > 0]
        assert (found[tuple(at.T)] == 0).all(), "segments do not overlap"
        found[tuple(at.T)] = number
    labels, grades = shown.labels, np.where(shown.labels > 0, 1 + np.digitize(shown.data, (LIMIT, 2 * LIMIT)), 0)
    there = np.unique(grades[grades > 0])
    assert np.array_equal(found, labels if name == "candidates" else np.searchsorted(there, grades) + (grades > 0))
    assert len(one.SegmentSequence) == (2 if name == "candidates" else len(there))
    assert all("research use only" in one[element].value for element in ("SeriesDescription", "ContentDescription"))


def test_segments_are_coloured_by_strength(made: Made) -> None:
    """The first candidate's peak lies above two healthy limits, the second's between one and two."""
    first, second = opened(made[2], "candidates.dcm").SegmentSequence
    assert first.SegmentLabel.startswith("1: peak 12.5 z")
    assert second.SegmentLabel.startswith("2: peak 5.5 z")
    colours = {tuple(one.RecommendedDisplayCIELabValue) for one in (first, second)}
    strengths = opened(made[2], "strengths.dcm").SegmentSequence
    assert colours <= {tuple(one.RecommendedDisplayCIELabValue) for one in strengths}
    assert len(colours) == 2
    assert [one.SegmentLabel for one in strengths][-1] == "candidate, above 8.8 z"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "medvae fused"
    assert "research use only" in algorithm.AlgorithmParameters


def test_the_report_has_the_numbers_of_the_candidates(made: Made) -> None:
    _, shown, objects = made
    segments = opened(objects, "candidates.dcm")
    sr = highdicom.sr.srread(BytesIO(objects.files["report.dcm"]))
    groups = sr.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2
    for number, (group, region) in enumerate(zip(groups, shown.regions, strict=True), start=1):
        told = [one.value for one in group.get_measurements()]
        expected = [region.volume_ml, region.peak, region.mean, region.p, *region.lps]
        assert told == pytest.approx(expected)
        (item,) = next(one for one in group[0].ContentSequence if one.ValueType == "IMAGE").ReferencedSOPSequence
        assert item.ReferencedSOPInstanceUID == segments.SOPInstanceUID
        assert item.ReferencedSegmentNumber == number
        assert group.tracking_uid == segments.SegmentSequence[number - 1].TrackingUID
    assert groups[0].finding_sites[0].laterality.meaning == "Left"
    assert groups[1].finding_sites[0].laterality is None
    referenced = {
        one.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for group in study.ReferencedSeriesSequence
        for one in group.ReferencedSOPSequence
    }
    assert str(segments.SOPInstanceUID) in referenced
    assert (sr.PreliminaryFlag, sr.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_simpleitk_reads_the_fusion_series_on_the_scan(made: Made, tmp_path: Path) -> None:
    source, shown, objects = made
    names = [name for name in objects.files if name.startswith("fusion")]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(objects.files[name])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "fusion")))
    image = reader.Execute()
    assert image.GetSize() == SHAPE
    pixels = sitk.GetArrayFromImage(image)
    for z, y, x in np.ndindex(pixels.shape):
        place = np.array(image.TransformIndexToPhysicalPoint((x, y, z)))
        value = values_at(shown.data, source.geometry, place)
        assert pixels[z, y, x] == max(0, np.rint(value * 100))
    one = opened(objects, names[0])
    assert one.FrameOfReferenceUID == source.first.FrameOfReferenceUID
    assert float(one.WindowWidth) == pytest.approx(3 * LIMIT * 100)
    assert one.Modality == "MR"


def test_a_series_for_fusion_is_no_scan(made: Made, tmp_path: Path) -> None:
    """Exported together with the study, it is left out when medvae reads that."""
    for name, data in made[2].files.items():
        (tmp_path / name.replace("/", "-")).write_bytes(data)
    from medvae.errors import ScanError
    from medvae.io.formats import dicom

    for ref in dicom.find(sorted(tmp_path.iterdir()), ReadSettings())[0]:
        with pytest.raises(ScanError) as caught:
            dicom.inspect(ref, ReadSettings())
        assert caught.value.code == "not_image"


@pytest.mark.parametrize(("limit", "scale"), [(4.4, 100), (0.9, 1000), (10, 10), (1, 100), (0.031, 10000)])
def test_the_healthy_limit_keeps_three_digits(limit: float, scale: float) -> None:
    assert scale_of(limit) == pytest.approx(scale)


def test_the_picture_is_the_array(made: Made) -> None:
    one = opened(made[2], "picture.dcm")
    assert np.array_equal(one.pixel_array, PICTURE)
    assert (one.PhotometricInterpretation, one.BurnedInAnnotation) == ("RGB", "NO")


def test_all_belong_to_the_patient_and_study_of_the_series(made: Made) -> None:
    source, _, objects = made
    uids = []
    for name in objects.files:
        one = opened(objects, name)
        assert (one.PatientName, one.PatientID) == (NAME, PATIENT)
        assert one.StudyInstanceUID == source.first.StudyInstanceUID
        assert one.SeriesInstanceUID != source.first.SeriesInstanceUID
        assert (one.Manufacturer, one.SoftwareVersions) == ("medvae", "0.1.0")
        assert "research use only" in one.SeriesDescription
        uids.append(one.SOPInstanceUID)
    assert len(set(uids)) == len(uids)
    assert len({opened(objects, name).SeriesInstanceUID for name in objects.files}) == 6


def test_a_rerun_gives_the_same_bytes_and_another_result_other_uids(tmp_path: Path) -> None:
    source = series(tmp_path, planes()["oblique"])
    shown = content(source.geometry)

    def run(what: Content) -> Objects:
        again = open_source(find_one(tmp_path), ReadSettings())
        return map_and_candidates(again, what) | for_fusion(again, what, PICTURE)

    first, second = run(shown), run(content(source.geometry))
    assert first == second
    other = run(content(candidates=False))
    assert not {opened(first, name).SOPInstanceUID for name in first.files} & {
        opened(other, name).SOPInstanceUID for name in other.files
    }


def test_without_candidates_there_is_the_map_alone(tmp_path: Path) -> None:
    objects = map_and_candidates(series(tmp_path, planes()["axial"]), content(candidates=False))
    assert set(objects.files) == {"map.dcm"}


def test_one_candidate_is_enough(tmp_path: Path) -> None:
    source, whole = series(tmp_path, planes()["axial"]), content()
    alone = type(whole)(
        whole.map,
        whole.data,
        whole.unit,
        whole.limit,
        whole.status,
        np.where(whole.labels == 2, whole.labels, np.uint16(0)),
        whole.regions,
        whole.model,
    )
    objects = map_and_candidates(source, alone)
    assert objects.warnings == ()
    (segment,) = opened(objects, "candidates.dcm").SegmentSequence
    assert segment.SegmentLabel.startswith("2: ")


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_other_modalities_get_a_series_of_their_own_class(modality: str, tmp_path: Path) -> None:
    source = series(tmp_path, planes()["axial"], modality=modality)
    objects = map_and_candidates(source, content()) | for_fusion(source, content(), PICTURE)
    assert objects.warnings == ()
    assert opened(objects, "fusion/0001.dcm").SOPClassUID == source.first.SOPClassUID


def test_a_multi_frame_series_carries_them_too(tmp_path: Path) -> None:
    pixels = np.arange(63, dtype=np.int16).reshape(7, 9)
    frames = [(pixels + 100 * k, plane(4.0 * z)) for k, z in enumerate((3, 1, 2, 0))]
    save(enhanced(frames, GEOMETRY), tmp_path / "one")
    source = open_source(find_one(tmp_path), ReadSettings())
    shown = content(candidates=False)
    shown = type(shown)("fused", shown.data[..., :4], "z", LIMIT, "calibrated, n=25", shown.labels[..., :4], (), "ab")
    objects = map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)
    assert objects.warnings == ()
    one = opened(objects, "map.dcm")
    for frame, places, group in zip(one.pixel_array, frames_of(one), one.PerFrameFunctionalGroupsSequence, strict=True):
        assert np.array_equal(frame, values_at(shown.data, source.geometry, places))
        (origin,) = group.DerivationImageSequence[0].SourceImageSequence
        assert origin.ReferencedFrameNumber == {12: 1, 4: 2, 8: 3, 0: 4}[int(places[0, 0, 2])]


def test_a_part_of_a_multi_frame_object_refers_to_its_own_frames(tmp_path: Path) -> None:
    """Two acquisitions at the same places in one object."""
    made = []
    for acquisition in (1, 2):
        for z in range(4):
            own = plane(4.0 * z, FrameContent={"FrameAcquisitionNumber": acquisition})
            made.append((np.arange(63, dtype=np.int16).reshape(7, 9) + 100 * z, own))
    settings = ReadSettings(split_mixed=True)
    refs, _ = dicom.find([save(enhanced(made, GEOMETRY), tmp_path / "one")], settings)
    shown = content()
    labels = np.zeros((9, 7, 4), shown.labels.dtype)
    labels[2:4, 2:4, :] = 1
    shown = replace(shown, data=shown.data[..., :4], labels=labels, regions=shown.regions[:1])
    for ref, expected in zip(refs, ([1, 2, 3, 4], [5, 6, 7, 8]), strict=True):
        objects = map_and_candidates(open_source(ref, settings), shown)
        assert objects.warnings == ()
        for name in ("map.dcm", "candidates.dcm"):
            groups = opened(objects, name).PerFrameFunctionalGroupsSequence
            sources = [group.DerivationImageSequence[0].SourceImageSequence for group in groups]
            assert sorted(int(one.ReferencedFrameNumber) for found in sources for one in found) == expected


def test_headers_that_cannot_carry_objects_say_why(tmp_path: Path) -> None:
    def without(one: Dataset, _: int) -> None:
        del one.StudyInstanceUID

    with pytest.raises(Unfit, match="the headers have no StudyInstanceUID"):
        series(tmp_path / "bare", planes()["axial"], without)
    with pytest.raises(Unfit, match="was not read from DICOM"):
        open_source(ScanRef("a", "nifti", (tmp_path / "a.nii.gz",)), ReadSettings())


def test_without_a_frame_of_reference_there_is_the_picture_alone(tmp_path: Path) -> None:
    def without(one: Dataset, _: int) -> None:
        del one.FrameOfReferenceUID

    source = series(tmp_path, planes()["axial"], without)
    objects = map_and_candidates(source, content()) | for_fusion(source, content(), PICTURE)
    assert set(objects.files) == {"picture.dcm"}
    reason = "not written: the headers have no FrameOfReferenceUID"
    kinds = ("Parametric Map", "candidates", "series for fusion")
    assert objects.warnings == tuple(f"no_dicom: {kind} {reason}" for kind in kinds)


def test_broken_values_of_the_patient_are_left_empty(tmp_path: Path) -> None:
    def broken(one: Dataset, _: int) -> None:
        with quiet():  # pydicom warns of them
            one.PatientSex, one.PatientBirthDate, one.StudyTime, one.StudyDate = "male", "1970", "noon", "20250131"
        one.SliceThickness = "0"

    objects = map_and_candidates(series(tmp_path, planes()["axial"], broken), content())
    assert objects.warnings == ()
    one = opened(objects, "map.dcm")
    assert (one.PatientSex, one.PatientBirthDate, one.StudyTime) == ("", "", "")
    assert (one.ContentDate, one.ContentTime) == ("20250131", "000000")
    measures = one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (4, 4)


def test_what_highdicom_refuses_is_a_warning_without_the_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = series(tmp_path, planes()["axial"])

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(f"cannot encode {NAME}")

    monkeypatch.setattr("medvae.dicom_objects.parametric_map.ParametricMap", fail)
    objects = map_and_candidates(source, content())
    (warning,) = objects.warnings
    assert warning == "no_dicom: Parametric Map not written: highdicom refuses the headers (ValueError)"
    assert "candidates.dcm" in objects.files
