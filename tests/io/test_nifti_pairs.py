"""Pairs of header and image: whatever the capitals, each is one scan with the right voxels."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from nifti_oracle import header_of, ramp, voxels_of

from medvae.io import discover, reading
from medvae.io.formats import nifti
from medvae.io.nifti.pairs import half_of, pair_of
from medvae.scan import Geometry, ScanRef
from medvae.settings import ReadSettings

SETTINGS = ReadSettings()


def put_pair(folder: Path, header: str, image: str, *, add: int = 0) -> None:
    data = ramp() + add
    for name, raw in (
        (header, bytes(header_of(data, magic=b"ni1", vox_offset=0).binaryblock)),
        (image, voxels_of(data)),
    ):
        (folder / name).write_bytes(gzip.compress(raw) if name.lower().endswith(".gz") else raw)


def found(folder: Path) -> list[ScanRef]:
    return discover.scans_of(sorted(folder.iterdir()), SETTINGS)[0]


@pytest.mark.parametrize(
    ("header", "image"),
    [
        ("S0.HDR", "S0.IMG"),
        ("S0.HDR", "S0.img"),
        ("S0.hdr", "S0.IMG"),
        ("S0.Hdr", "S0.Img"),
        ("S0.HDR", "s0.img"),
        ("S0.HDR.GZ", "S0.IMG.GZ"),
        ("S0.hdr.gz", "S0.img.gz"),
        ("S0.HDR", "S0.IMG.gz"),
        ("s.0.Hdr.Gz", "s.0.IMG"),
    ],
)
def test_a_pair_in_any_capitals_is_one_scan(tmp_path: Path, header: str, image: str) -> None:
    put_pair(tmp_path, header, image)
    (ref,) = found(tmp_path)
    assert [path.name for path in ref.paths] == [header, image]
    for path in ref.paths:  # either half may be named
        np.testing.assert_array_equal(reading.read(ScanRef("s", "nifti", (path,)), SETTINGS).data, ramp())


def test_many_pairs_are_many_scans(tmp_path: Path) -> None:
    for number in range(3):
        put_pair(tmp_path, f"S{number}.HDR", f"S{number}.IMG", add=number)
    refs = found(tmp_path)
    assert [ref.path.name for ref in refs] == ["S0.HDR", "S1.HDR", "S2.HDR"]
    assert [reading.read(ref, SETTINGS).data.min() for ref in refs] == [0, 1, 2]


def test_names_that_differ_in_capitals_only_are_never_mixed(tmp_path: Path) -> None:
    put_pair(tmp_path, "a.hdr", "a.img", add=5)
    put_pair(tmp_path, "A.HDR", "A.IMG", add=7)
    if len(list(tmp_path.iterdir())) < 4:
        pytest.skip("a disk that knows no capitals")
    assert {ref.path.name: reading.read(ref, SETTINGS).data.min() for ref in found(tmp_path)} == {
        "a.hdr": 5,
        "A.HDR": 7,
    }
    (tmp_path / "A.IMG").unlink()
    assert pair_of(tmp_path / "A.HDR") == (tmp_path / "A.HDR",), "a.img is the half of a.hdr"
    assert pair_of(tmp_path / "a.img") == (tmp_path / "a.hdr", tmp_path / "a.img")


def test_a_half_in_a_folder_that_is_not_there() -> None:
    assert pair_of(Path("no/such/a.hdr")) == (Path("no/such/a.hdr"),)
    assert [half_of(Path(name)) for name in ("a.hdr", "a.IMG.gz", "a.nii", "hdr")] == ["hdr", "img", None, None]


def test_single_files_in_capitals(tmp_path: Path) -> None:
    for name in ("A.NII", "B.NII.GZ", "C.Nii.gz"):
        nifti.write(tmp_path / name, ramp(), Geometry((4, 5, 6), np.eye(4)), description="")
    assert (tmp_path / "B.NII.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert len(found(tmp_path)) == 3
