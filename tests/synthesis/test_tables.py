"""The files about a whole set: lists that medvae and MONAI read, the audit, the counts, the montage."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy_model import toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import generate, tables
from medvae.synthesis.rows import Row
from medvae.synthesis.synthesize import with_screen

if TYPE_CHECKING:
    from medvae.synthesis.synthetic import SyntheticSet


def synthetic_set(count: int, *, model: dict[str, Any] | None = None, **augment: Any) -> tuple[Any, list[Row]]:
    synthesizer = generate.fit(toy_model(**{"n": 8, **(model or {})}), AugmentSettings.model_validate(augment), seed=0)
    whole = with_screen(synthesizer)
    return whole, rows_of(whole, count)


def rows_of(whole: SyntheticSet, count: int) -> list[Row]:
    scans = [whole.scan(index) for index in range(count)]
    results = [(one.id, one.result()) for one in scans]
    return [Row(name, one.scores, one.facts, one.warnings) for name, one in results]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def files(rows: list[Row], whole: Any) -> dict[str, Any]:
    return {file.name: file for file in tables.set_files(rows, whole, Path())}


def test_the_list_has_a_row_per_sample() -> None:
    whole, rows = synthetic_set(4, model={"labels": ("a", "b"), "label_maps": True}, sampler="classical")
    found = table(files(rows, whole)["labels.csv"].text)
    assert [row["scan"] for row in found] == [f"images/synthetic-0000{i}.nii.gz" for i in range(4)]
    assert [row["label_map"] for row in found] == [f"labels/synthetic-0000{i}.nii.gz" for i in range(4)]
    assert {row["label"] for row in found} == {"a", "b"}
    assert all(row["subject"] == f"subject-{row['sources'][-2:]}" for row in found)
    assert list(found[0]) == ["scan", "subject", "label", "label_map", "synthetic", "sources"]


def test_conditions_are_columns_of_the_list_and_keys_of_the_datalist() -> None:
    whole, rows = synthetic_set(2, model={"conditions": ("age", "sex")}, conditions={"age": 70}, reject=False)
    found = table(files(rows, whole)["labels.csv"].text)
    assert [row["age"] for row in found] == ["70", "70"]
    assert {row["sex"] for row in found} <= {"F", "M"}
    items = files(rows, whole)["dataset.json"].tree["training"]
    assert [(item["age"], item["sex"]) for item in items] == [(70.0, row["sex"]) for row in found]


@pytest.mark.parametrize(
    ("age", "text"), [(20231230.5, "20231230.5"), (1 / 3, "0.3333333333333333"), (1e7, "10000000")]
)
def test_conditions_have_all_their_digits(age: float, text: str) -> None:
    """Six are enough for a distance, but not for a date or a patient's number."""
    whole, rows = synthetic_set(1, model={"conditions": ("age",)}, conditions={"age": age}, reject=False)
    found = files(rows, whole)
    assert table(found["labels.csv"].text)[0]["age"] == text
    distance = table(found["audit.csv"].text)[0]["distance"]
    assert distance == f"{rows[0].distance:.6g}"


def test_a_missing_condition_is_an_empty_cell() -> None:
    whole, rows = synthetic_set(1, model={"conditions": ("age", "sex")}, conditions={"age": None})
    assert table(files(rows, whole)["labels.csv"].text)[0]["age"] == ""
    assert "age" not in files(rows, whole)["dataset.json"].tree["training"][0]


def test_the_datalist_has_numbers_for_classes_and_paths_for_label_maps() -> None:
    whole, rows = synthetic_set(4, model={"labels": ("a", "b"), "label_maps": True}, sampler="classical")
    tree = files(rows, whole)["dataset.json"].tree
    assert (tree["classes"], tree["labels"]) == (["a", "b"], {"0": "background", "1": "1"})
    assert all(item["label"].startswith("labels/") and item["class"] in (0, 1) for item in tree["training"])
    whole, rows = synthetic_set(4, model={"labels": ("a", "b")})
    tree = files(rows, whole)["dataset.json"].tree
    assert tree["labels"] == {"0": "a", "1": "b"}
    assert {item["label"] for item in tree["training"]} == {0, 1}


def test_the_audit_has_samples_above_and_training_scans_below() -> None:
    whole, rows = synthetic_set(3)
    found = table(files(rows, whole)["audit.csv"].text)
    assert [row["kind"] for row in found] == ["synthetic"] * 3 + ["real"] * 8
    for row in found:
        assert float(row["distance"]) > 0
        assert float(row["ratio"]) == pytest.approx(float(row["distance"]) / float(row["second_distance"]), rel=1e-4)
        assert row["copy"] in (("yes", "no") if row["kind"] == "synthetic" else ("",))


@pytest.mark.parametrize(
    ("sampler", "derived"), [("classical", 6), ("jitter", 6), ("interpolate", 0), ("density", 0), ("prior", 0)]
)
def test_samples_of_one_patient_are_counted(sampler: str, derived: int) -> None:
    """A strong warp is no near-copy, but it is the patient's scan all the same."""
    whole, rows = synthetic_set(6, sampler=sampler, reject=False)
    found = tables.counts(rows, whole)
    assert (found["samples"], found["derived_from_one_subject"]) == (6, derived)
    text = "\n".join(tables.report(found))
    assert ("6 of 6 samples derived from a patient" in text) == (derived > 0)
    assert ("screened for near-copies" in text) == (derived == 0), "a count of copies would say less than the truth"
    assert ("6 of 6 samples derived from several training subjects" in text) == (sampler == "interpolate")


def test_the_counts_in_words() -> None:
    whole, rows = synthetic_set(2)
    text = "\n".join(tables.report(tables.counts(rows, whole)))
    copies = sum(row.facts["copy"] == "yes" for row in rows)
    assert f"screened for near-copies of training scans: {copies} of 2 flagged; real scans of other people: " in text
    assert "of 8; thresholds from reconstructions" in text
    assert "label maps: not written: the model keeps no label maps" in text
    whole, rows = synthetic_set(2, model={"keep": 0})
    found = tables.counts(rows, whole)
    assert (found["copies"], found["copy_threshold"]) == (None, None)
    assert "not screened for near-copies (unknown: the model keeps no training scans)" in tables.report(found)


def test_a_screen_against_a_part_of_the_training_scans_says_so() -> None:
    whole, rows = synthetic_set(2, model={"keep": 6})
    found = tables.counts(rows, whole)
    assert (found["compared_with"], found["training_scans"]) == (6, 8)
    assert "; against 6 of 8 training scans" in "\n".join(tables.report(found))
    whole, rows = synthetic_set(2)
    assert "; against" not in "\n".join(tables.report(tables.counts(rows, whole)))


def test_near_copies_are_counted_by_the_comparison_that_finds_them() -> None:
    whole, rows = synthetic_set(2)
    facts = {**rows[0].facts, "copy": "yes", "copy_by": "registered;region"}
    found = tables.counts([Row("x", rows[0].scores, facts), rows[1]], whole)
    assert found["copies_by"] == {"registered": 1, "region": 1}
    assert "1 of 2 flagged (after registration 1, in a part of the scan 1); real" in "\n".join(tables.report(found))


def test_the_screen_is_not_told_whose_samples_are() -> None:
    whole, rows = synthetic_set(2, sampler="jitter")
    found = tables.counts(rows, whole)
    assert found["donors_found"] == sum(row.donor_found for row in rows)
    facts = {**rows[0].facts, "copy_by": "registered", "registered_nearest": rows[0].sources[0]}
    assert Row("x", rows[0].scores, facts).donor_found
    assert not Row("x", rows[0].scores, {**facts, "registered_nearest": "another"}).donor_found
    assert not Row("x", rows[0].scores, {**facts, "copy_by": ""}).donor_found
    assert f"recognises the donor of {found['donors_found']} of 2 samples" in "\n".join(tables.report(found))


def test_rejected_draws_are_counted_by_reason() -> None:
    whole, rows = synthetic_set(1)
    facts = {**rows[0].facts, "rejected": "volume;near_copy;volume"}
    found = tables.counts([rows[0], Row("x", rows[0].scores, facts)], whole, not_generated=2)
    assert found["rejected_draws"]["volume"] == 2
    text = "\n".join(tables.report(found))
    assert "volume 2; see audit.csv" in text
    assert "not generated: 2 samples" in text


def test_distances_stand_beside_those_between_real_scans() -> None:
    whole, rows = synthetic_set(3)
    found = tables.counts(rows, whole)
    assert found["distance"] == sorted(row.distance for row in rows)[1]
    assert found["distance_among_real"] > 0
    assert found["copies_among_real"].endswith(" of 8")


def test_the_montage_shows_the_nearest_samples_first() -> None:
    whole, rows = synthetic_set(12)
    montage = files(rows, whole)["montage.png"]
    nearest = sorted(rows, key=lambda row: row.distance)
    titles = [pair.title.partition("\n")[0] for pair in montage.pairs]
    assert titles[:4] == [row.id for row in nearest[:4]]
    assert len(set(titles)) == 8
    assert [pair.caption for pair in montage.pairs][:4] == [row.facts["nearest"] for row in nearest[:4]]
    assert all(pair.nearest is not None and pair.sample.ndim == 3 for pair in montage.pairs)


def test_without_training_scans_the_montage_has_samples_alone() -> None:
    whole, rows = synthetic_set(1, model={"keep": 0})
    montage = files(rows, whole)["montage.png"]
    assert montage.pairs[0].nearest is None
    assert montage.limits == (-3.0, 3.0)
    assert "montage.png" not in files([], whole)
