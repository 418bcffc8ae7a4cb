"""Verdicts and the Reference: only what a reader called healthy in every candidate is read as healthy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import InputError, ScanError
from medvae.review.healthy import UNREAD, Readings, in_words
from medvae.run.outcomes import Outcome

if TYPE_CHECKING:
    from pathlib import Path

JUDGED = {
    "all variants": (2, {"1": "normal variant", "2": "artefact"}, "healthy"),
    "a lesion": (2, {"1": "lesion", "2": "unsure"}, "read_as_lesion"),
    "unsure": (1, {"1": "unsure"}, "not_read_as_healthy"),
    "one is open": (3, {"1": "artefact", "3": "artefact"}, "not_read_as_healthy"),
    "none judged, a note": (2, {}, "not_read_as_healthy"),
    "a candidate that is not there": (1, {"2": "artefact"}, "not_read_as_healthy"),
    "an unknown word": (1, {"1": "fine"}, "not_read_as_healthy"),
    "nothing to judge": (0, {}, ""),
}


def exported(path: Path, scans: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"format": "medvae-verdicts", "version": 1, "scans": scans}), "utf-8")
    return path


def scan(name: str, found: int, candidates: dict[str, str]) -> dict[str, Any]:
    return {"id": name, "key": f"result of {name}", "scan_hash": name, "found": found, "candidates": candidates}


def test_a_scan_is_healthy_if_every_candidate_was_called_something_else(tmp_path: Path) -> None:
    file = exported(tmp_path / "v.json", [scan(name, n, said) for name, (n, said, _) in JUDGED.items()])
    assert Readings.of(file).by_scan == {name: reading for name, (_, _, reading) in JUDGED.items()}


def test_of_two_results_of_a_scan_the_worse_reading_counts(tmp_path: Path) -> None:
    healthy, ill = scan("a", 1, {"1": "artefact"}), scan("a", 1, {"1": "lesion"})
    for order in ([healthy, ill], [ill, healthy]):
        assert Readings.of(exported(tmp_path / "v.json", order)).by_scan == {"a": "read_as_lesion"}


def test_what_is_not_healthy_is_left_out_with_the_reason() -> None:
    readings = Readings({"ill": "read_as_lesion", "open": "not_read_as_healthy", "well": "healthy"})
    assert readings.check("well") == {"judged": "healthy"}
    assert readings.check("another") == UNREAD.check("well") == {}, "without verdicts it is as it was given"
    for name in ("ill", "open"):
        with pytest.raises(ScanError) as caught:
            readings.check(name)
        assert (caught.value.code, caught.value.status) == (readings.by_scan[name], "skipped")


def test_verdicts_that_do_not_name_scans_or_are_on_others_are_refused(tmp_path: Path) -> None:
    old = exported(tmp_path / "v.json", [{"id": "a", "key": "k", "candidates": {"1": "artefact"}}])
    with pytest.raises(InputError, match="do not name the scans"):
        Readings.of(old)
    with pytest.raises(InputError, match="no verdicts on any"):
        UNREAD.require([Outcome("a", "ok")], path=old)
    UNREAD.require([Outcome("a", "skipped", "read_as_lesion")], path=old)


def test_how_much_the_unsure_scans_could_matter_is_said() -> None:
    """With n = 19 the smallest p is 0.05; had the one scan left out been healthy and higher, 2 of 21."""
    outcomes = [Outcome(str(n), "ok", facts={"judged": "healthy"} if n < 4 else {}) for n in range(19)]
    sure = in_words(outcomes, n=19)
    assert sure.startswith(
        "verdicts: 4 read as healthy, 0 with a lesion, 0 unsure or not judged (left out); 15 without"
    )
    assert "smallest p" not in sure
    text = in_words([*outcomes, Outcome("x", "skipped", "not_read_as_healthy")], n=19)
    assert f"the smallest p would be {2 / 21:.3f}" in text
