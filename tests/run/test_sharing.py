"""Several runs in one output folder: at once, one after the other, killed in between; whose scan an id is."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import OutputError, ScanError
from medvae.io.files import PARTIAL, atomic, write_text
from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.outcomes import Summary
from medvae.run.processes import Processes
from medvae.run.work import Result, TextFile, source_of
from medvae.scan import ScanRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medvae.run.outcomes import Outcome


def scan(path: Path, text: str, **said: Any) -> ScanRef:
    """A scan of these tests is a text; its id is its name without the suffix, as `find` gives it."""
    write_text(path, text)
    os.utime(path, (315532800, 315532800))
    return ScanRef(path.stem, "text", (path,), **said)


def load(ref: ScanRef) -> str:
    text = ref.path.read_text("utf-8")
    if text == "broken":
        raise ScanError("ends early", code="truncated")
    return text


def compute(ref: ScanRef, text: str) -> Result:
    return Result((TextFile(f"scans/{ref.id}/map.txt", text),), {"length": len(text)})


def run(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    compute: Callable[[ScanRef, str], Result] = compute,
    **identity: Any,
) -> Summary:
    """What a pipeline does: the scans, the table, the record."""
    with OutputFolder(out, command="test", identity=identity) as folder:
        summary = run_jobs(refs, load, compute, folder=folder, engine=Processes(), stage="test")
        with folder.rows() as rows:
            table = [f"{one.id},{one.status},{one.scores.get('length')}" for one in rows]
            write_text(out / "scores.csv", "\n".join(["id,status,length", *table]) + "\n")
        folder.finish(summary)
    return summary


def ends(summary: Summary) -> list[tuple[str, str, str | None]]:
    return [(one.id, one.status, one.code) for one in summary.outcomes]


def texts(out: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text("utf-8") for path in (out / "scans").rglob("map.txt")}


def rows(out: Path) -> list[str]:
    with open(out / "scores.csv", newline="", encoding="utf-8") as file:
        return [row["id"] for row in csv.DictReader(file)]


def nothing(ref: ScanRef, text: str) -> Result:
    raise AssertionError(f"{ref.id} is done before")


# ---------------------------------------------------------------------------------------------- one after the other


def test_two_patients_whose_files_have_one_name_size_and_time(tmp_path: Path) -> None:
    """Case 34."""
    five, six = scan(tmp_path / "p5" / "CT.nii", "five"), scan(tmp_path / "p6" / "CT.nii", "sixx")
    out, second = tmp_path / "out", f"CT-{source_of(six)[:6]}"
    assert ends(run([five], out)) == [("CT", "ok", None)]
    assert ends(run([six], out)) == [(second, "ok", None)]
    assert texts(out) == {"CT": "five", second: "sixx"}
    assert rows(out) == ["CT", second]
    for ref, name in ((five, "CT"), (six, second)):
        assert ends(run([ref], out, compute=nothing)) == [(name, "ok", None)], "each is known again"
    assert rows(out) == ["CT", second]
    scan(six.path, "SIXX")
    assert ends(run([six], out)) == [(second, "ok", None)]
    assert texts(out) == {"CT": "five", second: "SIXX"}, "done again where it is"
    line = json.loads((out / "manifest.jsonl").read_text("utf-8").splitlines()[-1])
    assert "p6" not in json.dumps(line), "the place is a hash"


def test_a_name_in_other_capitals_is_the_same_name(tmp_path: Path) -> None:
    out, other = tmp_path / "out", scan(tmp_path / "p6" / "ct.nii", "sixx")
    run([scan(tmp_path / "p5" / "CT.nii", "five")], out)
    assert ends(run([other], out)) == [(f"ct-{source_of(other)[:6]}", "ok", None)]


def test_the_same_contents_elsewhere_were_done_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([scan(tmp_path / "disk1" / "CT.nii", "five")], out)
    assert ends(run([scan(tmp_path / "disk2" / "CT.nii", "five")], out, compute=nothing)) == [("CT", "ok", None)]
    assert rows(out) == ["CT"]


def test_a_scan_is_known_again_under_another_id(tmp_path: Path) -> None:
    """Ids depend on what else is given and on how the inputs are named: p5/CT.nii is `CT` alone, `p5_CT` below `.`."""
    out, ref = tmp_path / "out", scan(tmp_path / "p5" / "CT.nii", "five")
    run([ref.with_id("p5_CT")], out)
    assert ends(run([ref], out, compute=nothing)) == [("p5_CT", "ok", None)]
    assert rows(out) == ["p5_CT"]
    copy = scan(tmp_path / "p5" / "copy.nii", "five")
    assert ends(run([copy], out)) == [("copy", "ok", None)], "another file is another scan, though a copy"
    pairs = [
        ScanRef(name, "text", tuple(scan(tmp_path / f"{name}.{end}", end).path for end in ("hdr", "img")))
        for name in "ab"
    ]
    assert ends(run(pairs, out)) == [("a", "ok", None), ("b", "ok", None)]
    scan(ref.path, "changed")
    assert ends(run([ref], out)) == [("CT", "ok", None)]


def test_a_scan_that_was_refused_is_the_same_one_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([scan(tmp_path / "disk1" / "CT.nii", "broken")], out)
    assert ends(run([scan(tmp_path / "disk2" / "CT.nii", "broken")], out)) == [("CT", "rejected", "truncated")]
    assert rows(out) == ["CT"], "tried again, under its id"
    other = scan(tmp_path / "p6" / "CT.nii", "six")
    assert ends(run([other], out)) == [(f"CT-{source_of(other)[:6]}", "ok", None)]
    assert len(rows(out)) == 2, "the row of the other scan stays"
    gone = ScanRef("CT", "text", (tmp_path / "p7" / "CT.nii",))
    assert ends(run([gone], out)) == [(f"CT-{source_of(gone)[:6]}", "failed", "internal")]


@pytest.mark.parametrize("changed", ["file", "mask", "conditions", "modality", "subject"])
def test_what_a_result_depends_on_is_done_again_when_it_changes(tmp_path: Path, changed: str) -> None:
    mask = tmp_path / "mask.nii"
    write_text(mask, "111")
    ref = scan(tmp_path / "a.nii", "text", mask=mask, conditions={"age": 61.0})
    out = tmp_path / "out"
    run([ref], out)
    assert ends(run([replace(ref, label="ill", split="test")], out, compute=nothing)) == [("a", "ok", None)]
    if changed == "file":
        scan(ref.path, "TEXT")
    if changed == "mask":
        write_text(mask, "110")
    said: dict[str, Any] = {"conditions": {"age": 62.0}, "modality": "CT", "subject": "who"}
    ref = replace(ref, **{changed: said[changed]}) if changed in said else ref
    seen = list[str]()

    def noting(ref: ScanRef, text: str) -> Result:
        seen.append(text)
        return compute(ref, text)

    assert ends(run([ref], out, compute=noting)) == [("a", "ok", None)]
    assert len(seen) == 1
    assert rows(out) == ["a"]


def test_a_series_that_grew_is_the_same_series(tmp_path: Path) -> None:
    """A folder of slices, copied while it was read: the rest arrives later."""
    first, second = scan(tmp_path / "series" / "1.dcm", "1"), scan(tmp_path / "series" / "2.dcm", "2")
    third = scan(tmp_path / "series" / "0.dcm", "0")
    out = tmp_path / "out"
    part = ScanRef("uid", "text", (first.path, second.path))
    run([part], out)
    assert ends(run([replace(part, paths=(third.path, *part.paths))], out)) == [("uid", "ok", None)]
    assert texts(out) == {"uid": "0"}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    a = scan(tmp_path / "a.nii", "a")
    run([a], tmp_path / "out", maps=("kl",))
    run([a], tmp_path / "out", maps=["kl"])
    with pytest.raises(OutputError, match="another run"):
        run([a], tmp_path / "out", maps=["nll"])


# -------------------------------------------------------------------------------------------------------- at once


def during(first: str, other: Callable[[], None]) -> Callable[[ScanRef, str], Result]:
    """A `compute` during which, at the scan `first`, something else happens."""

    def both(ref: ScanRef, text: str) -> Result:
        if ref.id == first:
            other()
        return compute(ref, text)

    return both


def test_a_scan_that_another_run_holds_is_left_to_it(tmp_path: Path) -> None:
    refs, out = [scan(tmp_path / "in" / f"{name}.nii", name) for name in "abc"], tmp_path / "out"
    inner = list[Summary]()
    outer = run(refs, out, compute=during("a", lambda: inner.append(run(refs, out))))
    assert ends(inner[0]) == [("a", "skipped", "claimed"), ("b", "ok", None), ("c", "ok", None)]
    assert "another run" in inner[0].lines()[0]
    assert inner[0].exit_code == 0
    assert ends(outer) == [("a", "ok", None), ("b", "ok", None), ("c", "ok", None)]
    lines = (out / "manifest.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == ["a", "b", "c"], "each is done once"
    assert rows(out) == ["a", "b", "c"]
    assert sorted(path.name for path in out.iterdir()) == ["manifest.jsonl", "run.json", "scans", "scores.csv"]


def test_a_run_all_of_whose_scans_another_one_holds_is_no_failure(tmp_path: Path) -> None:
    a, out, inner = scan(tmp_path / "a.nii", "a"), tmp_path / "out", list[Summary]()
    run([a], out, compute=during("a", lambda: inner.append(run([a], out))))
    assert (inner[0].counts, inner[0].exit_code) == ({"skipped": 1}, 0)


def test_what_another_run_has_done_meanwhile_counts_as_done(tmp_path: Path) -> None:
    a, b = (scan(tmp_path / f"{name}.nii", name) for name in "ab")
    out = tmp_path / "out"
    with OutputFolder(out, command="test", identity={}) as other:
        held = other.take(a)
        assert held is not None

        def ends_now() -> None:
            summary = Summary((outcome_of(a, other),))
            other.append(summary.outcomes[0])
            other.release(held)

        summary = run([a, b], out, compute=during("b", ends_now))
    assert ends(summary) == [("a", "ok", None), ("b", "ok", None)]


def outcome_of(ref: ScanRef, folder: OutputFolder) -> Outcome:
    from medvae.run.task import Task, Todo

    return Task(load, compute, folder.path).whole(Todo(ref, source_of(ref)))


def test_two_patients_with_one_id_at_the_same_time(tmp_path: Path) -> None:
    five, six = scan(tmp_path / "p5" / "CT.nii", "five"), scan(tmp_path / "p6" / "CT.nii", "sixx")
    out = tmp_path / "out"
    run([five], out, compute=during("CT", lambda: run([six], out) and None))
    assert texts(out) == {"CT": "five", f"CT-{source_of(six)[:6]}": "sixx"}
    assert len(rows(out)) == 2
    for ref in (six, five):
        run([ref], out, compute=nothing)
    assert len(rows(out)) == 2


def test_a_row_that_is_no_success_stays_in_the_table_of_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([scan(tmp_path / "bad.nii", "broken")], out)
    run([scan(tmp_path / "good.nii", "good")], out)
    assert rows(out) == ["bad", "good"]
    assert json.loads((out / "run.json").read_text("utf-8"))["counts"] == {"ok": 1, "rejected": 1}


def test_overwriting_waits_for_no_one_and_harms_no_one(tmp_path: Path) -> None:
    a, out = scan(tmp_path / "a.nii", "a"), tmp_path / "out"

    def overwrite() -> None:
        with pytest.raises(OutputError, match="another run is writing into the folder") as caught:
            OutputFolder(out, command="test", identity={}, overwrite=True)
        assert "do not pass overwrite=True" in (caught.value.hint or "")

    run([a], out, compute=during("a", overwrite))
    assert rows(out) == ["a"]


def test_an_exclusive_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    options: dict[str, Any] = {"command": "train", "identity": {}, "exclusive": True, "part_of_model": True}
    a = scan(tmp_path / "one" / "a.nii", "first")
    with OutputFolder(tmp_path / "model", **options) as folder:
        with pytest.raises(OutputError, match="another run is writing into the folder"):
            OutputFolder(tmp_path / "model", **options)
        run_jobs([a], load, compute, folder=folder, engine=Processes(), stage="prepare")
    elsewhere = scan(tmp_path / "two" / "a.nii", "second")
    with OutputFolder(tmp_path / "model", **options) as folder:
        summary = run_jobs([elsewhere], load, compute, folder=folder, engine=Processes(), stage="prepare")
    assert ends(summary) == [("a", "ok", None)], "its ids are its own"
    assert texts(tmp_path / "model") == {"a": "second"}


# --------------------------------------------------------------------------------------------- in other processes


def in_another_process(call: str, *arguments: Path) -> subprocess.Popen[str]:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_sharing as t\nt.{call}"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def array_job() -> None:
    """One job of an array: its subject's scans into the folder of all."""
    subject, out = map(Path, sys.argv[1:])
    run([ScanRef(path.stem, "text", (path,)) for path in sorted(subject.iterdir())], out)


def test_jobs_of_an_array_write_into_one_folder(tmp_path: Path) -> None:
    """Case 46."""
    names = [f"s{job}_{number}" for job in range(4) for number in range(3)]
    for name in names:
        scan(tmp_path / name[:2] / f"{name}.nii", "the same contents")
    jobs = [in_another_process("array_job()", tmp_path / f"s{job}", tmp_path / "out") for job in range(4)]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert (job.returncode, said) == (0, "")
    out = tmp_path / "out"
    assert rows(out) == names
    assert sorted(texts(out)) == names
    assert json.loads((out / "run.json").read_text("utf-8"))["counts"] == {"ok": 12}
    assert sorted(path.name for path in out.iterdir()) == ["manifest.jsonl", "run.json", "scans", "scores.csv"]


def killed_job() -> None:
    """A run that is killed while it writes the second scan."""
    folder, out = map(Path, sys.argv[1:])

    def stop(ref: ScanRef, text: str) -> Result:
        if ref.id == "b":
            with atomic(out / "scans" / "b" / "map.txt") as partial:
                partial.write_text("half", "utf-8")
                (folder / "begun").touch()
                time.sleep(100)
        return compute(ref, text)

    run([ScanRef(name, "text", (folder / f"{name}.nii",)) for name in "abc"], out, compute=stop)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_that_was_killed_is_completed_at_once(tmp_path: Path) -> None:
    refs, out = [scan(tmp_path / "in" / f"{name}.nii", name) for name in "abc"], tmp_path / "out"
    job = in_another_process("killed_job()", tmp_path / "in", out)
    try:
        end = time.monotonic() + 80
        while not (tmp_path / "in" / "begun").exists():
            assert time.monotonic() < end
            assert job.poll() is None
        assert ends(run(refs[:2], out)) == [("a", "skipped", "claimed"), ("b", "skipped", "claimed")]
        assert list(out.rglob(f"{PARTIAL}*")), "its unfinished file is left alone while it lives"
    finally:
        job.send_signal(signal.SIGKILL)
        job.communicate()
    assert run(refs, out).counts == {"ok": 3}
    assert texts(out) == {"a": "a", "b": "b", "c": "c"}
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert not (out / ".claims").exists()
