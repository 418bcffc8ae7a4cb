"""Work as plain data: files are written by name, and the place of a job is a hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvae.run.work import JsonFile, Progress, Result, TextFile, ignore, source_of
from medvae.scan import ScanRef

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Sample:
    id: str = "sample-1"

    def fingerprint(self) -> str:
        return self.id


def test_a_result_writes_its_files_and_names_them(tmp_path: Path) -> None:
    result = Result((TextFile("a/b.txt", "text"), JsonFile("c.json", {"x": 1})))
    assert result.write(tmp_path) == ("a/b.txt", "c.json")
    assert (tmp_path / "a" / "b.txt").read_text("utf-8") == "text"
    assert (tmp_path / "c.json").read_text("utf-8") == '{\n  "x": 1\n}\n'
    assert "text" not in repr(result)


def test_the_place_of_a_job_is_that_of_its_files_however_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = source_of(ScanRef("CT", "nifti", (Path("p5/CT.nii"),)))
    assert here == source_of(ScanRef("other", "nifti", (tmp_path / "p5" / "CT.nii",)))
    assert here != source_of(ScanRef("CT", "nifti", (Path("p6/CT.nii"),)))
    assert "CT" not in here
    slices = tuple(Path(f"series/{number}.dcm") for number in range(3))
    assert source_of(ScanRef("uid", "dicom", slices)) == source_of(ScanRef("uid", "dicom", slices[1:]))
    pairs = [ScanRef(name, "nifti", (Path(f"in/{name}.hdr.gz"), Path(f"in/{name}.img.gz"))) for name in "ab"]
    assert source_of(pairs[0]) != source_of(pairs[1])
    assert source_of(Sample()) == ""
    ignore(Progress("test", 0, 1))
