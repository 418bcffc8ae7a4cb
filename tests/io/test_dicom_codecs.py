"""Compressed pixels: real images in every transfer syntax, and streams that are made or broken by code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from dicom_made import GEOMETRY, code_of, enhanced, find_one, plane, put, ramp, read_one, refusal, save, slices
from dicom_oracle import stack
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    MPEG4HP41,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medvae.errors import ScanError
from medvae.io import reading
from medvae.settings import ReadSettings

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


# --------------------------------------------------------------------------------------------------- made by code

LOSSLESS = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
SIZE = (48, 40, 4)


def volume() -> np.ndarray:
    """Smooth enough to compress, both signs."""
    return (ramp(SIZE) - 1000).astype(np.int16)


def compressed(syntax: str, folder: Path) -> list[Path]:
    made = slices(volume(), modality="MR")
    for one in made:
        one.compress(syntax, generate_instance_uid=False)
    return put(folder, made)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_is_lossless(tmp_path: Path, syntax: str) -> None:
    compressed(syntax, tmp_path)
    np.testing.assert_array_equal(read_one(tmp_path).data, volume())


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("table", ["none", "basic", "extended"])
def test_frames_of_a_compressed_multi_frame_object(tmp_path: Path, syntax: str, table: str) -> None:
    frames = [(volume()[:, :, n].T, plane(4 * n)) for n in (2, 0, 3, 1)]
    one = enhanced(frames, GEOMETRY)
    one.compress(syntax, generate_instance_uid=False)
    streams = list(generate_frames(one.PixelData, number_of_frames=4))
    if table == "extended":
        one.PixelData, one.ExtendedOffsetTable, one.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        one.PixelData = encapsulate(streams, has_bot=table == "basic")
    save(one, tmp_path / "one")
    np.testing.assert_array_equal(read_one(tmp_path).data, volume())


def restream(path: Path, change: object, syntax: str | None = None) -> None:
    """Change the compressed stream of a file; its length and padding follow."""
    one = pydicom.dcmread(path)
    (stream,) = generate_frames(one.PixelData, number_of_frames=1)
    one.PixelData = encapsulate([change(stream)])  # type: ignore[operator]
    save(one, path, syntax)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(
    "change",
    [
        lambda stream: stream[: len(stream) // 2],  # ends early
        lambda stream: stream[: len(stream) // 2] + b"\xff\xd9",  # ends early, and denies it
        lambda stream: b"\0" * len(stream),
        lambda stream: stream[:4],
        lambda stream: b"\xff\xd8" + stream[2:20],
    ],
)
def test_broken_streams_are_refused(tmp_path: Path, syntax: str, change: object, capfd: pytest.CaptureFixture) -> None:
    paths = compressed(syntax, tmp_path)
    restream(paths[1], change)
    error = refusal(tmp_path)
    assert error.code == "undecodable"
    assert str(syntax) in error.message
    assert error.path == str(paths[1])
    reading.inspect(find_one(tmp_path), ReadSettings())  # the headers are fine
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(("keyword", "value"), [("Rows", 39), ("Columns", 47), ("BitsAllocated", 8)])
def test_streams_that_hold_something_else(tmp_path: Path, syntax: str, keyword: str, value: int) -> None:
    for path in compressed(syntax, tmp_path):
        one = pydicom.dcmread(path)
        setattr(one, keyword, value)
        if keyword == "BitsAllocated":
            one.BitsStored, one.HighBit = 8, 7
        save(one, path)
    error = refusal(tmp_path)
    assert error.code == "undecodable"
    assert "the stream holds" in error.message


def test_a_cut_file_is_truncated(tmp_path: Path) -> None:
    paths = compressed(JPEG2000Lossless, tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:-30])
    assert refusal(tmp_path).code == "truncated"


def test_fewer_frames_than_said(tmp_path: Path) -> None:
    one = enhanced([(volume()[:, :, n].T, plane(4 * n)) for n in range(4)], GEOMETRY)
    one.compress(RLELossless, generate_instance_uid=False)
    one.PixelData = encapsulate(list(generate_frames(one.PixelData, number_of_frames=4))[:3], has_bot=True)
    save(one, tmp_path / "one")
    error = refusal(tmp_path)
    assert (error.code, error.message[:23]) == ("undecodable", "frame 4 of 4 is missing")


@pytest.mark.parametrize("syntax", [MPEG4HP41, "1.2.3.4"])
def test_unknown_transfer_syntaxes_are_named_by_the_headers_alone(tmp_path: Path, syntax: str) -> None:
    for path in compressed(JPEG2000Lossless, tmp_path):
        restream(path, lambda stream: stream, syntax)
    with pytest.raises(ScanError, match=str(syntax)) as caught:
        reading.inspect(find_one(tmp_path), ReadSettings())
    assert caught.value.code == "undecodable"


def test_pixels_that_contradict_the_transfer_syntax(tmp_path: Path) -> None:
    for path in put(tmp_path, slices(volume())):
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    assert refusal(tmp_path).code == "malformed"


@pytest.mark.parametrize(("syntax", "lossy"), [(JPEGBaseline8Bit, True), (JPEGLosslessSV1, False)])
def test_baseline_jpeg_is_lossy_whether_the_header_says_so_or_not(tmp_path: Path, syntax: str, *, lossy: bool) -> None:
    made = slices(volume())
    for one in made:
        one.PixelData = encapsulate([bytes(2)])
        one["PixelData"].is_undefined_length = True
    put(tmp_path, made, syntax=syntax)
    warnings = reading.inspect(find_one(tmp_path), ReadSettings()).warnings
    assert warnings == (("the images are lossily compressed",) if lossy else ())


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1])
def test_a_stream_of_another_process_is_refused(tmp_path: Path, syntax: str) -> None:
    for path in compressed(JPEGLSLossless, tmp_path):
        restream(path, lambda stream: stream, syntax)
    assert refusal(tmp_path).code == "undecodable"


def test_nothing_leaks_from_the_decoders(collection: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """12-bit JPEG: the library inside GDCM complains on the standard error while it tries."""
    (file,) = (collection / "odd" / "one-ct-slice-15-transfer-syntaxes").glob("*2_4*")
    stack(file, tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("process", ["Process1T", "Process2_4", "14T", "14SV1"])
@pytest.mark.parametrize("left", [-200, 0.5])
def test_half_a_jpeg_that_ends_well_is_refused(collection: Path, tmp_path: Path, process: str, left: float) -> None:
    (file,) = (collection / "odd" / "one-ct-slice-15-transfer-syntaxes").glob(
        f"*JPEGProcess{process.removeprefix('Process')}*"
    )
    one = pydicom.dcmread(file)
    (stream,) = generate_frames(one.PixelData, number_of_frames=1)
    one.PixelData = encapsulate([stream[: int(left * len(stream)) if left > 0 else int(left)] + b"\xff\xd9"])
    save(one, tmp_path / "cut")
    with pytest.raises(ScanError) as caught:
        stack(tmp_path / "cut", tmp_path / "stack")
    assert caught.value.code == "undecodable"


def test_without_a_standard_error_nothing_is_believed(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: int) -> int:
        raise OSError

    monkeypatch.setattr("medvae.io.dicom.codecs.os.dup", closed)
    (file,) = (collection / "odd" / "one-ct-slice-15-transfer-syntaxes").glob("*14SV1*")
    with pytest.raises(ScanError) as caught:
        stack(file, tmp_path)
    assert caught.value.code == "undecodable"


def test_a_copy_that_cannot_be_decoded(tmp_path: Path) -> None:
    paths = compressed(JPEG2000Lossless, tmp_path / "a")
    copy = save(pydicom.dcmread(paths[0]), tmp_path / "b")
    restream(copy, lambda stream: bytes(len(stream)))
    error = refusal(tmp_path)
    assert (error.code, error.path) == ("undecodable", str(copy))


def test_bits_whose_sign_cannot_be_known(tmp_path: Path) -> None:
    """JPEG-LS codes unsigned values: 16 bits of them for a signed pixel of 13 say nothing, 12 for one of 13 neither."""
    made = slices(np.abs(volume()) % 4096, modality="MR")
    for one in made:
        one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 11, 0
        one.compress(JPEGLSLossless, generate_instance_uid=False)
        one.BitsStored, one.HighBit, one.PixelRepresentation = 13, 12, 1
    put(tmp_path, made)
    assert "holds 12 bits of 13" in refusal(tmp_path).message


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_damaged_streams_end_in_an_error_or_in_pixels(
    tmp_path: Path, syntax: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never in anything else: one RLE decoder panics, which no `except Exception` stops."""
    paths = compressed(syntax, tmp_path)
    ref, raw = find_one(tmp_path), paths[0].read_bytes()
    rng, codes = np.random.default_rng(0), set()
    start = raw.index(b"\xfe\xff\x00\xe0") + 20
    for _ in range(30):
        damaged = bytearray(raw)
        for place in rng.integers(start, len(raw) - 10, 4):
            damaged[place] = rng.integers(256)
        paths[0].write_bytes(damaged)
        codes.add(code_of(ref))
    assert codes <= {"ok", "undecodable"}
    assert "undecodable" in codes
    assert capfd.readouterr() == ("", "")
