"""Every odd NIfTI file of the shared collection reads as nibabel and SimpleITK read it, or ends with its code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from nifti_oracle import by_nibabel, by_sitk, ref

from medvae.errors import ScanError
from medvae.io.reading import inspect, read
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Reads:
    """What reading gives; `nibabel` and `sitk` say which oracle can read the file at all."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    values: tuple[float, float]
    settings: dict[str, Any] = field(default_factory=dict)
    nibabel: bool = True
    sitk: bool = True


MNI2 = Reads((91, 109, 91), (2, 2, 2), (0, 255))
AIR = Reads((79, 67, 64), (2.38985, 2.36649, 2.38519), (0, 92.55389))
CUBE = Reads((3, 3, 3), (1, 1, 1), (0, 26))
ZSTAT = Reads((64, 64, 21), (4, 4, 6), (-8.710751, 18.58253))

EXPECTED: dict[str, Reads | str] = {
    "nibabel/analyze.hdr": "unpaired",
    "nibabel/anatomical.nii": Reads((33, 41, 25), (2, 2, 2), (-610, 30393)),
    "nibabel/example4d.nii.gz": "not_3d",
    "nibabel/example_nifti2.nii.gz": "not_3d",
    "nibabel/functional.nii": "not_3d",
    "nibabel/nifti1.hdr": "unpaired",
    "nibabel/nifti2.hdr": "unpaired",
    "nibabel/reoriented_anat_moved.nii": Reads((21, 26, 22), (4, 4, 4), (0, 21199.936)),
    "nibabel/resampled_anat_moved.nii": "non_finite",
    "nibabel/row_major.dconn.nii": "unsupported_type",
    "nibabel/standard.nii.gz": Reads((4, 5, 7), (1, 3, 2), (0, 255)),
    "nibabel/test.mgz": "not_a_scan",
    "nifti-reader-js/5D_small.nii": "not_3d",
    "nifti-reader-js/5D_zeros.nii.gz": "not_3d",
    "nifti-reader-js/air.hdr.gz": AIR,
    "nifti-reader-js/air.img.gz": AIR,
    "nifti-reader-js/air2.hdr.gz": replace(AIR, sitk=False),
    "nifti-reader-js/air2.img.gz": replace(AIR, sitk=False),
    "nifti-reader-js/avg152T1_LR_nifti.nii.gz": MNI2,
    "nifti-reader-js/avg152T1_LR_nifti2.nii.gz": replace(MNI2, sitk=False),  # SimpleITK reads no NIfTI-2
    "nifti-reader-js/big.nii.gz": ZSTAT,
    "nifti-reader-js/little.nii.gz": ZSTAT,
    "nifti-reader-js/not-nifti.nii": "not_a_scan",
    "nifti-reader-js/with_extension.nii.gz": Reads((161, 191, 151), (1, 1, 1), (0, 1)),
    **{f"nifti-rs/27/{kind}{bits}.nii": CUBE for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "nifti-rs/27/float32.nii": CUBE,
    "nifti-rs/27/float64.nii": CUBE,
    "nifti-rs/avg152T1_LR_nifti.hdr.gz": "unpaired",
    "nifti-rs/avg152T1_LR_nifti.nii.gz": MNI2,
    "nifti-rs/complex/complex32.nii": "unsupported_type",
    "nifti-rs/complex/complex64.nii": "unsupported_type",
    "nifti-rs/f32.nii.gz": Reads((11, 11, 11), (1, 1, 1), (0, 1)),
    "nifti-rs/fuzz_artifacts/crash-08123ef33416bd6f0c5fa63d44b681b8581d62a0": "not_a_scan",
    "nifti-rs/fuzz_artifacts/crash-1.nii": "not_a_scan",
    "nifti-rs/fuzz_artifacts/crash-98aa054390f8d3f932f190dc22ef62c6ff2d6619": "not_a_scan",
    "nifti-rs/fuzz_artifacts/crash-d03c6346fe83a026738f6b8cd2a9335a3f8cb158": "not_a_scan",
    "nifti-rs/fuzz_artifacts/crash-ed7d46344d7efb3b9f0c374d66d2e02f66cc447d.nii": "not_a_scan",
    **{f"nifti-rs/minimal.{end}": "no_orientation" for end in ("hdr", "img", "nii", "hdr.gz", "img.gz", "nii.gz")},
    "nifti-rs/minimal2.hdr": "no_orientation",
    "nifti-rs/minimal2.img.gz": "no_orientation",
    "nifti-rs/minimal_extended_hdr.nii": "not_3d",
    "nifti-rs/rgb/3D.nii": "unsupported_type",
    "nifti-rs/rgb/4D.nii": "unsupported_type",
    "nifti-rs/rgba/4D.nii": "unsupported_type",
    "nifti-rs/zstat1.nii.gz": ZSTAT,
    "nitest-balls1/T1.nii.gz": Reads((80, 80, 10), (1.91176, 1.91176, 10), (0, 2477.784)),
    "nitest-balls1/T2-interleaved.nii.gz": Reads((80, 80, 10), (1.91176, 1.91176, 12.33), (0, 34346)),
    "nitest-balls1/T2.nii.gz": Reads((80, 80, 10), (1.91176, 1.91176, 12.33), (0, 47753)),
    "nitest-balls1/T2_-interleaved.nii.gz": "not_3d",
    "nitest-balls1/T2_.nii.gz": "not_3d",
    "nitest-balls1/fieldmap.nii.gz": Reads((80, 80, 10), (1.91176, 1.91176, 12.33), (-500, 496.337)),
    "rnifti/example.nii.gz": Reads((96, 96, 60), (2.5, 2.5, 2.5), (0, 2503)),
    "rnifti/example_4d.nii.gz": "not_3d",
    "rnifti/example_rgb.nii.gz": "unsupported_type",
}

LAS = {"assume_orientation": "LAS"}  # what nibabel falls back to; SimpleITK takes LPS and another origin
MINIMAL = Reads((64, 64, 10), (3, 3, 3), (0, 63), LAS, sitk=False)
FUNCTIONAL = Reads((17, 21, 3), (4, 4, 8), (829.73, 5541.082), {"volume": 19})
EXAMPLE_4D = Reads((128, 96, 24), (2, 2, 2.19999), (0, 1140), {"volume": 1})
NIFTI2_4D = Reads((32, 20, 12), (2, 2, 2.19999), (46, 757), {"volume": 1}, sitk=False)
FILLED = Reads((17, 21, 3), (4, 4, 8), (409.30045, 13360.962), {"fill_non_finite": True}, nibabel=False, sitk=False)
BALLS = (1.91176, 1.91176, 12.33)

# The same files again, with the setting that their refusal hints at. SimpleITK crashes on 5D files.
WITH_SETTINGS: list[tuple[str, Reads | tuple[str, dict[str, Any]]]] = [
    ("nibabel/example4d.nii.gz", EXAMPLE_4D),
    ("nibabel/example_nifti2.nii.gz", NIFTI2_4D),
    ("nibabel/functional.nii", FUNCTIONAL),
    ("nibabel/functional.nii", ("not_3d", {"volume": 20})),
    ("nibabel/resampled_anat_moved.nii", FILLED),
    ("nifti-reader-js/5D_small.nii", ("not_3d", {"volume": 2})),  # 1x2x3 is flat
    ("nifti-reader-js/5D_zeros.nii.gz", ("blank", {"volume": 2})),
    ("nifti-rs/minimal.nii", MINIMAL),
    ("nifti-rs/minimal.nii.gz", MINIMAL),
    ("nifti-rs/minimal.hdr", MINIMAL),
    ("nifti-rs/minimal.img", MINIMAL),
    ("nifti-rs/minimal.hdr.gz", MINIMAL),
    ("nifti-rs/minimal.img.gz", MINIMAL),
    ("nifti-rs/minimal2.hdr", replace(MINIMAL, nibabel=False)),  # nibabel does not find .hdr with .img.gz
    ("nifti-rs/minimal2.img.gz", replace(MINIMAL, nibabel=False)),
    ("nitest-balls1/T2_-interleaved.nii.gz", Reads((80, 80, 10), BALLS, (0, 17508.662), {"volume": 1})),
    ("nitest-balls1/T2_.nii.gz", Reads((80, 80, 10), BALLS, (0, 22594.945), {"volume": 0})),
    ("rnifti/example_4d.nii.gz", Reads((96, 96, 60), (2.5, 2.5, 2.5), (0, 3), {"volume": 2})),
]


def ends_with(path: Path, code: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ScanError) as caught:
        read(ref(path), ReadSettings(**settings))
    assert caught.value.code == code
    assert caught.value.hint


def reads(path: Path, expected: Reads) -> None:
    settings = ReadSettings(**expected.settings)
    scan = read(ref(path), settings)
    assert scan.data.dtype == np.float32
    assert scan.geometry.shape == scan.data.shape == expected.shape
    np.testing.assert_allclose(scan.geometry.spacing, expected.spacing, atol=1e-4)
    np.testing.assert_allclose((scan.data.min(), scan.data.max()), expected.values, rtol=1e-6)
    assert inspect(ref(path), settings).geometry == scan.geometry
    for able, oracle in ((expected.nibabel, by_nibabel), (expected.sitk, by_sitk)):
        if able:
            seen = oracle(path, settings.volume or 0)
            assert scan.geometry.distance_to(seen.geometry) < 1e-3
            np.testing.assert_allclose(scan.data, seen.data, rtol=1e-5, atol=1e-5)


def test_no_file_is_left_out(shared_data: Path) -> None:
    folder = shared_data / "nifti-odd"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_file(shared_data: Path, name: str) -> None:
    expected = EXPECTED[name]
    path = shared_data / "nifti-odd" / name
    if isinstance(expected, str):
        ends_with(path, expected, {})
    else:
        reads(path, expected)


@pytest.mark.parametrize(("name", "expected"), WITH_SETTINGS)
def test_file_with_a_setting(shared_data: Path, name: str, expected: Reads | tuple[str, dict[str, Any]]) -> None:
    path = shared_data / "nifti-odd" / name
    if isinstance(expected, tuple):
        ends_with(path, *expected)
    else:
        reads(path, expected)


def test_filled_voxels_are_marked(shared_data: Path) -> None:
    path = shared_data / "nifti-odd" / "nibabel" / "resampled_anat_moved.nii"
    scan = read(ref(path), ReadSettings(fill_non_finite=True))
    stored = by_nibabel(path)
    assert scan.valid is not None
    np.testing.assert_array_equal(scan.valid, np.isfinite(stored.data))
    np.testing.assert_allclose(scan.data[scan.valid], stored.data[scan.valid], rtol=1e-6)
    assert scan.geometry.distance_to(stored.geometry) < 1e-3
