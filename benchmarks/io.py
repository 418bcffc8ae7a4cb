"""Reading and writing compared with nibabel, MONAI and pydicom: medians of interleaved rounds.

    python benchmarks/io.py [--data FOLDER] [--rounds N]

Every tool ends with the same result in memory: float32 voxels and an affine. Rounds are interleaved (medvae, the
others, medvae, ...), so that other load on the machine affects all tools alike. A first round is not counted, so that
files are in the page cache. Without FOLDER (default: shared/data beside the checkout) the files are generated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from monai.data import NibabelReader, NibabelWriter, PydicomReader
from monai.transforms import LoadImage
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medvae.io.formats import dicom, nifti
from medvae.prepare.grid import resample
from medvae.scan import Geometry, Scan, ScanRef
from medvae.settings import ReadSettings

NIFTI_FILES = ("brains-t1-native/oasis-1001-brain-1mm.nii.gz", "brains-t1-native/trio-head-1mm.nii.gz")
DICOM_SERIES = ("dicom/chest-ct/siemens-sensation10-8mm-whole", "dicom/mr-anatomical/ge-coronal-t1-mrhead")
KINDS = ("float32 map", "float32 noise", "int16 image")
SETTINGS = ReadSettings()
Task = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: the task, and the tools; medvae comes first."""

    what: str
    tools: dict[str, Task]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="reading and writing compared with nibabel, MONAI and pydicom")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        files, series = find_or_make(options.data, Path(scratch))
        rows = [read_nifti(path) for path in files]
        rows += [write_nifti(files[-1], Path(scratch), kind) for kind in KINDS]
        rows += [read_dicom(folder) for folder in series]
        print(f"medians of {options.rounds} interleaved rounds; in brackets: multiple of the time of medvae\n")
        for row in rows:
            print(line(row, measure(row, options.rounds)), flush=True)


def measure(row: Row, rounds: int) -> dict[str, float]:
    """Median time of each tool, seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in row.tools}
    for count in range(rounds + 1):
        for name, task in row.tools.items():
            start = time.perf_counter()
            task()
            if count:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def line(row: Row, seconds: dict[str, float]) -> str:
    """One line of the table."""
    ours = next(iter(seconds.values()))
    cells = [f"{name} {1000 * value:7.1f} ms ({value / ours:4.1f}x)" for name, value in seconds.items()]
    return f"{row.what:<58} " + "   ".join(cells)


def read_nifti(path: Path) -> Row:
    """Read a .nii.gz."""
    ref = ScanRef(path.stem, "nifti", (path,), modality="MR")
    shape = nifti.inspect(ref, SETTINGS).geometry.shape
    reader, transform = NibabelReader(), LoadImage("NibabelReader", image_only=True, dtype=np.float32)
    return Row(
        f"read NIfTI.gz  {path.name[:24]} {shape}",
        {
            "medvae": lambda: nifti.read(ref, SETTINGS).data,
            "nibabel": lambda: np.asarray(nib.load(path).dataobj, np.float32),
            "MONAI reader": lambda: reader.get_data(reader.read(path))[0].astype(np.float32),
            "MONAI LoadImage": lambda: transform(path),
        },
    )


def write_nifti(source: Path, scratch: Path, kind: str) -> Row:
    """Write a .nii.gz: an array of one of `KINDS` on the grid of a scan."""
    scan = nifti.read(ScanRef("source", "nifti", (source,)), SETTINGS)
    data = made_array(scan, kind)
    ours, affine = scan.geometry, scan.geometry.affine

    def monai() -> None:
        writer = NibabelWriter(output_dtype=data.dtype)
        writer.set_data_array(data, channel_dim=None)
        writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
        writer.write(scratch / "monai.nii.gz")

    return Row(
        f"write NIfTI.gz {kind} {data.shape}",
        {
            "medvae": lambda: nifti.write(scratch / "ours.nii.gz", data, ours, description="benchmark"),
            "nibabel": lambda: nib.save(nib.Nifti1Image(data, affine), scratch / "nibabel.nii.gz"),
            "MONAI": monai,
        },
    )


def made_array(scan: Scan, kind: str) -> np.ndarray[Any, Any]:
    """The array that is written.

    - `float32 map`: noise in the foreground of a 2 mm grid, resampled to the scan's grid by `resample`, as in `detect`.
    - `float32 noise`: noise in every voxel of the foreground, in C order: incompressible, and to be transposed.
    - `int16 image`: the scan itself.
    """
    if kind == "int16 image":
        return scan.data.astype(np.int16)
    noise = np.random.default_rng(0).normal
    if kind == "float32 noise":
        return np.where(scan.data > scan.data.mean(), noise(size=scan.data.shape).astype(np.float32), 0)
    to_grid = np.diag([*(np.array(scan.geometry.spacing) / 2), 1])
    x, y, z = (int(np.ceil(n * step / 2)) for n, step in zip(scan.data.shape, scan.geometry.spacing, strict=True))
    coarse = resample(scan.data, np.linalg.inv(to_grid), (x, y, z))
    found = np.where(coarse > coarse.mean(), noise(size=coarse.shape).astype(np.float32), np.float32(0))
    return resample(found, to_grid, scan.geometry.shape)


def read_dicom(folder: Path) -> Row:
    """Read a DICOM series: medvae finds it, checks the geometry of every slice and reads it; the others only read."""
    monai = PydicomReader()

    def ours() -> Any:
        refs, _ = dicom.find(folder.iterdir(), SETTINGS)
        return dicom.read(refs[0], SETTINGS).data

    return Row(
        f"read DICOM     {folder.name[:30]} {ours().shape}",
        {
            "medvae": ours,
            "pydicom loop": lambda: plain_pydicom(folder),
            "MONAI": lambda: monai.get_data(monai.read(folder))[0].astype(np.float32),
        },
    )


def plain_pydicom(folder: Path) -> np.ndarray[Any, Any]:
    """The usual handwritten loop: read all, sort along the normal, rescale, stack; nothing is checked."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    normal = np.cross(slices[0].ImageOrientationPatient[:3], slices[0].ImageOrientationPatient[3:])
    slices.sort(key=lambda one: float(np.dot(normal, one.ImagePositionPatient)))
    rescaled = [
        one.pixel_array.T * np.float32(one.get("RescaleSlope", 1)) + np.float32(one.get("RescaleIntercept", 0))
        for one in slices
    ]
    return np.stack(rescaled, axis=-1).astype(np.float32)


def find_or_make(data: Path, scratch: Path) -> tuple[list[Path], list[Path]]:
    """Real files if they exist, otherwise generated ones."""
    files = [data / name for name in NIFTI_FILES if (data / name).is_file()]
    series = [data / name for name in DICOM_SERIES if (data / name).is_dir()]
    return files or [make_nifti(scratch)], series or [make_dicom(scratch)]


def made_volume(shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A noisy ball in a background of zeros: compresses about as well as a stripped brain."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    ball = sum(np.square(axis) for axis in axes) < 0.5
    noise = np.random.default_rng(1).normal(600, 100, size=shape)
    return np.where(ball, noise, 0).astype(np.int16)


def make_nifti(folder: Path) -> Path:
    """A file of the size of a 1 mm head."""
    path = folder / "generated-1mm.nii.gz"
    nifti.write(path, made_volume((176, 208, 176)), Geometry((176, 208, 176), np.eye(4)), description="benchmark")
    return path


def make_dicom(folder: Path) -> Path:
    """A CT series of 60 slices, 512x512."""
    target = folder / "generated-ct"
    target.mkdir()
    volume = made_volume((512, 512, 60))
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index in range(volume.shape[2]):
        one = pydicom.Dataset()
        one.SOPClassUID, one.SOPInstanceUID, one.Modality = CTImageStorage, generate_uid(), "CT"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * index]
        one.PixelSpacing, one.Rows, one.Columns, one.InstanceNumber = [0.8, 0.8], 512, 512, index + 1
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = np.ascontiguousarray(volume[:, :, index].T).tobytes()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.save_as(target / f"{index:03d}.dcm", enforce_file_format=True)
    return target


if __name__ == "__main__":
    main()
