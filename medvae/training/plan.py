"""How many steps a training has: given, or worked out from a time budget and corrected as it goes on.

A plan is a list of changes `(step, total)`: from that step on there are `total` steps in all. What the schedules need,
the share of the training that is done, follows from the list alone, so that the same list gives the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.settings import DetectorSettings, Settings, TrainSettings

_USED = 0.95  # share of a time budget that is planned for; what is left is for what varies
_CORRECTIONS = 40  # a plan is corrected at most this many times
_TOLERANCE = 0.02  # a plan stays if the steps that are left change by less than this share
_MEMORY = 0.5  # weight of what was measured before in the seconds of a step
_FORWARD = 1 / 3  # share of a step's time that a forward pass takes


@dataclass(frozen=True)
class Plan:
    """Planned numbers of steps as they changed.

    Attributes:
        changes: `(step, total)`, by ascending step; the first one is at step 0. Of two at one step the later counts.
    """

    changes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.changes]
        if not steps or steps[0] != 0 or steps != sorted(steps) or any(total < step for step, total in self.changes):
            message = f"the plan is {self.changes}, not ascending (step, total) pairs that begin at step 0"
            raise SettingsError(message, hint="copy it from the record of a run, or leave it empty")

    @classmethod
    def given(
        cls,
        settings: TrainSettings | DetectorSettings,
        *,
        section: Literal["train", "detector"],
        known: Plan | None,
        step: int,
    ) -> Plan:
        """The plan of settings without a time budget: a recorded one, or that of a number of steps.

        Args:
            settings: of the network.
            section: their name, for messages.
            known: the plan of a training that is resumed.
            step: steps done of it.

        Raises:
            SettingsError: fewer steps than are done, or another plan than the one that was followed.
        """
        if settings.plan:
            plan = cls(settings.plan)
            if known is not None and known.until(step) != plan.until(step):
                followed = known.until(step)
                message = f"{section}.plan differs from the plan that the first {step} steps followed, {followed}"
                raise SettingsError(message, hint="begin a new training with it")
            return plan
        if settings.steps < step:
            message = f"{section}.steps is {settings.steps}, and {step} steps are done"
            raise SettingsError(message, hint=f"set {section}.steps={step} or more")
        return cls(((0, settings.steps),)) if known is None else known.changed(step, settings.steps)

    @property
    def total(self) -> int:
        """Steps in all, by the latest change."""
        return self.changes[-1][1]

    @property
    def settings(self) -> dict[str, Any]:
        """What repeats a training that followed this plan: its settings `steps` and `plan`."""
        return {"steps": self.total, "plan": self.changes if len(self.changes) > 1 else ()}

    def changed(self, step: int, total: int) -> Plan:
        """The plan with `total` steps in all from `step` on; itself where that changes nothing."""
        return self if total == self.total else Plan((*self.changes, (step, total)))

    def until(self, step: int) -> tuple[tuple[int, int], ...]:
        """The changes that the steps before `step` knew of."""
        return tuple(change for change in self.changes if change[0] < step)

    def progress(self, step: int) -> float:
        """Share of the training that is done before `step`, 0..1; rises evenly between changes, without a jump.

        A training that had ended and was given more steps goes on at the share of them that it has done.
        """
        at, total, done = self._in_force(step)
        return _advanced(done, step - at, total - at)

    def share(self, step: int) -> float:
        """What the step after `step` steps adds to it, whatever changes after that."""
        at, total, done = self._in_force(step)
        return _advanced(done, step + 1 - at, total - at) - self.progress(step)

    def _in_force(self, step: int) -> tuple[int, int, float]:
        """The last change by `step`: at which step, to how many in all, and what was done by then."""
        at, total, done = 0, self.changes[0][1], 0.0
        for change, new in self.changes[1:]:
            if change > step:
                break
            done = _advanced(done, change - at, total - at)
            done = change / new if done >= 1 and new > change else done
            at, total = change, new
        return at, total, done

    def ends(self, step: int) -> bool:
        """Whether the training ended at `step` by the plan it had there: then it is validated, as at its end."""
        before = [total for change, total in self.changes if change < step]
        at = [total for change, total in self.changes if change == step]
        return step in (*before[-1:], *at)


def _advanced(done: float, steps: int, left: int) -> float:
    """`done` after `steps` of the `left` ones that lead to 1."""
    return 1.0 if steps >= left else done + (1 - done) * steps / left


def check_plans(settings: Settings) -> None:
    """Check before training that no recorded plan stands beside another length, which would have no effect.

    Raises:
        SettingsError: a plan and a time budget, or a plan that ends with another number of steps.
    """
    for section, own in (("train", settings.train), ("detector", settings.detector)):
        if not own.plan:
            continue
        if settings.train.minutes is not None:
            message, hint = f"train.minutes and {section}.plan are both set", "leave one of them out"
            raise SettingsError(message, hint=hint)
        total = Plan(own.plan).total
        if own.steps != total:
            message = f"{section}.steps is {own.steps}, and {section}.plan ends with {total} steps"
            raise SettingsError(message, hint=f"set {section}.steps={total}, or leave the plan out")


class Budget:
    """Turns a time budget into a number of steps, from the time that steps and validations take.

    Args:
        seconds: the budget.
        clock: seconds of a steady clock.
        validate_every: steps between validations.
        spent: seconds used before, of a run that is resumed.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float], validate_every: int, spent: float = 0.0) -> None:
        self._limit, self._every, self._clock = seconds * _USED, validate_every, clock
        self._interval = seconds / _CORRECTIONS
        self._start = clock() - spent
        self._mark = clock()
        self._seconds, self._steps = 0.0, 0  # of the steps since the last correction
        self.step_s, self.validation_s, self.end_s = 0.0, 0.0, 0.0

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return self._clock() - self._start

    def begin(self, step_s: float, *, batch: int, validated: int, at_end: int) -> None:
        """First estimates: seconds of a step, and from them those of validating this many scans, and of the end."""
        self.step_s = step_s
        forward_s = step_s * _FORWARD / batch
        self.validation_s, self.end_s = 2 * validated * forward_s, at_end * forward_s
        self._mark = self._clock()

    def step_done(self) -> None:
        """A step has ended."""
        self._seconds += self._lap()
        self._steps += 1

    def validation_done(self) -> None:
        """A validation has ended, and all that belongs to it."""
        self.validation_s = self._lap()

    def plan(self, known: Plan | None, step: int, *, agreed: Callable[[int], int]) -> Plan:
        """The first plan, or how a known one goes on; one that had ended is given as many steps as there is time for.

        Args:
            known: the plan of a training that is resumed.
            step: steps done of it.
            agreed: the total of the first process, which all processes follow.
        """
        total = agreed(self.total(step, None if known is None or step >= known.total else known.total))
        return Plan(((0, total),)) if known is None else known.changed(step, total)

    def corrected(self, plan: Plan, step: int, *, agreed: Callable[[int], int]) -> Plan:
        """A step has ended, and `step` are done: the plan, corrected where it is time to.

        Args:
            plan: so far.
            step: steps done.
            agreed: the total of the first process, which all processes follow.
        """
        self.step_done()
        total = self.total(step, plan.total) if self.due else plan.total
        return plan.changed(step, agreed(total))

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last correction for another one."""
        return self._seconds >= self._interval

    def total(self, step: int, planned: int | None) -> int:
        """Steps in all that the budget allows; `planned` where that is nearly the same.

        Args:
            step: steps done.
            planned: steps in all as planned so far; None for the first plan.
        """
        if self._steps:
            self._measure()
        seconds = self._limit - self.spent - self.validation_s - self.end_s
        left = max(0, int(seconds / max(1e-9, self.step_s + self.validation_s / self._every)))
        if planned is None:
            return step + max(1, left)
        return planned if abs(step + left - planned) <= max(1, _TOLERANCE * (planned - step)) else step + left

    def _measure(self) -> None:
        now = self._seconds / self._steps
        self.step_s = _MEMORY * self.step_s + (1 - _MEMORY) * now
        self._seconds, self._steps = 0.0, 0

    def _lap(self) -> float:
        before, self._mark = self._mark, self._clock()
        return self._mark - before
