"""The output folder: whose it is, what is refused and left alone, what is removed, what was done before."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import OutputError
from medvae.io.files import PARTIAL, write_text
from medvae.io.owner import Owner, me
from medvae.run.claims import Claims
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Outcome, Summary
from medvae.run.record import TIMES
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

ENDED = Owner(me().machine, 2**22 + 1, 1)  # no process has this number


def opened(path: Path, *, command: str = "detect", overwrite: bool = False, **identity: Any) -> OutputFolder:
    """An output folder, closed again: what a run that has ended leaves."""
    with OutputFolder(path, command=command, identity={"seed": 0, **identity}, overwrite=overwrite) as folder:
        return folder


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """All files below a folder, with their time of change and contents; folders, too."""
    return {
        str(one.relative_to(path)): (one.lstat().st_mtime_ns, one.read_bytes() if one.is_file() else b"")
        for one in sorted(path.rglob("*"))
    }


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
    todo = folder.take(ref)
    assert todo is not None
    folder.release(todo)
    return todo.known.get(ref.fingerprint())


def test_a_new_folder_says_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    opened(out).finish(Summary((Outcome("a", "ok"),)), reference="calibrated")
    tree = json.loads((out / "run.json").read_text("utf-8"))
    assert (tree["command"], tree["identity"], tree["counts"]) == ("detect", {"seed": 0}, {"ok": 1})
    assert tree["reference"] == "calibrated"
    assert "Research use only" in tree["notice"]
    assert {"python", "torch", "numpy"} <= set(tree["versions"])


def test_the_record_of_the_same_run_elsewhere_differs_in_its_times_alone(tmp_path: Path) -> None:
    """Law: the command and the Python calls give the same; one may say it with a tuple, the other with a list."""
    found = []
    for name, maps in (("one", ("kl", "nll")), ("other", ["kl", "nll"])):
        opened(tmp_path / name, maps=maps).finish(Summary((Outcome("a", "ok"),)), units={"kl": "nats"})
        found.append(json.loads((tmp_path / name / "run.json").read_text("utf-8")))
    for record in found:
        for key in TIMES:
            del record[key]
    assert list(found[0].items()) == list(found[1].items())


def test_the_same_run_goes_on(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    first = opened(out, pair=(1, 2))
    assert known(first, ref) is None
    one = done(ref, out, "scans/s/map.nii")
    first.append(one)
    write_text(out / f"{PARTIAL}{ENDED}-map.nii", "half")
    write_text(out / f"{PARTIAL}{me()}-map.nii", "half")
    again = opened(out, pair=[1, 2])
    assert known(again, ref) == one
    assert [path.name for path in out.glob(f"{PARTIAL}*")] == [f"{PARTIAL}{me()}-map.nii"], "what a killed run left"


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": "other"}])
def test_the_folder_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    opened(tmp_path / "out")
    write_text(tmp_path / "out" / f"{PARTIAL}{ENDED}-map.nii", "half")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="another run") as caught:
        opened(tmp_path / "out", **change)
    assert "overwrite=True" in (caught.value.hint or "")
    assert ("another model" if "model" in change else "seed differs") in str(caught.value), "what differs is named"
    assert tree(tmp_path) == before, "a folder that is refused is left untouched"


def test_results_of_another_version_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They stay, and the record is then of the present version."""
    opened(tmp_path / "out")
    opened(tmp_path / "out")
    assert not caplog.records
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "medvae": "0.0.1"}), "utf-8")
    opened(tmp_path / "out")
    assert "out: results of medvae 0.0.1 stay as they are; pass overwrite=True" in caplog.text
    caplog.clear()
    opened(tmp_path / "out", overwrite=True)
    assert not caplog.records


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
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"its run\.json cannot be read"):
            opened(tmp_path, overwrite=overwrite)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("", "utf-8")
    (tmp_path / "thesis.tex").write_text("years", "utf-8")
    write_text(tmp_path / f"{PARTIAL}12-foreign.iso", "of a downloader")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="holds other files"):
        opened(tmp_path)
    assert tree(tmp_path) == before
    (tmp_path / "thesis.tex").unlink()
    opened(tmp_path)


def test_overwriting_removes_the_files_about_all_scans(tmp_path: Path) -> None:
    """Tables of the old run do not lie beside the record of a new one that was interrupted."""
    out, outside = tmp_path / "out", tmp_path / "outside.csv"
    write_text(outside, "not ours")
    folder = opened(out)
    for name in ("scores.csv", "lists/folds.json", "notes.txt"):
        write_text(out / name, "text")
    folder.finish(Summary(()), files=("scores.csv", "lists/folds.json", "../outside.csv"))
    opened(out)
    assert (out / "scores.csv").exists(), "a run that goes on keeps them"
    opened(out, seed=1, overwrite=True)
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == [
        "manifest.jsonl",
        "notes.txt",
        "run.json",
    ]
    assert outside.exists()


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
    assert (out / "manifest.jsonl").read_bytes() == b""
    assert known(fresh, ref) is None


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "review/thesis.tex", "run.json"])
def test_what_no_run_wrote_is_never_overwritten(tmp_path: Path, name: str, overwrite: bool) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('{"command": "train my dog", "years": 4}', "utf-8")
    before = tree(tmp_path)
    with pytest.raises(OutputError) as caught:
        opened(tmp_path, overwrite=overwrite)
    assert caught.value.hint == "choose an empty folder", "nothing that a user does on a hint removes other files"
    assert tree(tmp_path) == before


def test_the_run_of_another_command_is_not_overwritten(tmp_path: Path) -> None:
    opened(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="holds a run of `medvae detect`"):
        opened(tmp_path / "out", command="train", overwrite=True)
    assert tree(tmp_path) == before


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
    (out / "map.nii").touch()
    assert known(opened(out), ref) is None, "a file is empty, as a full file system may leave it"


def test_rows_are_all_scans_of_the_folder_whose_files_are_there(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    names = {"b": "ok", "a": "ok", "bad": "rejected", "gone": "ok"}
    for name, status in names.items():
        folder.append(replace(done(ref, out, f"{name}.nii"), id=name, status=status))
    (out / "gone.nii").unlink()
    with opened(out).rows() as rows:
        assert [one.id for one in rows] == ["a", "b", "bad"]
    with opened(out, overwrite=True).rows() as rows:
        assert rows == ()


def test_files_that_a_new_result_no_longer_has_go(tmp_path: Path, ref: ScanRef) -> None:
    out = tmp_path / "out"
    folder = opened(out)
    folder.append(done(ref, out, "scans/s/map.nii", "scans/s/montage.png"))
    folder.append(done(ref, out, "scans/s/map.nii"))
    assert [path.name for path in (out / "scans" / "s").iterdir()] == ["map.nii"]
    folder.append(Outcome(ref.id, "rejected", "corrupt"))
    assert list((out / "scans").iterdir()) == [], "no map of an input that is refused by now"


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


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot write: "):
        opened(tmp_path / "file")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = opened(tmp_path / "out")
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OutputError, match="disk is full"):
        folder.append(Outcome("a", "ok"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_left_as_it_is(tmp_path: Path) -> None:
    opened(tmp_path / "out")
    before = tree(tmp_path)
    (tmp_path / "out").chmod(0o555)
    try:
        with pytest.raises(OutputError, match="cannot write: Permission denied"):
            opened(tmp_path / "out")
    finally:
        (tmp_path / "out").chmod(0o755)
    assert tree(tmp_path) == before


def model(path: Path) -> Path:
    write_text(path / "model.json", "{}")
    write_text(path / "vae.safetensors", "weights")
    return path


def training(path: Path) -> Path:
    """A model folder before its training has ended."""
    OutputFolder(path, command="train", identity={}, exclusive=True, part_of_model=True).__exit__()
    return path


@pytest.mark.parametrize("make", [model, training])
@pytest.mark.parametrize("place", [".", "maps", "maps/deep"])
def test_a_model_folder_is_no_place_for_output(tmp_path: Path, make: Callable[[Path], Path], place: str) -> None:
    out = make(tmp_path / "model") / place
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="in the model folder model"):
            opened(out, overwrite=overwrite)
    assert tree(tmp_path) == before, "nothing is created, either"
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(OutputError, match="in the model folder model"):
        opened(tmp_path / "link" / "maps")


def test_what_belongs_to_a_model_may_lie_in_it(tmp_path: Path) -> None:
    out = model(tmp_path / "model") / "calibration"
    with OutputFolder(out, command="calibrate", identity={}, exclusive=True, part_of_model=True):
        pass
    assert (out / "run.json").is_file()


def test_what_is_left_in_a_place_of_the_commands_own_is_no_obstacle(tmp_path: Path) -> None:
    """A run that is killed while it removes the folder leaves files and no record."""
    out = model(tmp_path / "model") / "calibration" / "unfinished"
    write_text(out / "cache" / "s.safetensors", "prepared")
    options: dict[str, Any] = {"command": "calibrate", "identity": {}, "exclusive": True, "part_of_model": True}
    with pytest.raises(OutputError, match="holds other files"):
        OutputFolder(out, **options, overwrite=True)
    with OutputFolder(out, **options, overwrite=True, scratch=True):
        assert (out / "run.json").is_file()


def test_a_run_that_loses_the_race_for_a_new_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = Claims.locked

    def slow(claims: Claims) -> AbstractContextManager[None]:
        monkeypatch.setattr(Claims, "locked", locked)
        opened(tmp_path / "out", seed=1)
        return locked(claims)

    monkeypatch.setattr(Claims, "locked", slow)
    with pytest.raises(OutputError, match="another run"):
        opened(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["identity"] == {"seed": 1}
    assert not (tmp_path / "out" / ".claims").exists()


def test_a_file_called_model_json_makes_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}", "utf-8")
    (tmp_path / "run.json").write_text("[]", "utf-8")
    opened(tmp_path / "out")


def test_results_that_only_a_run_needed_are_listed_no_more_and_made_anew(tmp_path: Path, ref: ScanRef) -> None:
    with OutputFolder(tmp_path / "out", command="train", identity={}, exclusive=True) as folder:
        folder.append(done(ref, folder.path, "cache/s.nii"))
        folder.append(Outcome("bad", "rejected", "blank", input="x"))
        assert known(folder, ref) is not None
        folder.remove_outputs()
        assert not (folder.path / "cache").exists()
        assert known(folder, ref) is None, "its file is gone: it is no result"
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert [(line["id"], line["status"], line["outputs"], line["input"]) for line in lines] == [
        ("s", "ok", [], ""),
        ("bad", "rejected", [], "x"),
    ]
