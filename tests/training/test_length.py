"""How long a training is: more steps for a finished one, and a time budget that is kept and can be repeated."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest
import small_model
from small_training import Ran, run, start, without_times

from medvae.errors import SettingsError
from medvae.run.work import Progress
from medvae.training.fit import run_settings
from medvae.training.learner import Learner, Validation
from medvae.training.state import read_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from medvae.training.store import Scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scans, Scans]:
    folder = tmp_path_factory.mktemp("cache")
    return small_model.stored(folder, 5), small_model.stored(folder, 3, start=50)


@pytest.fixture(scope="module")
def whole(scans: tuple[Scans, Scans], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Six steps, a validation after each two."""
    return run(scans, tmp_path_factory.mktemp("whole"), small_model.settings())


# ------------------------------------------------------------------------------------------------- a longer training


def test_a_finished_training_is_extended_and_a_rerun_of_its_plan_gives_the_same_weights(
    scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path
) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    longer = small_model.settings(train={"steps": 11})
    rest = run(scans, tmp_path / "copy", longer, resume=True)
    assert [(e.step, e.steps) for e in rest.epochs] == [(8, 11), (10, 11), (11, 11)]
    assert rest.epochs[-1].plan == ((0, 6), (6, 11))
    assert rest.hash != whole.hash
    recorded = run_settings(longer.train, plan=rest.epochs[-1].plan)
    again = run(scans, tmp_path / "again", longer.model_copy(update={"train": recorded}))
    assert again.hash == rest.hash
    assert without_times(again.epochs[3:]) == without_times(rest.epochs)
    assert [e.step for e in again.epochs] == [2, 4, 6, 8, 10, 11]


def test_a_training_that_ended_between_two_validations_is_extended_and_repeated(
    scans: tuple[Scans, Scans], tmp_path: Path
) -> None:
    """It was validated at its end, at step 3; a rerun has to do that, too: the best weights may be those."""
    run(scans, tmp_path / "a", small_model.settings(train={"steps": 3}))
    rest = run(scans, tmp_path / "a", small_model.settings(train={"steps": 5}), resume=True)
    recorded = run_settings(small_model.settings().train, plan=rest.epochs[-1].plan)
    again = run(scans, tmp_path / "b", small_model.settings().model_copy(update={"train": recorded}))
    assert [e.step for e in again.epochs] == [2, 3, 4, 5]
    assert again.hash == rest.hash


def test_an_interrupted_training_may_be_given_other_steps(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    _, epochs = start(scans, tmp_path, small_model.settings())
    with closing(cast("Any", epochs)):
        next(epochs), next(epochs)  # stopped after step 4 was validated, saved at step 2
    rest = run(scans, tmp_path, small_model.settings(train={"steps": 5}), resume=True)
    assert rest.epochs[-1].plan == ((0, 6), (2, 5))
    with pytest.raises(SettingsError, match=r"train\.steps is 3, and 5 steps are done") as caught:
        run(scans, tmp_path, small_model.settings(train={"steps": 3}), resume=True)
    assert "train.steps=5 or more" in str(caught.value.hint)


def test_another_plan_than_the_one_that_was_followed_is_refused(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    run(scans, tmp_path, small_model.settings(train={"steps": 4}))
    other = small_model.settings(train={"plan": [(0, 5), (2, 8)]})
    with pytest.raises(SettingsError, match="differs from the plan that the first 4 steps followed"):
        run(scans, tmp_path, other, resume=True)
    same = small_model.settings(train={"plan": [(0, 4), (4, 6)]})
    assert [e.step for e in run(scans, tmp_path, same, resume=True).epochs] == [6]


# ------------------------------------------------------------------------------------------------------ time budget


class Clock:
    """Time passes only where a step or a validation says so."""

    def __init__(self, patch: pytest.MonkeyPatch, step_s: Callable[[float], float], *, validation_s: float) -> None:
        self.now = 0.0
        gradients, validate, finish = Learner.gradients, Learner.validate, Learner.finish

        def slow(learner: Learner, *args: Any, **more: Any) -> Any:
            self.now += step_s(self.now)
            return gradients(learner, *args, **more)

        def slow_validation(learner: Learner, scans: Scans) -> Validation:
            self.now += validation_s
            return validate(learner, scans)

        def slow_end(learner: Learner, scans: Scans) -> None:
            self.now += len(scans) * step_s(self.now) / 3
            finish(learner, scans)

        patch.setattr(Learner, "gradients", slow)
        patch.setattr(Learner, "finish", slow_end)
        patch.setattr(Learner, "validate", slow_validation)

    def __call__(self) -> float:
        return self.now


SPEEDS: dict[str, Callable[[float], float]] = {
    "even": lambda t: 1.5,
    "half": lambda t: 1.0 if t < 30 else 2.0,
    "double": lambda t: 2.0 if t < 30 else 1.0,
}


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_time_budget_is_kept_and_its_record_gives_the_same_weights(
    scans: tuple[Scans, Scans], tmp_path: Path, speed: str
) -> None:
    """A minute, on a machine that becomes half or twice as fast in the middle."""
    settings = small_model.settings(train={"minutes": 1.0, "validate_every": 4, "batch": 1})
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch, SPEEDS[speed], validation_s=1.0)
        ran = run(scans, tmp_path / "timed", settings, clock=clock)
    assert 54 <= clock.now <= 60
    plan = ran.epochs[-1].plan
    assert ran.epochs[-1].step == ran.epochs[-1].steps == plan[-1][1]
    assert len(plan) > 1 or speed == "even"
    recorded = run_settings(settings.train, plan=plan)
    assert recorded.minutes is None
    assert recorded.plan == (plan if len(plan) > 1 else ())
    again = run(scans, tmp_path / "again", settings.model_copy(update={"train": recorded}))
    assert again.hash == ran.hash
    assert [e.step for e in again.epochs] == [e.step for e in ran.epochs]


def test_a_resumed_budget_goes_on_with_the_time_that_is_left(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_model.settings(train={"minutes": 1.0, "validate_every": 4, "batch": 1})
    clock = Clock(monkeypatch, lambda t: 2.0, validation_s=0.0)
    _, epochs = start(scans, tmp_path, settings, clock=clock)
    with closing(cast("Any", epochs)):
        next(epochs), next(epochs)
    facts = read_facts(tmp_path)
    assert (facts.step, facts.minutes) == (4, 1.0)
    assert facts.seconds == 2 * (4 + 6), "steps, and those that were timed"
    clock.now = 1000.0
    rest = run(scans, tmp_path, settings, resume=True, clock=clock)
    assert 54 <= clock.now - 1000 + facts.seconds <= 60
    assert rest.epochs[0].step == 8
    recorded = run_settings(settings.train, plan=rest.epochs[-1].plan)
    again = run(scans, tmp_path / "again", settings.model_copy(update={"train": recorded}))
    assert again.hash == rest.hash
    ended = clock.now
    assert not run(scans, tmp_path, settings, resume=True, clock=clock).epochs, "the budget is used up"
    assert clock.now - ended <= 2, "nothing but the end is done again"
    longer = small_model.settings(train={"minutes": 1.5, "validate_every": 4, "batch": 1})
    ended = clock.now
    more = run(scans, tmp_path, longer, resume=True, clock=clock)
    assert 20 <= clock.now - ended <= 35, "half a minute more"
    assert more.epochs[-1].step > rest.epochs[-1].step


def test_the_steps_that_are_timed_leave_no_trace(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda t: 8.0, validation_s=0.0)
    seen: list[Progress] = []
    settings = small_model.settings(train={"minutes": 1.0, "validate_every": 2})
    ran = run(scans, tmp_path / "timed", settings, clock=clock, on_progress=seen.append)
    assert [(one.stage, one.done) for one in seen[:3]] == [("plan", 1), ("plan", 2), ("plan", 3)], "20 s are enough"
    assert [one.stage for one in seen[3:]] == ["train"] * (len(seen) - 3)
    steps = ran.epochs[-1].step
    counted = small_model.settings(train={"steps": steps, "validate_every": 2})
    assert ran.hash == run(scans, tmp_path / "counted", counted).hash


def test_the_shortest_budget_is_a_step(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    settings = small_model.settings(train={"minutes": 1e-6})
    assert [(e.step, e.steps) for e in run(scans, tmp_path, settings).epochs] == [(1, 1)]


def test_progress_is_reported_at_every_step(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    seen: list[Progress] = []
    ran = run(scans, tmp_path, small_model.settings(), on_progress=seen.append)
    assert [(one.stage, one.done, one.total) for one in seen if one.done % 2] == [("train", n, 6) for n in (1, 3, 5)]
    assert seen[-1] == Progress("train", 6, 6, str(ran.epochs[-1]))
