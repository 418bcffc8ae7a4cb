"""`review` of a folder with files that a copy cut off or a spreadsheet saved: that scan has no page, all others do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_review import detection, make_run
from made_samples import make_set

from medvae.cli.main import main
from medvae.errors import ScanError
from medvae.evaluation.verdicts import read_verdicts
from medvae.pipelines import review
from medvae.review.scan_page import ScanPage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run_of(out: Path) -> dict[str, Any]:
    text = (out / "review" / "run.js").read_text("utf-8")
    tree: dict[str, Any] = json.loads(text.partition("medvaeRun = ")[2].rstrip().rstrip(";"))
    return tree


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def edit(file: Path, **changes: Any) -> None:
    tree = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**tree, **changes}), "utf-8")


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "half a scan": ("scan.nii.gz", cut),
    "a changed byte": ("scan.nii.gz", flip),
    "an empty scan": ("scan.nii.gz", lambda file: file.write_bytes(b"")),
    "half a map": ("fused.nii.gz", cut),
    "no coverage": ("coverage.nii.gz", lambda file: file.unlink()),
    "half the findings": ("findings.json", cut),
    "other bytes": ("findings.json", lambda file: file.write_bytes(b"\xff\xfe\x00")),
    "a list": ("findings.json", lambda file: file.write_text("[]", "utf-8")),
    "a number": ("findings.json", lambda file: edit(file, scores=3)),
    "no limit": ("findings.json", lambda file: edit(file, scores={"fused": {"score": 1.0}})),
    "another map": ("findings.json", lambda file: edit(file, map="nosuch")),
    "candidates without volume": ("findings.json", lambda file: edit(file, candidates=[{}])),
    "a path for a map": ("findings.json", lambda file: rename_a_map(file, "../b/fused")),
    "findings that are a folder": ("findings.json", lambda file: (file.unlink(), file.mkdir())[0]),
    "no findings": ("findings.json", lambda file: file.unlink()),
}


def rename_a_map(file: Path, name: str) -> None:
    scores = json.loads(file.read_text("utf-8"))["scores"]
    edit(file, scores={**scores, name: scores["fused"]})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_scan_has_no_page_and_does_not_stop_the_others(damage: str, tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b")])
    for page in ("a", "b"):
        (out / ScanPage(page).name).unlink()
    name, change = DAMAGES[damage]
    change(out / "scans" / "a" / name)
    done = review.run(out)
    assert (done.pages, done.without) == (("b",), ("a",))
    assert [page.name for page in (out / "review" / "scans").iterdir()] == ["b.html"]
    (told,) = [line for line in done.lines if line.startswith("no page")]
    assert told.startswith(f"no page: a: {name}: ")
    a, b = run_of(out)["rows"]
    assert (bool(a.get("page")), b["page"]) == (False, True)
    with pytest.raises(ScanError) as caught:
        ScanPage("a").write(out)
    assert caught.value.path == str(out / "scans" / "a" / name)


def test_the_command_names_the_file_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b"), detection("c")])
    for scan in ("a", "c"):
        cut(out / "scans" / scan / "scan.nii.gz")
    assert main(["review", str(out)]) == 1
    told = capsys.readouterr().out
    assert "no page: a: scan.nii.gz: the gzip stream ends too early; and 1 more" in told
    assert "Traceback" not in told


def test_a_damaged_sample_has_no_page_and_does_not_stop_the_others(tmp_path: Path) -> None:
    out = make_set(tmp_path, ["a", "b", "c"])
    cut(out / "images" / "s0.nii.gz")
    cut(out / "labels" / "s2.nii.gz")
    done = review.run(out)
    assert (done.pages, done.without) == (("b",), ("a", "c"))
    assert "no page: a: s0.nii.gz: the gzip stream ends too early; and 1 more" in done.lines


def test_the_table_of_candidates_as_spreadsheets_save_it(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b", top=0.1)])
    text, known = (out / "findings.csv").read_text("utf-8"), {"a": {"1": 0.2}}  # b was searched, too
    german = "\r\n".join(line.replace(",", ";").replace(".", ",") for line in text.splitlines())
    for saved in (german.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        (out / "findings.csv").write_bytes(saved)
        review.run(out)
        assert run_of(out)["q"] == known, saved[:20]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: text.index("a,1") + 8],
        lambda text: text.replace(",q,", ",r,"),
        lambda text: text.replace(",0.1,residual_z", ",nan,residual_z"),
        lambda text: text.replace(",0.1,residual_z", ",much,residual_z"),
        lambda text: "\0\1" + text,
        lambda text: "",
    ],
)
def test_without_q_in_the_table_there_are_pages_without_q(damage: Callable[[str], str], tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a")])
    text = (out / "findings.csv").read_text("utf-8")
    assert damage(text) != text
    (out / "findings.csv").write_text(damage(text), "utf-8")
    assert review.run(out).pages == ("a",)
    assert run_of(out)["q"] == {}


def test_verdicts_are_not_counted_beside_findings_that_are_damaged(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b")])
    said = {
        "format": "medvae-verdicts",
        "scans": [{"key": run_of(out)["rows"][0]["key"], "candidates": {"1": "lesion"}}],
    }
    (tmp_path / "said.json").write_text(json.dumps(said), "utf-8")
    assert read_verdicts(tmp_path / "said.json", out).counts["lesion"] == 1
    cut(out / "scans" / "b" / "findings.json")
    with pytest.raises(ScanError, match=r"findings\.json: not whole JSON"):
        read_verdicts(tmp_path / "said.json", out)
