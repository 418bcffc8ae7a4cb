"""The NIfTI reader on files made to be right in unusual ways, or wrong; and what the writer writes."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nifti_oracle import AFFINE, by_nibabel, header_of, put, ramp, raw_file, ref, voxels_of

from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.formats import nifti
from medvae.settings import ReadSettings

SETTINGS = ReadSettings()


def code_of(path: Path, **settings: object) -> ScanError:
    """The error of reading; the header alone must agree, or see nothing wrong."""
    with pytest.raises(ScanError) as caught:
        reading.read(ref(path), ReadSettings(**settings))
    assert inspected(path, **settings) in (None, caught.value.code)
    return caught.value


def inspected(path: Path, **settings: object) -> str | None:
    """The code that the header alone ends with."""
    try:
        reading.inspect(ref(path), ReadSettings(**settings))
    except ScanError as problem:
        return problem.code
    return None


def read(path: Path, **settings: object) -> np.ndarray:
    return reading.read(ref(path), ReadSettings(**settings)).data


# ------------------------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_scalar_type_and_byte_order(tmp_path: Path, name: str, order: str, version: int, dtype: str) -> None:
    data = ramp(dtype=dtype)
    if data.dtype.kind != "u":
        data -= 40
    path = put(tmp_path / name, data, version=version, order=order)
    scan = reading.read(ref(path), SETTINGS)
    np.testing.assert_array_equal(scan.data, data)
    assert scan.data.dtype == np.float32
    assert scan.data.flags.f_contiguous
    assert scan.geometry.distance_to(by_nibabel(path).geometry) < 1e-9
    info = reading.inspect(ref(path), SETTINGS)
    assert info.geometry == scan.geometry
    assert np.dtype(info.dtype) == np.dtype(dtype).newbyteorder(order)
    assert info.nbytes == scan.data.nbytes


@pytest.mark.parametrize("named", ["hdr", "img"])
@pytest.mark.parametrize(
    "ends", [(".hdr", ".img"), (".hdr.gz", ".img"), (".hdr", ".img.gz"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")]
)
def test_pairs(tmp_path: Path, named: str, ends: tuple[str, str]) -> None:
    data = ramp()
    halves = (bytes(header_of(data, magic=b"ni1", vox_offset=16).binaryblock), b"*" * 16 + voxels_of(data))
    for end, raw in zip(ends, halves, strict=True):
        (tmp_path / f"a{end}").write_bytes(gzip.compress(raw) if end.endswith(".gz") else raw)
    np.testing.assert_array_equal(read(tmp_path / f"a{ends[0] if named == 'hdr' else ends[1]}"), data)


def test_the_named_half_is_the_one_that_is_read(tmp_path: Path) -> None:
    for offset, end in ((0, ""), (7, ".gz")):
        data = ramp() + offset
        header = bytes(header_of(data, magic=b"ni1", vox_offset=0).binaryblock)
        pack = gzip.compress if end else bytes
        (tmp_path / f"a.hdr{end}").write_bytes(pack(header))
        (tmp_path / f"a.img{end}").write_bytes(pack(voxels_of(data)))
    for half in ("hdr", "img"):
        assert read(tmp_path / f"a.{half}").min() == 0
        assert read(tmp_path / f"a.{half}.gz").min() == 7


def test_a_plain_file_called_gz_and_a_gzip_called_nii(tmp_path: Path) -> None:
    raw = raw_file(ramp())
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(raw))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read(path), ramp())


@pytest.mark.parametrize("cut", [1, 100, 347, 352, 400])
def test_gzip_of_several_members(tmp_path: Path, cut: int) -> None:
    raw = raw_file(ramp())
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw[:cut]) + gzip.compress(b"") + gzip.compress(raw[cut:]))
    np.testing.assert_array_equal(read(path), ramp())


def test_the_modality_of_a_list_gives_the_unit(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp())
    assert reading.read(ref(path), SETTINGS).units == "a.u."
    assert reading.read(ref(path, modality="CT"), ReadSettings(modality="MR")).units == "HU"
    assert reading.inspect(ref(path), ReadSettings(modality="SHAPE")).units == "binary"


# -------------------------------------------------------------------------------------------------- damaged files


def test_truncated_gzip_at_every_length(tmp_path: Path) -> None:
    whole = gzip.compress(raw_file(np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)))
    path = tmp_path / "a.nii.gz"
    for length in (3, 9, 12, 60, len(whole) - 40, len(whole) - 9, len(whole) - 8, len(whole) - 4, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert code_of(path).code == "truncated", length
    path.write_bytes(b"")
    assert code_of(path).code == "truncated"


@pytest.mark.parametrize("length", [4, 347, 352, 352 + 239])
def test_truncated_plain_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(raw_file(ramp())[:length])
    assert code_of(path).code == "truncated"


def test_wrong_crc_wrong_length_and_broken_stream(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(raw_file(np.random.default_rng(0).normal(size=(9, 9, 9)).astype("f4"))))
    for at in (-8, -4, len(whole) // 2):  # CRC, length, a byte of the stream
        broken = whole.copy()
        broken[at] ^= 0xFF
        path = tmp_path / "a.nii.gz"
        path.write_bytes(broken)
        assert code_of(path).code == "corrupt", at
    path.write_bytes(whole[:3] + b"\xff" * 200)  # flags and stream are nonsense from the start
    assert code_of(path).code in ("corrupt", "truncated")


def test_damage_far_behind_the_header(tmp_path: Path) -> None:
    """The header alone is fine; reading notices."""
    whole = gzip.compress(raw_file(np.random.default_rng(0).normal(size=(64, 64, 48)).astype("f4")), 1)
    path = tmp_path / "a.nii.gz"
    for content, code in (
        (whole[: len(whole) // 2], "truncated"),
        (whole[:-1], "truncated"),
        (whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:], "corrupt"),
    ):
        path.write_bytes(content)
        assert inspected(path) is None
        assert code_of(path).code == code


def test_garbage_after_the_gzip_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw_file(ramp())) + b"\0" * 512)  # padding of a tape block is legal
    np.testing.assert_array_equal(read(path), ramp())
    path.write_bytes(gzip.compress(raw_file(ramp())) + b"garbage")
    assert code_of(path).code in ("corrupt", "truncated")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_small_file_that_claims_the_world_costs_nothing(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name, ramp((4, 4, 4)), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    assert path.stat().st_size < 500
    tracemalloc.start()
    start = time.perf_counter()
    assert code_of(path).code == "too_large"
    assert code_of(path, max_gib=1e9).code == "truncated"
    assert time.perf_counter() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_dims_that_overflow_64_bits(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp(), version=2, dim=[4, 2**31, 2**31, 2**31, 2**31, 1, 1, 1])
    assert code_of(path, volume=3).code == "too_large"


def test_a_gzip_that_inflates_far_past_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    path.write_bytes(
        packer.compress(raw_file(ramp())) + b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    )
    tracemalloc.start()
    assert code_of(path).code == "malformed"
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


def test_a_plain_file_far_longer_than_its_header_says(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp())
    with open(path, "ab") as file:
        file.write(bytes(1000))
    np.testing.assert_array_equal(read(path), ramp())
    with open(path, "ab") as file:
        file.write(bytes(2 << 20))
    assert code_of(path).code == "malformed"


# ---------------------------------------------------------------------------------------------------- wrong headers


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"datatype": 32}, "unsupported_type", "complex"),
        ({"datatype": 1792}, "unsupported_type", "complex"),
        ({"datatype": 128}, "unsupported_type", "RGB"),
        ({"datatype": 2304}, "unsupported_type", "RGBA"),
        ({"datatype": 1536}, "unsupported_type", "128-bit"),
        ({"datatype": 1}, "unsupported_type", "1-bit"),
        ({"datatype": 77}, "unsupported_type", "77"),
        ({"datatype": 0}, "unsupported_type", "0"),
        ({"intent_code": 3001}, "unsupported_type", "CIFTI"),
        ({"magic": b""}, "unsupported_type", "Analyze"),
        ({"magic": b"ni1"}, "unpaired", "second file"),
        ({"dim": [0, 4, 5, 6, 1, 1, 1, 1]}, "malformed", "0 dimensions"),
        ({"dim": [8, 4, 5, 6, 1, 1, 1, 1]}, "malformed", "8 dimensions"),
        ({"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "malformed", "4x-5x6"),
        ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "malformed", "4x0x6"),
        ({"dim": [2, 4, 5, 6, 1, 1, 1, 1]}, "not_3d", "2D"),
        ({"dim": [3, 120, 1, 1, 1, 1, 1, 1]}, "not_3d", "flat"),
        ({"dim": [4, 4, 5, 3, 2, 1, 1, 1]}, "not_3d", "4x5x3x2"),
        ({"vox_offset": -5}, "malformed", "vox_offset"),
        ({"vox_offset": np.nan}, "malformed", "vox_offset"),
        ({"vox_offset": 1e30}, "truncated", "cannot hold"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "malformed", "scl_inter"),
        ({"sform_code": 0}, "no_orientation", "neither"),
        ({"srow_x": [0, 0, 0, 0]}, "bad_affine", "singular"),
        ({"srow_x": [0, 0, 3, 0]}, "bad_affine", "singular"),  # the same direction twice
        ({"srow_x": [np.nan, 0, 0, 0]}, "bad_affine", "finite"),
        ({"srow_x": [1, 0, 0, np.inf]}, "bad_affine", "finite"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": [1, 2, 0, 2, 1, 1, 1, 1]}, "bad_affine", "singular"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 1.5}, "bad_affine", "finite"),
    ],
)
def test_wrong_header(tmp_path: Path, fields: dict[str, object], code: str, says: str) -> None:
    problem = code_of(put(tmp_path / "patient-name.nii.gz", ramp(), **fields))
    assert problem.code == code
    assert says in str(problem)
    assert problem.hint


def test_hints_say_which_volumes_there_are(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii", ramp((4, 5, 6, 3)))
    assert "0 to 2: set read.volume=0" in (code_of(path).hint or "")
    assert "0 to 2: set read.volume=0" in (code_of(path, volume=3).hint or "")
    flat = put(tmp_path / "b.nii", ramp((4, 5)), dim=[2, 4, 5, 1, 1, 1, 1, 1])
    assert "read.volume" not in (code_of(flat).hint or "")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not_a_scan"),
        (b"%PDF-1.4" + b" " * 600, "not_a_scan"),
        (b"abc", "not_a_scan"),
        (gzip.compress(b"a text\n" * 99, mtime=0), "not_a_scan"),
    ],
)
def test_other_files_called_nii(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    assert code_of(path).code == code


def test_halves_without_the_other_and_a_single_file_called_hdr(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_bytes(bytes(header_of(ramp(), magic=b"ni1", vox_offset=0).binaryblock))
    (tmp_path / "b.img").write_bytes(voxels_of(ramp()))
    assert code_of(tmp_path / "a.hdr").code == code_of(tmp_path / "b.img").code == "unpaired"
    (tmp_path / "c.hdr").write_bytes(raw_file(ramp()))
    (tmp_path / "c.img").write_bytes(voxels_of(ramp()))
    assert code_of(tmp_path / "c.hdr").code == "malformed"


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    assert code_of(tmp_path / "absent.nii").code == "unreadable"
    (tmp_path / "folder.nii").mkdir()
    assert code_of(tmp_path / "folder.nii").code == "unreadable"
    os.mkfifo(tmp_path / "pipe.nii")
    assert code_of(tmp_path / "pipe.nii").code == "unreadable"
    secret = put(tmp_path / "secret.nii", ramp())
    secret.chmod(0)
    if not os.access(secret, os.R_OK):  # root reads everything
        assert code_of(secret).code == "unreadable"


# ----------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("slope", "inter"), [(2.5, -3.0), (1.0, -1024.0), (-1.0, 0.0), (0.00276, 0.0769), (1e-3, 1e4)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_scaled(tmp_path: Path, slope: float, inter: float, dtype: str) -> None:
    path = put(tmp_path / "a.nii", ramp(dtype=dtype), scl_slope=slope, scl_inter=inter)
    np.testing.assert_allclose(read(path), by_nibabel(path).data, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, -np.inf])
def test_unscaled(tmp_path: Path, slope: float) -> None:
    path = put(tmp_path / "a.nii", ramp(), scl_slope=slope, scl_inter=5.0)
    np.testing.assert_array_equal(read(path), ramp())


@pytest.mark.parametrize("slope", [0, np.nan])
def test_an_intercept_without_a_slope_is_not_applied_and_said(tmp_path: Path, slope: float) -> None:
    """The standard leaves such values as they are; ITK shifts them."""
    path = put(tmp_path / "a.nii", ramp(), scl_slope=slope, scl_inter=-1024)
    np.testing.assert_array_equal(read(path), ramp())
    for look in (reading.read, reading.inspect):
        assert "scl_inter is -1024" in look(ref(path), SETTINGS).warnings[0]
    for inter in (0, np.nan):
        assert reading.read(ref(put(path, ramp(), scl_slope=slope, scl_inter=inter)), SETTINGS).warnings == ()


def test_wide_integers_are_scaled_before_they_are_narrowed(tmp_path: Path) -> None:
    steps = np.arange(8).reshape(2, 2, 2)
    for dtype, base in (("i4", 2**30), ("u4", 2**31), ("i8", -(2**40)), ("u8", 2**52)):
        data = (steps + np.array(base, dtype)).astype(dtype)
        path = put(tmp_path / "a.nii", data, scl_slope=1.0, scl_inter=-float(base))
        np.testing.assert_array_equal(read(path), steps)
    path = put(tmp_path / "a.nii", steps * 1e-9 + 1.0, scl_slope=1e9, scl_inter=-1e9)
    np.testing.assert_allclose(read(path), steps, atol=1e-6)


def test_values_that_overflow_float32_are_not_finite(tmp_path: Path) -> None:
    assert code_of(put(tmp_path / "a.nii", ramp(dtype="f8") * 1e300)).code == "non_finite"
    assert code_of(put(tmp_path / "a.nii", ramp(dtype="i2"), scl_slope=1e38)).code == "non_finite"


def test_nan_is_refused_or_filled_and_marked(tmp_path: Path) -> None:
    data = ramp(dtype="f4") + 7
    data[1, 2, 3], data[0, 0, 0] = np.nan, np.inf
    path = put(tmp_path / "a.nii.gz", data)
    problem = code_of(path)
    assert problem.code == "non_finite"
    assert "2 of 120" in str(problem)
    scan = reading.read(ref(path), ReadSettings(fill_non_finite=True))
    assert scan.valid is not None
    np.testing.assert_array_equal(scan.valid, np.isfinite(data))
    np.testing.assert_array_equal(scan.data[scan.valid], data[scan.valid])
    assert (scan.data[~scan.valid] == 8).all()  # the smallest of the others
    assert "2 voxels" in scan.warnings[0]
    empty = code_of(put(path, np.full((3, 3, 3), np.nan, "f4")), fill_non_finite=True)
    assert empty.code == "non_finite"
    assert "fill_non_finite" not in (empty.hint or ""), "it is set already"


def test_blank(tmp_path: Path) -> None:
    assert code_of(put(tmp_path / "a.nii", np.full((3, 3, 3), 9, "u1"))).code == "blank"
    data = np.full((3, 3, 3), 9.0, "f4")
    data[0] = np.nan
    assert code_of(put(tmp_path / "a.nii", data), fill_non_finite=True).code == "blank"


def test_volumes_of_a_4d_file(tmp_path: Path) -> None:
    data = ramp((4, 5, 6, 2, 3))
    for name in ("a.nii", "a.nii.gz"):
        path = put(tmp_path / name, data)
        for volume in range(6):
            np.testing.assert_array_equal(read(path, volume=volume), data.reshape(4, 5, 6, 6, order="F")[..., volume])
    one = put(tmp_path / "one.nii", ramp((4, 5, 6, 1)))
    np.testing.assert_array_equal(read(one), read(one, volume=5))


def test_a_4d_file_that_ends_in_another_volume_is_truncated(tmp_path: Path) -> None:
    raw = raw_file(ramp((4, 5, 6, 3)))[:-10]
    (tmp_path / "a.nii").write_bytes(raw)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw))
    assert code_of(tmp_path / "a.nii", volume=0).code == "truncated"
    assert code_of(tmp_path / "a.nii.gz", volume=0).code == "truncated"


def test_extensions_are_stepped_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark " * 20))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), ramp())


def test_an_offset_inside_the_header_means_right_after_it(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(put(tmp_path / "a.nii", ramp(), vox_offset=0)), ramp())


def test_matches_by_name() -> None:
    for name in ("a.nii", "A.NII.GZ", "a.hdr", "a.img.gz"):
        assert nifti.matches(Path(name))
    for name in ("a.nii.txt", "a.gz", "nii", "a.mgz"):
        assert not nifti.matches(Path(name))
