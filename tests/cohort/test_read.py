"""One scan, whatever it is given as: the same values at the same place as from its file, or a clear refusal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_made import put, ramp, slices
from monai.data.meta_tensor import MetaTensor
from monai.transforms.io.array import LoadImage
from monai.transforms.spatial.array import Flip

from medvae.cohort.find import find
from medvae.cohort.read import read
from medvae.errors import InputError, ScanError
from medvae.io.formats import nifti
from medvae.scan import Geometry, Scan, scan_hash
from medvae.settings import ReadSettings, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OBLIQUE = np.array([[-2.0, 0.1, 0, 5], [0.1, 1.97, -0.35, 6], [0, 0.35, 1.97, 7], [0, 0, 0, 1]])
DATA = np.random.default_rng(0).integers(-50, 1000, (6, 7, 8)).astype(np.int16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A NIfTI file of `DATA`, oblique."""
    nifti.write(tmp_path / "a.nii.gz", DATA, Geometry(DATA.shape, OBLIQUE), description="noise")
    return tmp_path / "a.nii.gz"


def same(one: Scan, other: Scan) -> bool:
    """The same scan, to the byte."""
    return scan_hash(one) == scan_hash(other) and one.data.flags.f_contiguous == other.data.flags.f_contiguous


def refusal(what: Any, kind: type[Exception] = InputError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        read(what, **more)
    assert getattr(caught.value, "hint", "")
    return f"{getattr(caught.value, 'code', '')}: {caught.value}"


# ------------------------------------------------------------------------------------------------------------ files


def test_a_path_a_folder_a_ref_a_cohort_and_a_scan(path: Path) -> None:
    scan = read(path)
    assert np.array_equal(scan.data, DATA)
    (path.parent / "bad.nii").write_bytes(b"no scan")
    for what in (str(path), str(path.parent), find(path), find(path)[0]):
        assert same(read(what), scan)
    assert read(scan) is scan
    nifti.write(path.with_name("b.nii.gz"), DATA, Geometry(DATA.shape, np.eye(4)), description="noise")
    assert "3 scans, 2 of them usable" in refusal(path.parent)
    assert "affine= belongs to an array, a Scan has its own" in refusal(scan, affine=np.eye(4))


def test_modality_and_settings_may_be_stated(path: Path, tmp_path: Path) -> None:
    scan = read(path, modality="ct")
    assert (scan.modality, scan.units) == ("CT", "HU")
    assert read(find(path)[0], modality="MRI").modality == "MR"
    assert read(path, load(overrides=("read.modality=PT",))).modality == "PT"
    put(tmp_path / "series", slices(ramp()))
    assert read(tmp_path / "series", modality="PT").modality == "CT", "DICOM knows better"
    assert "modality 'XR' is not one of CT, MR, PT, SHAPE" in refusal(path, modality="XR")


# ----------------------------------------------------------------------------------------------------------- arrays

ARRAYS: dict[str, Callable[[], Any]] = {
    "int16": lambda: DATA,
    "float64": lambda: DATA.astype(np.float64),
    "Fortran order": lambda: np.asfortranarray(DATA),
    "a channel in front": lambda: DATA[None],
    "a channel behind": lambda: DATA[..., None],
    "a tensor": lambda: torch.from_numpy(DATA),
    "a tensor with a channel": lambda: torch.from_numpy(DATA[None]).double(),
    "a tensor with a gradient": lambda: torch.from_numpy(DATA[None]).float().requires_grad_(),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_an_array_with_its_affine(path: Path, make: Callable[[], Any]) -> None:
    assert same(read(make(), affine=OBLIQUE), read(path))


def test_an_array_is_copied() -> None:
    data = DATA.astype(np.float32)
    scan = read(data, affine=OBLIQUE, modality="MR")
    data[:] = 0
    assert np.array_equal(scan.data, DATA)
    assert (scan.modality, scan.units) == ("MR", "a.u.")


def test_an_array_that_cannot_be_used() -> None:
    assert "an array does not say where its voxels lie" in refusal(DATA)
    assert "a tensor does not say where its voxels lie" in refusal(torch.from_numpy(DATA))
    assert "an affine is 4x4, got 3x3" in refusal(DATA, affine=np.eye(3))
    assert "the last row" in refusal(DATA, ScanError, affine=OBLIQUE.T), "its translation would be lost"
    assert "several channels, not one image" in refusal(np.stack([DATA] * 2), affine=OBLIQUE)
    for data, way in ((np.stack([DATA] * 2, axis=-1), "image[..., 0]"), (np.stack([DATA] * 2), "image[:1]")):
        with pytest.raises(InputError) as caught:
            read(data, ReadSettings(volume=0), affine=OBLIQUE)
        assert (caught.value.hint or "").endswith(f"e.g. {way}")
        assert np.array_equal(read(eval(way, {"image": data}), affine=OBLIQUE).data, DATA), "the hint works"
    for data, affine in ((DATA[0], OBLIQUE), (DATA, np.zeros((4, 4)))):
        with pytest.raises(ScanError) as refused:
            read(data, affine=affine)
        assert (refused.value.hint or "").startswith("pass "), "no hint for the header of a file"
    assert "a batch, not one image" in refusal(DATA[None, None], affine=OBLIQUE)
    assert "a dict is not a scan" in refusal({})
    for data, affine, code in (
        (DATA, np.zeros((4, 4)), "bad_affine"),
        (DATA, np.full((4, 4), np.nan), "bad_affine"),
        (np.zeros((4, 4, 4)), OBLIQUE, "blank"),
        (DATA[0], OBLIQUE, "not_3d"),
        (DATA[:1, :], OBLIQUE, "not_3d"),
        (DATA.astype(complex), OBLIQUE, "unsupported_type"),
        (torch.zeros(3, 4, 5, dtype=torch.complex64), OBLIQUE, "unsupported_type"),
    ):
        assert refusal(data, ScanError, affine=affine).startswith(code)


def test_values_that_are_not_finite_are_treated_as_in_a_file() -> None:
    data = DATA.astype(np.float32)
    data[1, 2, 3] = np.nan
    assert refusal(data, ScanError, affine=OBLIQUE).startswith("non_finite")
    scan = read(data, ReadSettings(fill_non_finite=True), affine=OBLIQUE)
    assert scan.valid is not None
    assert not scan.valid[1, 2, 3]
    assert scan.warnings


# ---------------------------------------------------------------------------------------------------- MONAI, TorchIO


MONAI = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # it tells of a codec that we do not use


@MONAI
@pytest.mark.parametrize("channel", [False, True])
def test_what_monai_loads(path: Path, channel: bool) -> None:
    image = LoadImage(image_only=True, ensure_channel_first=channel)(path)
    assert same(read(image), read(path))
    turned = Flip(spatial_axis=1)(image if channel else image[None])
    assert not np.array_equal(read(turned).data, read(path).data)
    assert scan_hash(read(turned)) == scan_hash(read(path))
    there, here = (np.sort(read(one).geometry.corners(), axis=0) for one in (turned, path))
    assert np.allclose(there, here, atol=1e-4), "it lies where it lay"


def test_a_metatensor_on_lps_coordinates(path: Path) -> None:
    lps = np.diag([-1.0, -1, 1, 1]) @ read(path).geometry.affine  # as ITKReader(affine_lps_to_ras=False) gives it
    for space in ("LPS", "left-posterior-superior"):
        image = MetaTensor(torch.from_numpy(DATA[None].astype(np.float32)), affine=torch.from_numpy(lps))
        image.meta["space"] = space
        assert same(read(image), read(path))
    image.meta["space"] = "scanner-xyz"
    assert "SCANNER-XYZ" in refusal(image)


@MONAI
def test_a_metatensor_that_is_no_single_image(path: Path) -> None:
    image = LoadImage(image_only=True, ensure_channel_first=True)(path)
    assert "has an affine of its own" in refusal(image, affine=OBLIQUE)
    assert "a batch" in refusal(image[None])
    assert "several channels" in refusal(torch.cat([image, image]))
    lazy = Flip(spatial_axis=1, lazy=True)(image)
    assert "lazy transforms that were not applied" in refusal(lazy)


def test_an_image_that_has_data_and_an_affine(path: Path) -> None:
    image = SimpleNamespace(data=torch.from_numpy(DATA[None]), affine=read(path).geometry.affine)  # as of TorchIO
    assert same(read(image), read(path))


# --------------------------------------------------------------------------------------------------------- nibabel


def test_what_nibabel_loads(path: Path) -> None:
    assert same(read(nib.load(path)), read(path))
    assert same(read(nib.Nifti1Image(DATA, read(path).geometry.affine)), read(path))


def test_a_scaled_file_is_the_same_scan_through_nibabel(tmp_path: Path) -> None:
    image = nib.Nifti1Image((DATA * 0.37 + 0.1).astype(np.float32), OBLIQUE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii")
    assert same(read(nib.load(tmp_path / "scaled.nii")), read(tmp_path / "scaled.nii"))


def test_the_header_of_nibabel_is_read_by_the_rules_for_files(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, np.diag([1000.0, 2000, 3000, 1]))
    image.header.set_xyzt_units("micron")
    assert np.allclose(read(image).geometry.spacing, (1, 2, 3))
    nameless = nib.Nifti1Image(DATA, None)
    assert refusal(nameless, ScanError).startswith("no_orientation")
    assert read(nameless, ReadSettings(assume_orientation="RAS")).data.shape == DATA.shape
    with pytest.raises(ScanError) as caught:
        read(nib.AnalyzeImage(DATA, OBLIQUE), ReadSettings(assume_orientation="RAS"))
    assert (caught.value.code, "assume_orientation" in (caught.value.hint or "")) == ("no_orientation", False)
    mgh = nib.MGHImage(DATA.astype(np.float32), OBLIQUE.astype(np.float32))
    assert np.allclose(read(mgh).geometry.affine, OBLIQUE, atol=1e-4)
    moved = nib.Nifti1Image(DATA, OBLIQUE)
    moved.affine[0, 3] += 7
    assert read(moved).geometry.affine[0, 3] == pytest.approx(OBLIQUE[0, 3] + 7)


def test_a_volume_of_a_4d_image_is_chosen(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.stack([DATA, DATA + 1], axis=-1), OBLIQUE)
    nib.save(image, tmp_path / "4d.nii")
    assert refusal(image, ScanError).startswith("not_3d")
    with pytest.raises(ScanError) as caught:
        read(image)
    assert caught.value.hint == "pass one of its 2 volumes, e.g. image.slicer[..., 0], or set read.volume=0"
    assert same(read(image.slicer[..., 0]), read(image, ReadSettings(volume=0)))
    for volume in (0, 1):
        settings = ReadSettings(volume=volume)
        assert same(read(image, settings), read(tmp_path / "4d.nii", settings))
    assert refusal(image, ScanError, settings=ReadSettings(volume=2)).startswith("not_3d")
    assert np.array_equal(read(nib.Nifti1Image(DATA[..., None], OBLIQUE)).data, DATA)
