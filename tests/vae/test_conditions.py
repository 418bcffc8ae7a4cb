"""Conditions as numbers: standardised, one-hot, missing as a value of its own; what was never seen is an error."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medvae.errors import ScanError, SettingsError
from medvae.vae.conditions import Condition, Conditions

SCANS = [
    {"age": 20.0, "sex": "F", "site": "b"},
    {"age": 40.0, "sex": "M"},
    {"age": 60.0, "sex": "F", "site": "a"},
    {"sex": "F", "site": "b"},
]


@pytest.fixture
def fitted() -> Conditions:
    return Conditions.fit(["age", "sex", "site"], SCANS)


def test_numbers_are_standardised_by_the_scans_that_have_one(fitted: Conditions) -> None:
    ages = [fitted.vector(one)[:2] for one in SCANS]
    assert [float(value) for value, _ in ages[:3]] == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert [float(missing) for _, missing in ages] == [0, 0, 0, 1]
    assert ages[3][0] == 0, "a missing number is the mean, and said to be missing"
    assert fitted.vector({"age": 80})[0] == pytest.approx(2 * 1.5**0.5), "ages beyond the training scans' are fine"


def test_words_are_one_hot_with_a_place_for_a_missing_one(fitted: Conditions) -> None:
    assert fitted.vector({"sex": "F", "site": "b"})[2:].tolist() == [1, 0, 0, 0, 1, 0]
    assert fitted.vector({"sex": "M"})[2:].tolist() == [0, 1, 0, 0, 0, 1]
    assert fitted.vector({}).tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    assert fitted.vector({}).dtype == np.float32
    assert fitted.size == 8
    assert fitted.names == ("age", "sex", "site")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_missing(fitted: Conditions, value: float) -> None:
    assert fitted.vector({"age": value})[:2].tolist() == [0, 1]
    assert Conditions.fit(["age"], [{"age": value}, {"age": 3.0}]).columns[0].mean == 3


@pytest.mark.parametrize("values", [{"sex": "X"}, {"age": "old"}])
def test_what_training_never_saw_is_an_error_of_that_scan(fitted: Conditions, values: dict[str, str]) -> None:
    (name,) = values
    with pytest.raises(ScanError, match=f"condition '{name}' is '{values[name]}'") as caught:
        fitted.vector(values)
    assert caught.value.code == "unknown_condition"
    assert caught.value.hint == "correct the value, or leave it empty (missing)"
    assert ("F, M" if name == "sex" else "numbers") in str(caught.value)
    assert fitted.known({"age": 1.0, **values, "other": "x"}) == (
        {"age": 1.0, "other": "x"} if name == "sex" else {"other": "x"}
    )


def test_a_column_that_mixes_numbers_and_words_is_one_of_words() -> None:
    fitted = Conditions.fit(["grade"], [{"grade": 2.0}, {"grade": "high"}])
    assert fitted.columns[0].words == ("2.0", "high")
    assert fitted.vector({"grade": 2.0}).tolist() == [1, 0, 0]


def test_a_column_of_one_number_is_not_divided_by_its_spread() -> None:
    (one,) = Conditions.fit(["age"], [{"age": 30.0}]).columns
    assert one == Condition("age", mean=30.0, sd=1.0)
    (field,) = Conditions.fit(["field"], [{"field": 2.89362}] * 20).columns
    assert field.sd == 1.0, "the mean of 20 such numbers is not quite the number"


def test_a_column_that_no_scan_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="no training scan has the condition 'weight'") as caught:
        Conditions.fit(["weight"], SCANS)
    assert "age, sex, site" in str(caught.value.hint)
    with pytest.raises(SettingsError) as caught:
        Conditions.fit(["weight"], [{}])
    assert "give a list" in str(caught.value.hint)


def test_they_come_back_from_json(fitted: Conditions) -> None:
    assert Conditions.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    assert Conditions.from_json([]) == Conditions()
    assert Conditions().vector({"age": 3.0}).shape == (0,)
