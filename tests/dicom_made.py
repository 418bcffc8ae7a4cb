"""DICOM series made by code: classic ones of single slices, and enhanced multi-frame objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Scan, ScanRef

NAME, PATIENT = "Secret^Zaphod", "PAT-4711-SECRET"
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
SHAPE = (9, 7, 5)
AFFINE = np.array([[-2.0, 0, 0, 30], [0, -3, 0, 40], [0, 0, 4, -50], [0, 0, 0, 1]])  # axial, as scanners store it
Edit = Callable[[Dataset, int], None]


def ramp(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int16]:
    """Another value in every voxel."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def orientations() -> list[NDArray[np.float64]]:
    """The 48 ways to lay three axes along those of the patient, with voxels of 2 x 3 x 4 mm."""
    made = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, order] * signs * (2, 3, 4)
        affine[:3, 3] = (10, -20, 30)
        made.append(affine)
    return made


def slices(volume: NDArray[Any], affine: NDArray[np.float64] = AFFINE, *, modality: str = "CT") -> list[Dataset]:
    """The slices of a volume `(columns, rows, slices)` that lies at `affine` (RAS+), as datasets."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :3] / spacing
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    made = []
    for index in range(volume.shape[2]):
        one = _object(CLASSES[modality], volume[:, :, index].T, uids)
        one.Modality, one.ImageType, one.InstanceNumber = modality, ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1
        one.ImageOrientationPatient = [f"{x:.9f}" for x in (*cosines[:, 0], *cosines[:, 1])]
        one.ImagePositionPatient = [f"{x:.6f}" for x in lps[:3, 3] + index * lps[:3, 2]]
        one.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        one.RescaleSlope, one.RescaleIntercept = "1", "-1024" if modality == "CT" else "0"
        made.append(one)
    return made


def enhanced(frames: Sequence[tuple[NDArray[Any], Dataset]], shared: Dataset | None = None) -> Dataset:
    """An Enhanced MR object of `(pixels, functional groups)`; what its top level says of geometry is a lie."""
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    one = _object(EnhancedMRImageStorage, np.stack([pixels for pixels, _ in frames]), uids)
    one.Modality, one.ImageType, one.NumberOfFrames = "MR", ["ORIGINAL", "PRIMARY", "T1", "NONE"], len(frames)
    one.ImagePositionPatient, one.ImageOrientationPatient = [900, 900, 900], [0, 1, 0, 0, 0, 1]
    one.PixelSpacing, one.RescaleSlope, one.RescaleIntercept = [9, 9], "9", "9"
    one.PerFrameFunctionalGroupsSequence = Items([groups for _, groups in frames])
    if shared is not None:
        one.SharedFunctionalGroupsSequence = Items([shared])
    return one


def same_series(first: Dataset, *others: Dataset) -> None:
    """Give objects the study, series and frame of reference of the first."""
    for one in others:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(one, keyword, first[keyword].value)


def groups(**macros: dict[str, Any]) -> Dataset:
    """Functional groups: the macros by the keywords of their sequences, without "Sequence"."""
    made = Dataset()
    for name, elements in macros.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(made, f"{name}Sequence", Items([item]))
    return made


def plane(z: float, **macros: dict[str, Any]) -> Dataset:
    """Functional groups of a frame at a height, with others."""
    return groups(PlanePosition={"ImagePositionPatient": [-30, -40, z]}, **macros)


GEOMETRY = groups(
    PlaneOrientation={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, PixelMeasures={"PixelSpacing": [3, 2]}
)


def _object(sop_class: str, pixels: NDArray[Any], uids: dict[str, str]) -> Dataset:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = sop_class, generate_uid()
    one.PatientName, one.PatientID, one.StudyID = NAME, PATIENT, "S1"
    for keyword, uid in uids.items():
        setattr(one, keyword, uid)
    one.Rows, one.Columns = pixels.shape[-2:]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8 * pixels.itemsize
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(pixels.dtype.kind == "i")
    one.PixelData = np.ascontiguousarray(pixels).tobytes()
    one["PixelData"].VR = "OW"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one


def save(one: Dataset, path: Path, syntax: str | None = None) -> Path:
    """Write a dataset; big endian swaps its pixels."""
    if syntax is not None:
        one.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and one.BitsAllocated > 8:
            one.PixelData = np.frombuffer(one.PixelData, f"u{one.BitsAllocated // 8}").byteswap().tobytes()
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def put(folder: Path, made: Sequence[Dataset], *edits: Edit, syntax: str | None = None) -> list[Path]:
    """Write a series under names that say nothing of its order; each edit changes a slice, given its number."""
    for number, one in enumerate(made):
        for edit in edits:
            edit(one, number)
    return [save(one, folder / f"{(7 * number + 3) % 101:03d}", syntax) for number, one in enumerate(made)]


def find_one(folder: Path, **settings: Any) -> ScanRef:
    """The one scan in a folder."""
    (ref,) = dicom.find([file for file in folder.rglob("*") if file.is_file()], ReadSettings(**settings))[0]
    return ref


def read_one(folder: Path, **settings: Any) -> Scan:
    """Read the one scan in a folder."""
    return reading.read(find_one(folder, **settings), ReadSettings(**settings))


def refusal(folder: Path, **settings: Any) -> ScanError:
    """The error of reading the one scan in a folder; the headers alone end with it too, or see nothing wrong."""
    ref = find_one(folder, **settings)
    by_headers = None
    try:
        reading.inspect(ref, ReadSettings(**settings))
    except ScanError as problem:
        by_headers = (problem.code, problem.message)
    with pytest.raises(ScanError) as caught:
        reading.read(ref, ReadSettings(**settings))
    assert by_headers in (None, (caught.value.code, caught.value.message))
    return caught.value


def code_of(ref: ScanRef) -> str:
    """How reading a scan ends."""
    try:
        reading.read(ref, ReadSettings())
    except ScanError as problem:
        return problem.code
    return "ok"
