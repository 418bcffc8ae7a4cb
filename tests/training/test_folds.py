"""What cross-fitting adds to a training: shares of the time, settings of a fold, what stays of an earlier run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import SettingsError
from medvae.run.work import Progress
from medvae.settings import Settings, load_settings
from medvae.training.before import identity, length
from medvae.training.folds import begin_folds, progress_of_fold, settings_of_fold, time_of_one
from medvae.training.roles import Fold, Roles
from medvae.training.store import Scans

if TYPE_CHECKING:
    from pathlib import Path


def settings(**train: Any) -> Settings:
    return Settings.model_validate({"train": train, "lesions": {"steps": 5}})


def fold(*held_out: str) -> Fold:
    nothing = Scans([])
    return Fold(held_out, Roles(nothing, (), nothing, nothing))


def test_a_time_budget_is_shared_evenly() -> None:
    assert time_of_one(settings(minutes=30, folds=5)).train.minutes == 5
    assert time_of_one(settings(minutes=30)).train.minutes == 30
    assert time_of_one(settings(steps=7, folds=5)) == settings(steps=7, folds=5)


def test_a_fold_follows_the_plan_and_keeps_no_scans() -> None:
    given = settings(steps=9, plan=((0, 6), (6, 9)), folds=3)
    chosen = settings_of_fold(given)
    assert (chosen.train.plan, chosen.train.steps) == (given.train.plan, 9)
    assert (chosen.train.folds, chosen.train.keep_scans, chosen.lesions.steps) == (0, 0, 0)


def test_folds_can_be_added_to_a_training_and_an_older_record_stays_valid() -> None:
    plain, folded = settings(steps=9), settings(steps=9, folds=3)
    assert identity(plain) == identity(folded)
    assert length(plain) != length(folded)
    assert "folds" not in length(plain), "a model of an older version is whole without it"


@pytest.mark.parametrize(("resume", "parts", "stays"), [(True, "ab", True), (False, "ab", False), (True, "abc", False)])
def test_folds_of_other_parts_are_removed(tmp_path: Path, parts: str, *, resume: bool, stays: bool) -> None:
    begin_folds(tmp_path, [fold("a"), fold("b")], resume=False)
    state = tmp_path / "folds" / "1" / "last"
    state.mkdir(parents=True)
    begin_folds(tmp_path, [fold(name) for name in parts], resume=resume)
    assert state.exists() == stays
    assert json.loads((tmp_path / "folds" / "parts.json").read_text("utf-8")) == [[name] for name in parts]
    begin_folds(tmp_path, [], resume=True)
    assert not (tmp_path / "folds").exists()


def test_stages_name_the_fold() -> None:
    seen: list[Progress] = []
    progress_of_fold(seen.append, number=2, count=3)(Progress("train", 1, 4, "note"))
    assert seen == [Progress("fold 2 of 3: train", 1, 4, "note")]


@pytest.mark.parametrize("count", [1, 11, -1])
def test_only_numbers_that_make_sense_are_taken(count: int) -> None:
    with pytest.raises(SettingsError, match=rf"train\.folds is {count} in .*it must be 0, 2, 3"):
        load_settings(None, (f"train.folds={count}",))
