"""Compressed pixels: real images in every transfer syntax, and streams that are made or broken by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from dicom_oracle import stack

from medvae.errors import ScanError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def collection(shared_data: Path) -> Path:
    return shared_data / "dicom"


WORST = {"JPEGLSLossy": 1, "JPEG2000Transfer": 5, "Process2_4": 36, "Process1T": 64.5}  # HU
NO_DECODER = {"Process6_8": "1.2.840.10008.1.2.4.53", "Process10_12": "1.2.840.10008.1.2.4.55"}


def test_one_slice_in_fifteen_transfer_syntaxes(collection: Path, tmp_path: Path) -> None:
    """Three copies of the slice make a volume; HU are those of the uncompressed one, as far as the compression lets."""
    files = sorted((collection / "odd" / "one-ct-slice-15-transfer-syntaxes").iterdir())
    plain = stack(files[0], tmp_path / "plain").data
    seen = []
    for number, file in enumerate(files[1:]):
        syntax = next((uid for key, uid in NO_DECODER.items() if key in file.name), None)
        if syntax:
            with pytest.raises(ScanError, match=syntax) as caught:
                stack(file, tmp_path / str(number))
            assert caught.value.code == "undecodable"
            seen.append(syntax)
            continue
        scan = stack(file, tmp_path / str(number))
        error = float(np.abs(scan.data - plain).max())
        allowed = next((worst for key, worst in WORST.items() if key in file.name), 0)
        assert error <= allowed, file.name
        assert error > 0.9 * allowed or allowed == 0, f"{file.name}: {error}"
        assert scan.units == "HU"
        seen.append(str(allowed))
    assert len(seen) == 14
    assert seen.count("0") == 8


@pytest.mark.parametrize("family", ["CT1", "CT2", "MR1", "MR3"])
def test_compressed_sample_images(collection: Path, tmp_path: Path, family: str) -> None:
    """18 of the 20 decode, the lossless ones all alike, the lossy ones nearly; two JPEG streams break the standard."""
    folder = collection / "odd" / "wg04-compressed"
    ends = ("JLSL", "JPLL", "J2KR", "_RLE")
    lossless = {
        file.name: stack(file, tmp_path / file.name).data
        for file in sorted(folder.glob(f"{family}_*"))
        if file.name.endswith(ends)
    }
    assert lossless
    first = next(iter(lossless.values()))
    for name, data in lossless.items():
        assert np.array_equal(data, first), name
    for file in sorted(folder.glob(f"{family}_*")):
        if file.name in lossless:
            continue
        if file.name.endswith("JPLY"):
            with pytest.raises(ScanError, match=r"1\.2\.840\.10008\.1\.2\.4\.51") as caught:
                stack(file, tmp_path / file.name)
            assert caught.value.code == "undecodable"
            continue
        difference = np.abs(stack(file, tmp_path / file.name).data - first)
        assert 0 < difference.mean() < 0.03 * (first.max() - first.min()), file.name


def test_signed_jpeg2000_whose_header_disagrees(collection: Path, tmp_path: Path) -> None:
    scan = stack(collection / "odd" / "encoding-and-headers" / "J2K_pixelrep_mismatch.dcm", tmp_path)
    assert (scan.data.min(), scan.data.max()) == (-2000, 1896)


def test_overlay_bits_and_byte_order(collection: Path, tmp_path: Path) -> None:
    folder = collection / "odd" / "encoding-and-headers"
    plain = stack(folder / "MR_small.dcm", tmp_path / "plain").data
    for name in ("MR_small_bigendian.dcm", "MR_small_padded.dcm"):
        assert np.array_equal(stack(folder / name, tmp_path / name).data, plain)
    theirs = pydicom.dcmread(folder / "examples_overlay.dcm").pixel_array
    assert np.array_equal(stack(folder / "examples_overlay.dcm", tmp_path / "overlay").data[:, :, 1].T, theirs)
