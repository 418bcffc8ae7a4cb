"""A reader's verdicts: what is counted, what belongs to another result, what is no such file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_review import detection, make_run

import medvae
from medvae.cli.main import main
from medvae.errors import InputError
from medvae.evaluation.verdicts import Verdicts, read_verdicts
from medvae.review.verdicts import key_of

if TYPE_CHECKING:
    from pathlib import Path


def exported(path: Path, scans: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"format": "medvae-verdicts", "version": 1, "scans": scans}), "utf-8")
    return path


def key(out: Path, name: str) -> str:
    return key_of((out / "scans" / name / "findings.json").read_bytes())


def test_verdicts_are_counted_and_give_the_precision_of_candidates(tmp_path: Path) -> None:
    out = make_run(tmp_path / "out", [detection(name) for name in ("a", "bb", "ccc", "dddd")])
    said = [("a", "lesion"), ("bb", "artefact"), ("ccc", "unsure")]
    scans = [{"id": name, "key": key(out, name), "note": "", "candidates": {"1": verdict}} for name, verdict in said]
    scans[0]["candidates"] |= {"7": "lesion"}  # there is no such candidate
    scans.append({"id": "a", "key": "of another run", "note": "", "candidates": {"1": "lesion"}})
    found = medvae.evaluate(out, verdicts=exported(tmp_path / "v.json", scans)).tree["verdicts"]
    assert found["counts"] == {"lesion": 1, "normal variant": 0, "artefact": 1, "unsure": 1}
    assert (found["scans"], found["others"], found["candidates"], found["judged"]) == (3, 1, 4, 3)
    assert found["precision"] == pytest.approx([0.5, 0.0126, 0.9874], abs=1e-4), "of those that are sure"
    text = (out / "evaluation" / "evaluation.md").read_text("utf-8")
    assert "3 of 4 candidates judged" in text
    assert "| 1 | 0 | 1 | 1 | 0.500 [0.013, 0.987] |" in text
    assert main(["evaluate", "detect", str(out), "--verdicts", str(tmp_path / "v.json"), "--quiet"]) == 0


def test_without_a_sure_verdict_there_is_no_precision() -> None:
    assert Verdicts(1, 0, 2, dict.fromkeys(("lesion", "normal variant", "artefact"), 0)).to_json()["precision"] is None


def test_what_is_no_file_of_verdicts_on_this_run_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path / "out", [detection("a")])
    with pytest.raises(InputError, match="neither masks nor verdicts"):
        medvae.evaluate(out)
    other = exported(tmp_path / "v.json", [{"id": "a", "key": "?", "candidates": {"1": "lesion"}}])
    with pytest.raises(InputError, match="no verdicts on scans of this run"):
        read_verdicts(other, out)
    huge = '{"format": "medvae-verdicts", "scans": [{"key": "k", "candidates": {}, "found": 1e999}]}'
    for text in ("[]", "{", '{"format": "medvae-verdicts"}', '{"format": "x", "scans": []}', huge):
        other.write_text(text, "utf-8")
        with pytest.raises(InputError, match="not a file of verdicts"):
            read_verdicts(other, out)
    with pytest.raises(InputError, match="not a file of verdicts"):
        read_verdicts(tmp_path / "missing.json", out)
