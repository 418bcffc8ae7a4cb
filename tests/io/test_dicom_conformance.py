"""Every folder and file of the real DICOM collection: read as two other tools read it, or refused for the right reason.

The table is the documentation of what the reader does with files as they are found. Each folder is a run of its own,
because the collections reuse UIDs between folders. Oracles: SimpleITK's GDCM series reader and `dcm2niix -p n`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_oracle import assert_same, by_dcm2niix, by_itk

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ReadSettings()
SPLIT = ReadSettings(split_mixed=True)
ITK, NIIX = "SimpleITK", "dcm2niix"


@dataclass(frozen=True)
class Reads:
    """A series that is read: shape, voxel size, range of values, the tools that agree, and how many files it has."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    low: float
    high: float
    oracles: tuple[str, ...] = (ITK, NIIX)
    files: int = 1
    units: str = "a.u."


@dataclass(frozen=True)
class Refused:
    """A series or object that is not read: the code, words of the message, and how many files it has."""

    code: str
    says: str = ""
    files: int = 1


@dataclass(frozen=True)
class Folder:
    """What a folder holds: its scans by their first file, and the files that are no DICOM."""

    scans: dict[str, Reads | Refused]
    others: tuple[str, ...] = ()


def one(name: str, expected: Reads | Refused) -> Folder:
    return Folder({name: expected})


SMALL = Reads((256, 256, 4), (1.0, 1.0, 1.0), 0, 254, files=4)
SAME_PLACE = "lie at one position"
SINGLE = Refused("too_few_slices", "1 slice")
DICOMDIR = Refused("not_image", "DICOMDIR")
GE_DTI, FMRI = "slices lie at 4 positions", "8 slices lie at 2 positions"

TABLE: dict[str, Folder] = {
    # ------------------------------------------------------------------------------------------- chest and heads
    "chest-ct/siemens-sensation10-8mm-whole": one(
        "1-01.dcm", Reads((512, 512, 30), (0.646484375, 0.646484375, 8.0), -1024, 1548, files=30, units="HU")
    ),
    "mr-anatomical/ge-coronal-t1-mrhead": one(
        "000001.IMA", Reads((256, 256, 100), (1.01562, 1.01562, 2.5), 0, 5888, files=100)
    ),
    "mr-anatomical/siemens-verio-axial-oblique-t1": one(
        "1-01.dcm", Reads((260, 320, 24), (0.6875, 0.6875, 6.4999), 0, 2505, files=24)
    ),
    # ------------------------------------------------------------------------- short series of every manufacturer
    "dicom2nifti-tests/anatomical_001": one("IM-0001-0112-0001.dcm", SMALL),
    "dicom2nifti-tests/ge_anatomical_001": one("IM-0001-0112-0001.dcm", SMALL),
    "dicom2nifti-tests/ge_anatomical_001_implicit": one("IM-0001-0112-0001.dcm", SMALL),
    "dicom2nifti-tests/ge_anatomical_001_single_slice": one("IM-0001-0112-0001.dcm", SINGLE),
    "dicom2nifti-tests/ge_dti_001": one(
        "IM-0001-0001-0001.dcm", Refused("duplicate_positions", f"8 {GE_DTI}", files=8)
    ),
    "dicom2nifti-tests/ge_dti_002": one("001", Refused("duplicate_positions", f"16 {GE_DTI}", files=16)),
    "dicom2nifti-tests/ge_fmri_001": one(
        "IM-0001-0001-0001.dcm", Refused("duplicate_positions", f"8 {GE_DTI}", files=8)
    ),
    "dicom2nifti-tests/generic_anatomical_001": one("IM-0001-0001-0001.dcm", SMALL),
    # rows 4 mm and columns 6.4 mm apart, another slope and intercept in each slice; dcm2niix takes the first for all
    "dicom2nifti-tests/generic_anatomical_002_non_isotropic": one(
        "001.dcm", Reads((64, 28, 4), (6.39995861, 4.0, 0.5), 33.443825, 96.467987, (ITK,), files=4)
    ),
    "dicom2nifti-tests/generic_compressed_001": one("IM-0001-0001-0001.dcm", SMALL),
    "dicom2nifti-tests/generic_compressed_j2k_001": one("IM-0001-0001-0001.dcm", SMALL),
    "dicom2nifti-tests/generic_compressed_jpeg_001": one("IM-0001-0001-0001.dcm", SMALL),
    "dicom2nifti-tests/generic_compressed_jpegls_001": one("IM-0001-0001-0001.dcm", SMALL),
    "dicom2nifti-tests/generic_compressed_rle_001": one("IM-0001-0001-0001.dcm", SMALL),
    "dicom2nifti-tests/generic_rgb_001": one("IM-0001-0001-0001.dcm", Refused("colour", "3 samples", files=4)),
    "dicom2nifti-tests/hitachi_anatomical_001": one(
        "001.dcm", Reads((64, 64, 4), (2.34375, 2.34375, 4.0), 0, 1537, files=4)
    ),
    # top-level position and orientation, which are not those of the frames
    "dicom2nifti-tests/hyperfine_anatomical_001": one("001.dcm", Reads((112, 138, 8), (1.59, 1.61, 5.0), 0, 254)),
    "dicom2nifti-tests/philips_anatomical_001": one(
        "IM-0001-0001-0001.dcm", Reads((240, 240, 4), (1.04167, 1.04167, 0.6), 0, 254, files=4)
    ),
    "dicom2nifti-tests/philips_anatomical_001_implicit": one(
        "IM-0001-0001-0001.dcm", Reads((240, 240, 4), (1.04167, 1.04167, 0.6), 0, 254, files=4)
    ),
    "dicom2nifti-tests/philips_dti_001": one("IM-0001-0033-0001.dcm", Refused("duplicate_positions", FMRI, files=8)),
    "dicom2nifti-tests/philips_enhanced_anatomical_001": one(
        "IM-0001-0170-0001.dcm", Reads((256, 256, 8), (1.0, 1.0, 1.2), 0, 1081.74853)
    ),
    "dicom2nifti-tests/philips_enhanced_dti_001": one(
        "IM-0001-3835-0001.dcm",
        Refused("mixed_series", "DiffusionBValue: 0 s/mm2 (8), 1300 s/mm2 (24), in DiffusionG"),
    ),
    "dicom2nifti-tests/philips_enhanced_fmri_001": one(
        "IM-0001-9600-0001.dcm", Refused("mixed_series", "TemporalPositionIdentifier: 1 (8), 2 (8), 3 (8), 4 (8)")
    ),
    "dicom2nifti-tests/philips_fmri_001": one("IM-0001-0050-0001.dcm", Refused("duplicate_positions", FMRI, files=8)),
    "dicom2nifti-tests/siemens_anatomical_001": one("IM-0001-0112-0001.dcm", SMALL),
    "dicom2nifti-tests/siemens_dti_classic_001": one(
        "001.dcm", Refused("mixed_series", "AcquisitionNumber: 1 (4), 2 (4)", files=8)
    ),
    "dicom2nifti-tests/siemens_fmri_001": one("IM-0001-0001.dcm", Refused("mosaic", "MOSAIC", files=2)),
    # no shared functional groups
    "dicom2nifti-tests/siemens_multiframe_anatomical_001": one(
        "IM-0001-0001-0001.dcm", Reads((256, 256, 8), (0.9375, 0.9375, 0.9), 0, 254)
    ),
    # ----------------------------------------------------------------------- series that SimpleITK reads wrongly
    "failing/gantrytilting_001": one("IM-0001-0001.dcm", Refused("gantry_tilt", "14.0 degrees (24.9%", files=4)),
    "failing/notavolume_001": one("001.dcm", Refused("duplicate_positions", SAME_PLACE, files=4)),
    "failing/slicecount_001": one("IM-0001-0001-0001.dcm", Refused("too_few_slices", "2 slices", files=2)),
    "failing/sliceincrement_001": one(
        "IM-0001-0007-0001.dcm", Refused("uneven_spacing", "after slice 3 the gap is 10.000 mm", files=4)
    ),
    "failing/sliceincrement_002": one(
        "IM-0001-0001.dcm", Refused("uneven_spacing", "1 missing; the stack is tilted by 15.5 degrees (27.7%", files=4)
    ),
    "failing/sliceorientation_001": one(
        "IM-0001-0001-0001 2.dcm",
        Refused("mixed_series", "in ImageOrientationPatient: sagittal (2), axial (2), in PixelSpacing", files=4),
    ),
    # ---------------------------------------------------------------------------------------------- odd, by theme
    "odd/ct-3slice": one("01.dcm", Reads((512, 512, 3), (0.810547, 0.810547, 1.0), -3024, 1381, files=3, units="HU")),
    "odd/dicomdir-cd": Folder(
        {
            "DICOMDIR": DICOMDIR,
            "DICOMDIR-bigEnd": DICOMDIR,
            "DICOMDIR-empty.dcm": DICOMDIR,
            "DICOMDIR-implicit": DICOMDIR,
            "DICOMDIR-nooffset": DICOMDIR,
            "DICOMDIR-nopatient": DICOMDIR,
            "DICOMDIR-reordered": DICOMDIR,
        },
        others=("README.txt",),
    ),
    "odd/dicomdir-cd/77654033/CR1": one("6154", Refused("not_image", "Computed Radiography")),
    "odd/dicomdir-cd/77654033/CR2": one("6247", Refused("not_image", "Computed Radiography")),
    "odd/dicomdir-cd/77654033/CR3": one("6278", Refused("not_image", "Computed Radiography")),
    "odd/dicomdir-cd/77654033/CT2": one("17106", Refused("uneven_spacing", "the gap is 202.500 mm", files=4)),
    "odd/dicomdir-cd/98892001/CT2N": one("6293", Refused("not_image", "localizer", files=2)),
    "odd/dicomdir-cd/98892001/CT5N": one(
        "2062", Reads((16, 16, 5), (0.488281, 0.488281, 2.5), -888, 85, files=5, units="HU")
    ),
    "odd/dicomdir-cd/98892003/MR1": Folder({"15820": SINGLE, "4919": SINGLE, "5641": SINGLE}),
    "odd/dicomdir-cd/98892003/MR2": Folder(
        {
            "15970": SINGLE,
            "4950": Refused("mixed_series", "ImageOrientationPatient", files=3),
            "6273": Refused("mixed_series", "ImageOrientationPatient", files=3),
        }
    ),
    "odd/dicomdir-cd/98892003/MR700": one("4467", Refused("mixed_series", "ImageOrientationPatient", files=7)),
    "odd/dicomdir-cd/TINY_ALPHA": Folder({"DICOMDIR": DICOMDIR}, others=("README",)),
    "odd/dicomdir-cd/TINY_ALPHA/PT000000/ST000000/SE000000": one(
        "IM000000", Refused("not_image", "CT without pixel data", files=50)
    ),
    "odd/encoding-and-headers": Folder(
        {
            "CT_small.dcm": SINGLE,
            "ExplVR_BigEnd.dcm": Refused("not_image", "Ultrasound"),
            "J2K_pixelrep_mismatch.dcm": SINGLE,
            "MR_small.dcm": Refused("truncated", "8192 bytes of pixels; 1 slice", files=4),  # one series, one UID
            "badVR.dcm": Refused("malformed", "NumberOfFrames is '1A'"),
            "examples_overlay.dcm": SINGLE,
            "image_dfl.dcm": Refused("not_image", "Secondary Capture without a position"),
            "meta_missing_tsyntax.dcm": Refused("not_image", "modality unknown"),
            "no_meta.dcm": Refused("not_a_scan", "not a DICOM file"),
        },
        others=("zipMR.gz",),
    ),
    "odd/enhanced": Folder(
        {
            # two files of one series, each with the same two perfusion maps
            "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": Refused("duplicate_positions", "2 positions", files=2),
            "emri_small.dcm": Refused("no_geometry", "functional groups", files=3),
        }
    ),
    "odd/enhanced-balls1": Folder(
        {
            "T1.dcm": Reads((80, 80, 10), (1.911765, 1.911765, 10.0), 0, 2477.784),
            "T2-interleaved.dcm": Reads((80, 80, 10), (1.911765, 1.911765, 12.33), 0, 34346),
            "T2_.dcm": Refused("mixed_series", "TemporalPositionIdentifier: 1 (10), 2 (10)"),
            "fieldmap.dcm": Refused("mixed_series", "ImageType: T1\\NONE\\MAGNITUDE (10), VELOCITY\\NONE\\PHASE (10)"),
        }
    ),
    "odd/git-lfs-pointers": Folder(
        dict.fromkeys(("1.dcm", "2.dcm", "3.dcm"), Refused("not_a_scan", "Git LFS pointer"))
    ),
    # RescaleType says US: CT, but not in HU
    "odd/legacy-converted-ct": one("mf.dcm", Reads((24, 38, 3), (0.7, 0.7, 2.5), 0, 1)),
    "odd/localizer-philips-ct": Folder({"DIRFILE": DICOMDIR, "I10": Refused("not_image", "localizer")}),
    # positions rounded to 0.1 mm: dcm2niix takes the first gap, 7.071 mm, for all
    "odd/mr-ge-uneven-20": one(
        "brain_001.dcm", Reads((256, 256, 20), (0.859375, 0.859375, 7.0005), 0, 1059, oracles=(ITK,), files=20)
    ),
    "odd/nibabel-nicom": Folder(
        {
            "0.dcm": Refused("mosaic", "MOSAIC", files=2),
            "csa_slice_norm.dcm": Refused("not_image", "MR without pixel data"),
            "decimal_rescale.dcm": Refused("malformed", "SeriesInstanceUID is missing"),
            "philips_mprage.dcm.gz": Refused("not_a_scan", "gzip"),
            "siemens_dwi_0.dcm.gz": Refused("not_a_scan", "gzip"),
            "siemens_dwi_1000.dcm.gz": Refused("not_a_scan", "gzip"),
            "slicethickness_empty_string.dcm": SINGLE,
        }
    ),
    "odd/no-pixel-data": one("no-pixel-data.dcm", Refused("not_image", "Basic Text SR")),
    # eight lossless copies of one slice and seven other slices, all at one place
    "odd/one-ct-slice-15-transfer-syntaxes": one(
        "CTImage.dcm", Refused("duplicate_positions", f"all 7 slices {SAME_PLACE}", files=15)
    ),
    "odd/parametric-map": Folder(
        dict.fromkeys(
            ("parametric_map_double_float.dcm", "parametric_map_float.dcm"), Refused("not_image", "Parametric Map")
        )
    ),
    "odd/secondary-capture": Folder(
        {
            "OT-PAL-8-face.dcm": Refused("not_image", "Secondary Capture without a position"),
            "SC_rgb.dcm": Refused("not_image", "Secondary Capture without a position", files=2),
        }
    ),
    "odd/seg": one("liver.dcm", Refused("not_image", "Segmentation")),
    "odd/siemens-mosaic-12bit": one("12bitSigned_0x0F0F.dcm", Refused("mosaic", "MOSAIC", files=3)),
    "odd/sr-rt-waveform": Folder(
        {
            "reportsi.dcm": Refused("not_image", "Basic Text SR"),
            "rtdose.dcm": Refused("not_image", "RT Dose"),
            "rtplan.dcm": Refused("not_image", "RT Plan"),
            "rtstruct.dcm": Refused("not_image", "RT Structure Set"),
            "test-SR.dcm": Refused("not_image", "Comprehensive SR"),
        }
    ),
    "odd/us-rgb": Folder(
        {
            "US1_J2KR.dcm": Refused("not_image", "Ultrasound", files=2),
            "examples_palette.dcm": Refused("not_image", "Ultrasound"),
            "examples_ybr_color.dcm": Refused("not_image", "Ultrasound Multi-frame"),
        }
    ),
    "odd/wg04-compressed": Folder(
        {
            "CT1_J2KI": Refused("duplicate_positions", SAME_PLACE, files=5),
            "CT1_RLE": SINGLE,
            "CT2_J2KI": Refused("duplicate_positions", SAME_PLACE, files=3),
            "MR1_J2KI": Refused("duplicate_positions", SAME_PLACE, files=6),
            "MR1_RLE": SINGLE,
            "MR3_J2KI": Refused("duplicate_positions", SAME_PLACE, files=4),
        }
    ),
}


@pytest.fixture(scope="module")
def collection(shared_data: Path) -> Path:
    return shared_data / "dicom"


def test_no_folder_is_left_out(collection: Path) -> None:
    folders = {file.parent.relative_to(collection).as_posix() for file in collection.rglob("*") if file.is_file()}
    assert folders == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_file_ends_as_the_table_says(collection: Path, name: str, tmp_path: Path) -> None:
    folder, expected = collection / name, TABLE[name]
    files = [file for file in folder.iterdir() if file.is_file()]
    refs, others = dicom.find(files, SETTINGS)
    assert tuple(other.name for other in others) == expected.others
    assert [ref.path.name for ref in refs] == list(expected.scans)
    assert sorted([*others, *(path for ref in refs for path in ref.paths)]) == sorted(files)  # none is lost, none twice
    assert len({ref.id for ref in refs}) == len(refs)
    for ref in refs:
        outcome = expected.scans[ref.path.name]
        assert len(ref.paths) == outcome.files
        if isinstance(outcome, Refused):
            for what in (reading.inspect, reading.read):
                with pytest.raises(ScanError) as caught:
                    what(ref, SETTINGS)
                assert caught.value.code == outcome.code
                assert outcome.says in caught.value.message
            continue
        info, scan = reading.inspect(ref, SETTINGS), reading.read(ref, SETTINGS)
        assert info.geometry == scan.geometry
        assert (info.modality, info.units, info.warnings) == (scan.modality, scan.units, scan.warnings)
        assert scan.data.dtype == np.float32
        assert scan.geometry.shape == outcome.shape
        assert scan.geometry.spacing == pytest.approx(outcome.spacing, rel=1e-4)
        assert (scan.data.min(), scan.data.max()) == pytest.approx((outcome.low, outcome.high), rel=1e-6)
        assert scan.units == outcome.units
        for oracle in outcome.oracles:
            others_view = by_itk(ref.paths) if oracle == ITK else by_dcm2niix(ref.paths, tmp_path / ref.id)[0]
            assert_same(scan, others_view)


@pytest.mark.parametrize("name", ["T2_", "fieldmap"])
def test_parts_of_a_mixed_multi_frame_file(collection: Path, name: str, tmp_path: Path) -> None:
    """Two time points; magnitude and phase, each with its own rescale."""
    refs, _ = dicom.find([collection / "odd" / "enhanced-balls1" / f"{name}.dcm"], SPLIT)
    parts = [reading.read(ref, SPLIT) for ref in refs]
    theirs = by_dcm2niix(refs[0].paths, tmp_path)
    assert len(parts) == len(theirs) == 2
    for ref, part, image in zip(refs, parts, theirs, strict=True):
        assert_same(part, image)
        assert any(ref.part in warning for warning in part.warnings)
        assert len(ref.frames) == 10
    if name == "fieldmap":
        assert [ref.part for ref in refs] == ["ImageType T1\\NONE\\MAGNITUDE", "ImageType VELOCITY\\NONE\\PHASE"]
        assert parts[0].data.max() == pytest.approx(6833.12, abs=0.01)
        assert (parts[1].data.min(), parts[1].data.max()) == pytest.approx((-500, 496.337), abs=0.01)


def test_parts_of_a_mixed_series_of_single_frames(collection: Path) -> None:
    refs, _ = dicom.find((collection / "failing" / "sliceorientation_001").iterdir(), SPLIT)
    assert [len(ref.paths) for ref in refs] == [2, 2]
    assert [ref.frames for ref in refs] == [(), ()]  # all frames of other files
    assert [ref.part.split(",")[0] for ref in refs] == [
        "ImageOrientationPatient sagittal",
        "ImageOrientationPatient axial",
    ]
    for ref in refs:
        with pytest.raises(ScanError, match="2 slices") as caught:
            reading.read(ref, SPLIT)
        assert caught.value.code == "too_few_slices"
