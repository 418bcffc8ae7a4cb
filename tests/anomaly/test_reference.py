"""What a Reference holds: conformal p-values, what is stored of it once, what its hash sees, whose it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import linear_model
import numpy as np
import pytest

from medvae.anomaly.extremes import KEPT, TAIL, Extremes
from medvae.anomaly.reference import MapReference, Reference, reference_of, with_reference
from medvae.checkpoint.arrays import ArraySet, load_set, save_set
from medvae.errors import ModelError

SHAPE = (1, 2, 3, 4)


def arrays(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"mean": rng.normal(size=SHAPE).astype(np.float32), "sd": rng.random(SHAPE).astype(np.float32)}


ATLAS = arrays(0)


def extremes(seed: int) -> Extremes:
    rng = np.random.default_rng(seed)
    peaks, rising = np.sort(rng.random((3, KEPT)))[:, ::-1], np.sort(rng.random((3, TAIL.size)))
    return Extremes(peaks.astype(np.float32), rising.astype(np.float32), np.array([0, 1, 1], np.int32))


def one_map(given: Any = None, **changes: Any) -> MapReference:
    made = MapReference(given or {}, 1.0, np.array([1, 2, 2, 3], np.float32), 2.5, {"sign": "dark"}, extremes(0))
    return replace(made, **changes)


def reference(**changes: Any) -> Reference:
    made = Reference(
        maps={"residual": one_map(), "atlas": one_map(ATLAS), "residual_z": one_map(arrays(2), scale=0.3, limit=1.5)},
        training={"atlas": ATLAS, "residual_z": arrays(1)},
        top=0.01,
        draws=8,
        n=3,
        calibrated=True,
        model_hash="model",
        preparation_hash="preparation",
        scan_hashes=("a", "b", "c"),
        traits={"noise": np.array([1, 2, 3], np.float32)},
    )
    return replace(made, **changes)


def scored(scores: Any) -> Reference:
    return reference(maps={"x": one_map(scores=np.asarray(scores, np.float32))})


@pytest.mark.parametrize(("score", "p"), [(0, 1), (1, 1), (2, 4 / 5), (2.5, 2 / 5), (3, 2 / 5), (3.1, 1 / 5)])
def test_p_values_count_ties_against_the_scan(score: float, p: float) -> None:
    assert reference().p_value("residual", score) == pytest.approx(p)


def test_no_healthy_scores_no_p_value() -> None:
    assert reference().p_value("nll", 1.0) is None
    assert scored([]).p_value("x", 1.0) is None


def test_p_values_of_exchangeable_scores_are_valid() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(2000):
        values = rng.integers(0, 12, size=10)  # with ties
        p.append(scored(np.sort(values[1:])).p_value("x", float(values[0])))
    found = np.array(p, np.float64)
    for level in (0.1, 0.2, 0.5):
        assert (found <= level).mean() < level + 0.03


@pytest.mark.parametrize("changes", [{}, {"maps": {}, "training": {}}, {"training": {}, "n": 1, "calibrated": False}])
def test_a_file_gives_it_back(changes: dict[str, Any], tmp_path: Any) -> None:
    made = reference(**changes)
    save_set(tmp_path, "reference", made.to_set())
    again = Reference.from_set(load_set(tmp_path / "reference.safetensors"))
    assert again.hash == made.hash
    for field in fields(Reference):
        if field.name not in ("maps", "training", "traits"):
            assert getattr(again, field.name) == getattr(made, field.name)
    assert same(again.traits, made.traits)
    assert list(again.maps) == list(made.maps)
    for name, mine in made.maps.items():
        theirs = again.maps[name]
        assert (theirs.scale, theirs.limit, theirs.options) == (mine.scale, mine.limit, mine.options)
        assert np.array_equal(theirs.scores, mine.scores)
        assert np.array_equal(theirs.extremes.masses, mine.extremes.masses)
        assert np.array_equal(theirs.extremes.quantiles, mine.extremes.quantiles)
        assert np.array_equal(theirs.extremes.subjects, mine.extremes.subjects)
        assert same(theirs.arrays, mine.arrays)
    assert set(again.training) == set(made.training)
    assert all(same(again.training[name], mine) for name, mine in made.training.items())


def same(ours: Any, theirs: Any) -> bool:
    return set(ours) == set(theirs) and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_a_set_from_before_subjects_were_kept_has_each_scan_as_its_own() -> None:
    kept = reference().to_set()
    older = {name: values for name, values in kept.arrays.items() if not name.endswith("/subjects")}
    again = Reference.from_set(replace(kept, arrays=older))
    assert again.maps["atlas"].extremes.subjects.tolist() == [0, 1, 2]


def test_what_calibration_left_as_it_was_is_stored_once() -> None:
    stored = reference().to_set().arrays
    assert {name for name in stored if name.startswith("atlas/")} == {
        "atlas/masses",
        "atlas/quantiles",
        "atlas/scores",
        "atlas/subjects",
        "atlas/training/mean",
        "atlas/training/sd",
    }
    again = Reference.from_set(reference().to_set())
    assert again.maps["atlas"].arrays is again.training["atlas"]


def test_the_hash_sees_everything() -> None:
    made = reference()
    residual_z = made.maps["residual_z"]
    other = [{"arrays": arrays(5)}, {"scale": 0.31}, {"scores": residual_z.scores + 1}, {"limit": 1.0}, {"options": {}}]
    other += [{"extremes": extremes(1)}]
    assert {key for change in other for key in change} == {field.name for field in fields(MapReference)}
    changes: list[dict[str, Any]] = [
        {"maps": {**made.maps, "residual_z": replace(residual_z, **change)}} for change in other
    ]
    changes += [{"training": {**made.training, "residual_z": arrays(6)}}, {"top": 0.02}, {"draws": 9}, {"n": 4}]
    changes += [{"calibrated": False}, {"model_hash": "x"}, {"preparation_hash": "x"}, {"scan_hashes": ("a",)}]
    changes += [{"traits": {}}, {"folds": ("x",)}, {"cross_fitted": 2}, {"statistics_of": ("x",)}]
    assert {key for change in changes for key in change} == {field.name for field in fields(Reference)}
    hashes = {replace(made, **change).hash for change in changes}
    assert len(hashes | {made.hash}) == len(changes) + 1
    assert reference().hash == made.hash


def test_what_every_output_says() -> None:
    assert reference().status == "calibrated, n=3"
    assert reference(calibrated=False, n=18).status == "uncalibrated, n=18"
    assert reference(folds=("x", "y"), cross_fitted=2).status == "cross-fitted, n=3"
    assert reference(statistics_of=("d", "e")).status == "thresholds n=3, mean and spread n=2"
    assert "2 healthy scans of its training, by cross-fitting (2 folds), and on 1 more" in (
        reference(folds=("x", "y"), cross_fitted=2).in_words
    )


@pytest.mark.parametrize("wrong", [{"model_hash": "x"}, {"preparation_hash": "x"}])
def test_another_model_is_refused(wrong: dict[str, str]) -> None:
    model = linear_model.known_model(("residual",))
    with pytest.raises(ModelError, match="another model or another preparation") as caught:
        reference_of(with_reference(model, replace(reference_of(model), **wrong)))
    assert "calibrate the model again" in str(caught.value.hint)


def test_a_model_without_one_says_so() -> None:
    with pytest.raises(ModelError, match="has no Reference") as caught:
        reference_of(linear_model.bare_model())
    assert "calibrate the model" in str(caught.value.hint)


def test_something_else_under_its_name_is_refused() -> None:
    model = linear_model.bare_model().with_set("reference", ArraySet({}, {"n": 3}))
    with pytest.raises(ModelError, match="cannot be read"):
        reference_of(model)


def test_few_subjects_behind_the_thresholds_are_warned_of() -> None:
    """Ten scans of four people are few; a model that is not calibrated has a warning of its own."""

    def of(subjects: list[int], **changes: Any) -> Reference:
        numbers = np.array(subjects, np.int32)
        one = replace(one_map(), extremes=replace(extremes(0), subjects=numbers))
        return reference(maps={"x": one}, **changes)

    (warning,) = of([0, 1, 2, 3, 0, 1, 2, 3, 0, 1]).warnings
    assert warning == "few_healthy: thresholds and p rest on 4 healthy subjects; with fewer than 5 they say little"
    assert of([0, 1, 2, 3, 4]).warnings == ()
    assert of([0, 1], calibrated=False).warnings == ()
