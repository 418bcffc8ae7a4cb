"""What SimpleITK and dcm2niix make of DICOM files, and the comparison with ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from medvae.io import reading
from medvae.io.formats import dicom
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from medvae.scan import Scan


def stack(file: Path, folder: Path) -> Scan:
    """One image three times, 2 mm apart along its normal, read as a series; its pixels stay as they are encoded."""
    folder.mkdir(exist_ok=True)
    image = pydicom.dcmread(file)
    normal = np.cross(image.ImageOrientationPatient[:3], image.ImageOrientationPatient[3:])
    start = np.array(image.ImagePositionPatient, float)
    for number in range(3):
        image.ImagePositionPatient = [f"{x:.6f}" for x in start + 2 * number * normal]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    refs, _ = dicom.find(folder.iterdir(), ReadSettings())
    scan = reading.read(refs[0], ReadSettings())
    assert scan.geometry.spacing[2] == pytest.approx(2, abs=1e-4)
    return scan


def by_itk(paths: tuple[Path, ...]) -> nib.Nifti1Image:
    """What SimpleITK reads, in RAS+."""
    if len(paths) == 1:
        image = sitk.ReadImage(str(paths[0]))
    else:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent))
        assert len(names) == len(paths)
        image = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return nib.Nifti1Image(sitk.GetArrayFromImage(image).T.astype(np.float64), affine)


def by_dcm2niix(paths: tuple[Path, ...], folder: Path) -> list[nib.Nifti1Image]:
    """What dcm2niix makes of the files, in the order of its names; the volumes of a 4D image one by one."""
    program = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
    if program is None:
        pytest.skip("needs dcm2niix, of the extra dev")
    source, target = folder / "in", folder / "out"
    for made in (source, target):
        made.mkdir(parents=True)
    for path in paths:
        (source / path.name).symlink_to(path.resolve())
    command = [program, "-p", "n", "-b", "n", "-z", "n", "-f", "%s_%d", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    images = [nib.load(file) for file in sorted(target.glob("*.nii"))]
    return [volume for image in images for volume in (nib.four_to_three(image) if image.ndim == 4 else [image])]


def assert_same(scan: Scan, theirs: nib.Nifti1Image) -> None:
    """Same voxels at the same places of the world, whatever the order of axes."""
    ours = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(scan.data, np.float64), scan.geometry.affine))
    theirs = nib.as_closest_canonical(theirs)
    assert ours.shape == theirs.shape
    there = replace(scan.geometry, shape=ours.shape, affine=theirs.affine)
    here = replace(scan.geometry, shape=ours.shape, affine=ours.affine)
    assert here.distance_to(there) < 0.1  # mm, at the corners
    np.testing.assert_allclose(ours.get_fdata(), theirs.get_fdata(), rtol=1e-5, atol=1e-4)
