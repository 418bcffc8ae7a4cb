"""The output folder: whose it is, what is removed, what was done before, half-written lines, a full disk."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import OutputError
from medvae.io.files import PARTIAL
from medvae.run import folder
from medvae.run.folder import OutputFolder, disk_errors, hash_of
from medvae.run.outcomes import Outcome, Summary
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from pathlib import Path


def opened(path: Path, *, command: str = "detect", overwrite: bool = False, **identity: Any) -> OutputFolder:
    return OutputFolder(path, command=command, identity={"seed": 0, **identity}, overwrite=overwrite)


@pytest.fixture
def ref(tmp_path: Path) -> ScanRef:
    (tmp_path / "s.nii").write_text("scan", "utf-8")
    return ScanRef("s", "nifti", (tmp_path / "s.nii",))


def done(ref: ScanRef, folder: Path, *names: str) -> Outcome:
    """An outcome whose files are there."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("map", "utf-8")
    return Outcome(ref.id, "ok", outputs=names, input=ref.fingerprint())


def known(folder: OutputFolder, ref: ScanRef) -> Outcome | None:
    return folder.known(ref).get(ref.fingerprint())


def test_a_new_folder_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    opened(out).finish(Summary((Outcome("a", "ok"),)), reference="calibrated")
    tree = json.loads((out / "run.json").read_text("utf-8"))
    assert (tree["command"], tree["identity"], tree["counts"]) == ("detect", {"seed": 0}, {"ok": 1})
    assert tree["reference"] == "calibrated"
    assert "Research use only" in tree["notice"]
    assert {"python", "torch", "numpy"} <= set(tree["versions"])


def test_the_same_run_goes_on(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    first = opened(out, pair=(1, 2))
    assert known(first, ref) is None
    one = done(ref, out, "scans/s/map.nii")
    first.append(one)
    (out / f"{PARTIAL}77-map.nii").write_text("half", "utf-8")
    again = opened(out, pair=[1, 2])
    assert known(again, ref) == one
    assert not list(out.glob(f"{PARTIAL}*")), "what a killed run left is gone"


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": "other"}])
def test_the_folder_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    opened(tmp_path / "out")
    with pytest.raises(OutputError, match="other settings or another model") as caught:
        opened(tmp_path / "out", **change)
    assert "--overwrite" in (caught.value.hint or "")


def test_the_folder_of_another_command_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "out")
    with pytest.raises(OutputError, match="holds a run of `medvae detect`") as caught:
        opened(tmp_path / "out", command="augment")
    assert caught.value.hint == "choose another folder", "what is there is not to be thrown away"


def test_the_record_stays_until_the_run_is_finished_again(tmp_path: Path) -> None:
    first = opened(tmp_path / "out")
    first.finish(Summary(()), steps=7)
    before = (tmp_path / "out" / "run.json").read_bytes()
    again = opened(tmp_path / "out")
    assert (tmp_path / "out" / "run.json").read_bytes() == before
    again.finish(Summary(()), steps=8)
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["steps"] == 8


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_folder_whose_run_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, "utf-8")
    with pytest.raises(OutputError, match="other settings"):
        opened(tmp_path)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("", "utf-8")
    (tmp_path / "thesis.tex").write_text("years", "utf-8")
    with pytest.raises(OutputError, match="holds other files"):
        opened(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".DS_Store", "thesis.tex"}
    (tmp_path / "thesis.tex").unlink()
    opened(tmp_path)


def test_overwriting_removes_what_the_manifest_lists_and_nothing_else(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    folder.append(done(ref, out, "scans/s/map.nii", "scans/s/more/deep.nii"))
    mine = out / "scans" / "notes.txt"
    mine.write_text("mine", "utf-8")
    outside = tmp_path / "outside.txt"
    outside.write_text("not ours", "utf-8")
    folder.append(Outcome("evil", "ok", outputs=("../outside.txt", str(outside), "gone.nii")))
    fresh = opened(out, seed=1, overwrite=True)
    assert mine.read_text("utf-8") == "mine"
    assert outside.exists()
    assert not (out / "scans" / "s").exists(), "folders that became empty go, too"
    assert not (out / "manifest.jsonl").exists()
    assert known(fresh, ref) is None


def test_overwriting_where_there_are_only_other_files_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years", "utf-8")
    opened(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text("utf-8") == "years"


def test_only_what_ended_well_and_is_whole_was_done(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    one = done(ref, out, "map.nii")
    folder.append(one)
    assert known(opened(out), ref) == one
    folder.append(replace(one, status="failed", code="internal"))
    assert known(opened(out), ref) is None, "the last line counts"
    folder.append(one)
    ref.path.write_text("longer", "utf-8")
    assert known(opened(out), ref) is None, "the input has changed"
    folder.append(done(ref, out, "map.nii"))
    (out / "map.nii").unlink()
    assert known(opened(out), ref) is None, "a file is gone"


def test_others_are_the_whole_scans_of_earlier_runs(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    names = {"b": "ok", "a": "ok", "bad": "rejected", "gone": "ok"}
    for name, status in names.items():
        folder.append(replace(done(ref, out, f"{name}.nii"), id=name, status=status))
    folder.append(done(ref, out, "s.nii"))
    (out / "gone.nii").unlink()
    assert [one.id for one in opened(out).others([ref])] == ["a", "b"]
    assert opened(out, overwrite=True).others([ref]) == ()


def test_half_written_and_foreign_lines_are_passed_over(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    one = done(ref, out, "map.nii")
    with open(out / "manifest.jsonl", "wb") as file:
        file.write(b'[1]\n{"id": "x"}\n\xff\xfe\nnull\n{"id": "s", "status": "o')
    folder.append(one)
    folder.append(Outcome("t", "ok", message="naïve \udcff"))
    lines = (out / "manifest.jsonl").read_bytes().splitlines()
    assert lines[-3] == b'{"id": "s", "status": "o', "the next line stands on its own"
    assert known(opened(out), ref) == one


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_that_was_to_be(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputError) as caught, disk_errors(tmp_path):
        raise OSError(number, "full", str(tmp_path / f"{PARTIAL}12-map.nii.gz"))
    assert str(caught.value) == "map.nii.gz: the disk is full"
    with pytest.raises(OutputError, match="disk is full"), disk_errors(tmp_path):
        raise RuntimeError("PytorchStreamWriter: 64 requested and 12 written")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot write: "):
        opened(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write: odd"), disk_errors(tmp_path):
        raise OSError("odd")
    with pytest.raises(ValueError, match="mine"), disk_errors(tmp_path):
        raise ValueError("mine")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = opened(tmp_path / "out")
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OutputError, match="disk is full"):
        folder.append(Outcome("a", "ok"))


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(folder, "version", version)
    assert "torch" not in folder._versions()
    assert folder._versions()["numpy"] == "1"
