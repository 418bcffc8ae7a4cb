"""Missing and implausible conditions are named once per run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medvae.cohort.values import tell_of_conditions
from medvae.scan import ScanRef

if TYPE_CHECKING:
    import pytest


def refs(*ages: float | str | None) -> list[ScanRef]:
    known = [{} if age is None else {"age": age} for age in ages]
    return [ScanRef(f"s{i}", "nifti", (Path(f"s{i}.nii"),), conditions=one) for i, one in enumerate(known)]


def told(found: list[ScanRef], caplog: pytest.LogCaptureFixture, *names: str) -> list[str]:
    caplog.clear()
    tell_of_conditions(found, names)
    return [record.getMessage() for record in caplog.records]


def test_missing_values_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    assert told(refs(30.0, None, 50.0, float("nan")), caplog, "age") == [
        "condition 'age' is missing for 2 scans of 4 (s1, s3); the model takes it as unknown"
    ]
    (text,) = told(refs(*[None] * 8, 3.0), caplog, "age")
    assert "8 scans of 9 (s0, s1, s2, s3, s4 and 3 more)" in text


def test_words_among_numbers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """One `23,5` makes a column of words, in which every other age is a word, too."""
    assert told(refs(30.0, "23,5", None, "40 years"), caplog, "age")[0] == (
        "condition 'age' is a word for 2 scans (s1: 23,5, s3: 40 years) and a number for others; correct the list"
    )


def test_ages_that_nobody_has_are_named_with_their_values(caplog: pytest.LogCaptureFixture) -> None:
    assert told(refs(-3.0, 0.0, 120.0, 412, 1e9), caplog, "age") == [
        "implausible 'age' of 3 scans (s0: -3, s3: 412, s4: 1e+09); correct the list"
    ]


def test_what_the_model_does_not_use_and_other_numbers_are_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    assert told(refs(-3.0, None), caplog) == []
    assert told(refs(20.0, 30.0), caplog, "age") == []
    assert told(refs("young", "old"), caplog, "age") == [], "words are checked by the model"
    weights = [ScanRef("s", "nifti", (Path("s.nii"),), conditions={"weight": -500.0})]
    assert told(weights, caplog, "weight") == []
