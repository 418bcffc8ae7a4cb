"""How a scan and a run ended: exit codes, what is told, errors as values, numbers that JSON can hold."""

from __future__ import annotations

import errno
import json
import logging
import math
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from medvae.errors import RunError, ScanError
from medvae.run.outcomes import Failed, Outcome, Summary, as_outcome, attempt, plain
from medvae.scan import ScanRef

REF = ScanRef("s", "nifti", (Path("s.nii"),))
OK = Outcome("a", "ok")
SKIPPED = Outcome("b", "skipped", "not_image", message="a report", hint="nothing to do")
REJECTED = Outcome("c", "rejected", "truncated", message="ends early", hint="copy it again")
FAILED = Outcome("d", "failed", "internal", message="odd", hint="report it")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((OK, OK), 0),
        ((OK, SKIPPED), 0),
        ((OK, REJECTED), 1),
        ((OK, FAILED), 1),
        ((REJECTED, SKIPPED), 2),
        ((SKIPPED,), 2),
        ((), 2),
    ],
)
def test_exit_codes(outcomes: tuple[Outcome, ...], code: int) -> None:
    assert Summary(outcomes).exit_code == code


def test_what_did_not_end_well_is_told_by_code() -> None:
    unnamed = Outcome("f", "failed", message="no code", hint=FAILED.hint)
    same, empty = (replace(REJECTED, id=name, message=why) for name, why in (("e", "ends early"), ("g", "empty")))
    other = replace(REJECTED, id="h", message="compressed", hint="decompress it")
    summary = Summary((FAILED, OK, REJECTED, SKIPPED, other, same, empty, unnamed))
    assert summary.lines() == [
        "skipped (not_image): b: a report",
        "  hint: nothing to do",
        "rejected (truncated): c and 1 more: ends early; 1 more for other reasons",
        "  hint: copy it again",
        "rejected (truncated): h: compressed",
        "  hint: decompress it",
        "failed (internal): d: odd; 1 more for other reasons",
        "  hint: report it",
        "2 failed, 1 ok, 4 rejected, 1 skipped",
    ]


def test_hints_that_differ_from_file_to_file_are_not_all_told() -> None:
    each = tuple(replace(REJECTED, id=f"{n}", message=f"{n} volumes", hint=f"choose one of {n}") for n in range(9))
    lines = Summary(each).lines()
    assert lines[1::2] == [f"  hint: choose one of {n}" for n in range(3)]
    assert lines[4] == "rejected (truncated): 2: 2 volumes; 6 more for other reasons"


def test_a_warning_is_told_once() -> None:
    head, both = ("whole_head",), ("whole_head", "seen_in_training")
    summary = Summary((Outcome("a", "ok", warnings=head), Outcome("b", "ok", warnings=both), OK))
    told = ["warning: a and 1 more: whole_head", "warning: b: seen_in_training", "3 ok"]
    assert summary.lines() == told
    many = Summary(tuple(Outcome(f"{n}", "ok", warnings=(f"{n} voxels filled",)) for n in range(12)))
    last = many.lines()[-3:]
    assert last == ["warning: 9: 9 voxels filled", "2 more warnings are not shown", "12 ok"]


def test_an_outcome_comes_back_from_json() -> None:
    one = Outcome("a", "ok", outputs=("x", "y"), warnings=("w",), scores={"m": 1.5, "p": None})
    one = replace(one, facts={"class": "glioma", "twin": None}, input="content", source="place")
    assert Outcome.from_json(json.loads(json.dumps(asdict(one)))) == one
    with pytest.raises((TypeError, KeyError)):
        Outcome.from_json({"id": "a"})


def test_an_error_becomes_a_value_that_travels() -> None:
    def bad(_: ScanRef) -> None:
        raise ScanError("ends early", code="truncated", path="s.nii")

    failed = attempt(bad, REF)
    assert isinstance(failed, Failed)
    there = pickle.loads(pickle.dumps(failed))
    assert (there.problem.code, str(there.problem)) == ("truncated", "s.nii: ends early")
    assert as_outcome(there, REF, stage="read") == Outcome.from_error(REF, failed.problem, stage="read")
    assert as_outcome("value", REF, stage="read") == "value"
    assert attempt(lambda ref: ref.id, REF) == "s"


def test_what_was_not_foreseen_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    failed = attempt(lambda _: [][0], REF)
    assert isinstance(failed, Failed)
    assert failed.problem.code == "internal"
    with caplog.at_level(logging.DEBUG, logger="medvae"):
        outcome = as_outcome(failed, REF, stage="compute")
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.stage) == ("failed", "compute")
    assert "IndexError" in caplog.text
    assert "Traceback" not in outcome.message


@pytest.mark.parametrize("problem", [RunError("all"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_concerns_the_whole_run_is_raised(problem: Exception) -> None:
    def bad(_: ScanRef) -> None:
        raise problem

    with pytest.raises(type(problem)):
        attempt(bad, REF)


def test_scores_as_json_can_hold_them() -> None:
    assert plain({"a": np.float32(0.5), "b": math.inf, "c": math.nan, "d": None, "f": 3}) == {
        "a": 0.5,
        "b": None,
        "c": None,
        "d": None,
        "f": 3,
    }
