"""Laws of every format: its scans are found among others, headers and voxels agree, damage ends as a ScanError."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_scans import ORIENTATIONS, centred, rotation
from outside import FORMATS, TOY, put, toy_format, written_suffixes

import medvae
from medvae.cli.main import main
from medvae.cohort.find import find
from medvae.errors import OutputError, ScanError
from medvae.io import contract, discover, reading
from medvae.io.same_voxels import turned_onto
from medvae.scan import Geometry, ScanRef, Selection
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = ReadSettings()
GEOMETRY = centred((9, 8, 7), rotation(10, -20, 5) @ np.diag([2, 3, 4.0]))
DATA = np.random.default_rng(0).integers(1, 900, GEOMETRY.shape).astype(np.int16)

every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(autouse=True, scope="module")
def _another_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toy_format(tmp_path_factory.mktemp("site")):
        yield


def the_one(folder: Path) -> ScanRef:
    (ref,), _ = discover.scans_of(files_in(folder), SETTINGS)
    return ref


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@every_format
def test_its_scan_is_found_among_those_of_all_others(tmp_path: Path, name: str) -> None:
    for other in FORMATS:
        put(other, tmp_path / other, DATA, GEOMETRY)
    (tmp_path / name / "notes.txt").write_text("a text")
    (tmp_path / name / "nothing").touch()
    refs, rest = discover.scans_of(files_in(tmp_path), SETTINGS)
    assert sorted(ref.format for ref in refs) == sorted(FORMATS)
    (mine,) = [ref for ref in refs if ref.format == name]
    assert all(path.is_relative_to(tmp_path / name) for path in mine.paths)
    assert rest == [tmp_path / name / "notes.txt", tmp_path / name / "nothing"]
    assert find(Selection((tmp_path,)), SETTINGS).ignored == 2


@every_format
@pytest.mark.parametrize("turn", ORIENTATIONS[::7])
def test_headers_and_voxels_say_where_they_lie(tmp_path: Path, name: str, turn: np.ndarray[Any, Any]) -> None:
    geometry = centred((9, 8, 7), rotation(10, -20, 5) @ turn @ np.diag([2, 3, 4.0]), (30, -50, 80))
    ref = the_one(put(name, tmp_path, DATA, geometry))
    scan, info = reading.read(ref, SETTINGS), reading.inspect(ref, SETTINGS)
    assert scan.data.dtype == np.float32
    turned = turned_onto(scan.data, scan.geometry, geometry)  # DICOM's slices may run the other way
    assert turned is not None
    np.testing.assert_array_equal(turned - turned.min(), DATA - DATA.min())  # CT is rescaled
    assert info.geometry == scan.geometry
    assert (info.modality, info.units) == (scan.modality, scan.units)


@every_format
def test_a_list_says_what_the_file_does_not(tmp_path: Path, name: str) -> None:
    ref = the_one(put(name, tmp_path, DATA, GEOMETRY))
    if name == "dicom":
        pytest.skip("DICOM knows its modality")
    one = ScanRef("a", name, ref.paths, modality="PT")
    assert reading.read(one, ReadSettings(modality="MR")).modality == "PT"
    assert reading.inspect(one, ReadSettings(modality="MR")).modality == "PT"
    assert reading.read(ref, ReadSettings(modality="CT")).units == "HU"


@every_format
def test_damage_ends_as_a_scan_error_and_never_otherwise(tmp_path: Path, name: str) -> None:
    ref = the_one(put(name, tmp_path, DATA, GEOMETRY))
    whole = ref.path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 9):
        ref.path.write_bytes(whole[:length])
        with pytest.raises(ScanError):
            reading.read(ref, SETTINGS)
    ref.path.unlink()
    for look in (reading.read, reading.inspect):
        with pytest.raises(ScanError) as caught:
            look(ref, SETTINGS)
        assert caught.value.code == "unreadable"


@every_format
def test_masks_of_a_format_that_holds_them_lie_on_any_scan(tmp_path: Path, name: str) -> None:
    if not hasattr(contract.get(name), "read_values"):
        pytest.skip(f"{name} holds no masks")
    mask = np.zeros(GEOMETRY.shape, np.uint8)
    mask[2:5, 3:7, 1:4] = 3
    (path,) = files_in(put(name, tmp_path, mask, GEOMETRY))
    np.testing.assert_array_equal(reading.read_mask(path, GEOMETRY, SETTINGS), mask > 0)
    np.testing.assert_array_equal(reading.read_label_map(path, GEOMETRY, SETTINGS), mask)
    with pytest.raises(ScanError) as caught:
        reading.read_mask(path, Geometry(GEOMETRY.shape, np.eye(4)), SETTINGS)
    assert caught.value.code == "mask_mismatch"


@every_format
def test_a_file_that_bears_its_name_and_is_none_is_a_scan_that_is_refused(tmp_path: Path, name: str) -> None:
    for suffix in getattr(contract.get(name), "SUFFIXES", ()):
        path = tmp_path / f"text{suffix}"
        path.write_bytes(b"no scan at all " * 60)
        (ref,), rest = discover.scans_of([path], SETTINGS)
        assert rest == []
        with pytest.raises(ScanError):
            reading.read(ref, SETTINGS)


# ------------------------------------------------------------------------------ one file in another package is a format


def test_the_other_package_is_asked_before_the_one_that_opens_files() -> None:
    assert list(contract.formats())[-1] == "dicom"
    assert set(contract.formats()) == set(FORMATS)
    assert discover.stem_of("a.b.nii.gz") == discover.stem_of("a.b.NPZ") == "a.b"
    assert discover.stem_of("a.txt") == "a.txt"


def test_it_is_a_scan_to_the_command_line_mask_included(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    medvae.write(tmp_path / "one.npz", DATA, geometry=GEOMETRY)
    medvae.write(tmp_path / "two.nii.gz", DATA, geometry=GEOMETRY)
    medvae.write(tmp_path / "brain.npz", (DATA > 300).astype(np.uint8), geometry=GEOMETRY)
    (tmp_path / "list.csv").write_text("scan,mask\none.npz,brain.npz\ntwo.nii.gz,brain.npz\n")
    assert main(["info", str(tmp_path / "list.csv"), "--check", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(row["format"], row["mask"], row["shape"]) for row in rows] == [
        ("npz", True, [9, 8, 7]),
        ("nifti", True, [9, 8, 7]),
    ]
    assert medvae.read(tmp_path / "one.npz").geometry.distance_to(GEOMETRY) < 1e-9


def test_it_is_chosen_by_the_suffix_to_write() -> None:
    assert ".npz" in written_suffixes()
    assert {".nii", ".nii.gz"} <= set(written_suffixes())
    for name in ("a.txt", "a.dcm", "a"):
        with pytest.raises(OutputError, match="can be written") as caught:
            medvae.write(name, DATA, geometry=GEOMETRY)
        assert caught.value.hint == "use .nii.gz"


def test_without_the_package_the_file_is_no_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medvae.write(tmp_path / "one.npz", DATA, geometry=GEOMETRY)
    without = {name: one for name, one in contract.formats().items() if name != TOY}
    monkeypatch.setattr(discover, "formats", lambda: without)
    assert discover.scans_of([tmp_path / "one.npz"], SETTINGS) == ([], [tmp_path / "one.npz"])
