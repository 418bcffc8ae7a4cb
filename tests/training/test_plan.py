"""Plans: the share that is done follows from the list alone, without jumps; budgets: measured time becomes steps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvae.errors import SettingsError
from medvae.settings import load_settings
from medvae.training.plan import Budget, Plan, check_plans


def test_a_fixed_number_of_steps_is_done_evenly() -> None:
    plan = Plan(((0, 7),))
    assert [plan.progress(step) for step in range(8)] == [step / 7 for step in range(8)]
    assert plan.total == 7
    assert [step for step in range(8) if plan.ends(step)] == [7]


def test_a_change_alters_the_pace_and_not_what_is_done() -> None:
    """4 of 10 steps are 0.4; with 16 in all, each of the other 12 is 0.05."""
    plan = Plan(((0, 10), (4, 16)))
    assert [plan.progress(step) for step in (0, 2, 4)] == pytest.approx([0, 0.2, 0.4])
    assert [plan.progress(step) for step in (5, 10, 16)] == pytest.approx([0.45, 0.7, 1])


@given(
    first=st.integers(1, 200),
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200)), max_size=6),
)
def test_progress_rises_to_one_and_does_not_know_the_future(first: int, changes: list[tuple[int, int]]) -> None:
    plan, step = Plan(((0, first),)), 0
    for ahead, left in changes:
        if step + ahead >= plan.total:
            break
        step += ahead
        known = [plan.progress(s) for s in range(step + 1)]
        plan = plan.changed(step, step + max(1, left))
        assert [plan.progress(s) for s in range(step + 1)] == known
    shares = [plan.progress(s) for s in range(plan.total + 1)]
    assert shares[0] == 0
    assert shares[-1] == 1
    assert all(0 < b - a <= 1 for a, b in itertools.pairwise(shares))


def test_a_training_that_had_ended_goes_on_at_its_share_of_the_new_steps() -> None:
    plan = Plan(((0, 100),)).changed(100, 400)
    assert plan.progress(99) == 0.99
    assert plan.progress(100) == 0.25
    assert plan.progress(250) == pytest.approx(0.625)
    assert plan.ends(100), "it was validated there, so a repeated run has to validate there, too"
    assert plan.ends(400)
    assert not plan.ends(99)


def test_what_a_step_adds_does_not_know_of_later_changes() -> None:
    first = Plan(((0, 2),))
    later = first.changed(1, 7).changed(7, 70)
    assert later.share(0) == first.share(0) == 0.5
    assert later.share(6) == pytest.approx(0.5 / 6)
    assert later.progress(7) == 0.1


def test_it_ends_where_the_plan_in_force_ends() -> None:
    plan = Plan(((0, 10), (4, 16), (12, 12)))
    assert not plan.ends(10), "by then it was planned for 16"
    assert plan.ends(12)


def test_no_change_is_not_recorded() -> None:
    plan = Plan(((0, 10),))
    assert plan.changed(3, 10) is plan
    assert plan.changed(3, 11).changes == ((0, 10), (3, 11))
    assert plan.changed(3, 11).until(3) == ((0, 10),)
    assert plan.changed(3, 11).until(4) == ((0, 10), (3, 11))


@pytest.mark.parametrize("changes", [(), ((1, 5),), ((0, 5), (4, 9), (3, 9)), ((0, 5), (4, 3))])
def test_a_plan_that_is_none_is_refused(changes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(SettingsError, match="the plan is"):
        Plan(changes)


# --------------------------------------------------------------------------------------------------------- budgets


class Machine:
    """A machine whose steps and validations take as long as they are told to, on a clock of its own."""

    def __init__(self, seconds: float, *, every: int = 10) -> None:
        self.now, self.every = 100.0, every
        self.budget = Budget(seconds, clock=lambda: self.now, validate_every=every)
        self.step = 0

    def begin(self, step_s: float, **more: int) -> Plan:
        self.now += 4 * step_s
        self.budget.begin(step_s, **{"batch": 1, "validated": 0, "at_end": 0, **more})
        return Plan(((0, self.budget.total(0, None)),))

    def run(self, plan: Plan, *, step_s: object, validation_s: float = 0.0) -> Plan:
        while self.step < plan.total:
            self.now += step_s(self.now - 100) if callable(step_s) else step_s  # type: ignore[operator]
            self.step += 1
            self.budget.step_done()
            total = self.budget.total(self.step, plan.total) if self.budget.due else plan.total
            plan = plan.changed(self.step, total)
            if self.step % self.every == 0 or plan.ends(self.step):
                self.now += validation_s
                self.budget.validation_done()
        return plan


def test_an_even_machine_keeps_its_first_plan() -> None:
    machine = Machine(1000)
    plan = machine.begin(1.0)
    assert plan.total == 946, "0.95 of the budget, less the 4 s of measuring"
    assert len(machine.run(plan, step_s=1.0).changes) == 1
    assert machine.now - 100 == 950


@pytest.mark.parametrize(
    "step_s",
    [
        lambda t: 1.0 if t < 500 else 2.0,
        lambda t: 1.0 if t < 500 else 0.5,
        lambda t: 3.0 if t < 40 else 1.0,  # the steps that were timed were slow ones
        lambda t: 1.0 if 200 < t < 300 else 0.2,
        lambda t: 1.0 + (t / 1000),
        lambda t: 0.5 if int(t / 20) % 2 else 1.5,  # uneven all along
    ],
    ids=["half as fast", "twice as fast", "slow start", "busy for a while", "slower and slower", "uneven"],
)
def test_a_budget_is_kept_whatever_the_machine_does(step_s: object) -> None:
    machine = Machine(1000)
    plan = machine.run(machine.begin(step_s(0.0)), step_s=step_s)  # type: ignore[operator]
    assert 900 <= machine.now - 100 <= 1000
    assert len(plan.changes) <= 41
    assert plan.progress(machine.step) == 1


def test_validations_count() -> None:
    machine = Machine(1000)
    machine.run(machine.begin(1.0), step_s=1.0, validation_s=10.0)
    assert 900 <= machine.now - 100 <= 1000


def test_first_guesses_of_validation_and_end_leave_time_for_them() -> None:
    """16 validation scans are 32 forward passes, each a third of a step of one scan."""
    machine = Machine(1000, every=10)
    assert machine.begin(3.0, validated=16, at_end=50).total == int((950 - 12 - 32 - 50) / (3 + 3.2))


def test_steps_longer_than_the_budget_are_one_step() -> None:
    machine = Machine(1.0)
    plan = machine.run(machine.begin(30.0), step_s=30.0)
    assert plan.total == 1


def test_a_budget_that_is_used_up_ends_at_once() -> None:
    machine = Machine(100)
    plan = machine.run(machine.begin(1.0), step_s=lambda t: 1.0 if t < 20 else 200.0)
    assert plan.total == machine.step
    assert machine.now - 100 < 100 + 200


def test_time_used_before_counts() -> None:
    now = 0.0
    budget = Budget(100, clock=lambda: now, validate_every=10, spent=55.0)
    budget.begin(1.0, batch=1, validated=0, at_end=0)
    assert budget.total(70, None) == 70 + 40
    assert budget.total(70, 111) == 111, "one step more or less is no other plan"
    assert budget.total(70, 150) == 110
    now = 5.0
    assert budget.spent == 60


# --------------------------------------------------------------------------------------------------- beside a length


def test_a_plan_beside_another_length_is_refused() -> None:
    """One of the two would have no effect, and nobody would know which."""
    plan = "[[0, 6], [2, 9]]"
    for right in ((), ("train.steps=9", f"train.plan={plan}"), ("detector.steps=9", f"detector.plan={plan}")):
        check_plans(load_settings(None, right))
    for section in ("train", "detector"):
        message = f"{section}.steps is 8, and {section}.plan ends with 9 steps"
        with pytest.raises(SettingsError, match=message) as caught:
            check_plans(load_settings(None, (f"{section}.steps=8", f"{section}.plan={plan}")))
        assert caught.value.hint == f"set {section}.steps=9, or leave the plan out"
        with pytest.raises(SettingsError, match=f"train.minutes and {section}.plan are both set"):
            check_plans(load_settings(None, (f"{section}.plan={plan}", f"{section}.steps=9", "train.minutes=3")))
