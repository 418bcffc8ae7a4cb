"""`fit`: a generator of epochs. What a caller does with them (a bar, logs, pictures) is the caller's business.

A training is a function of (settings, seed, scans, plan): batches and noise come from counters, so that one that was
stopped and resumed ends with the same weights on the CPU. A time budget becomes a plan of steps (`plan`), which is
corrected as the training goes on and recorded.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from medvae.run.work import Progress, ignore
from medvae.training import state
from medvae.training.batches import Batch, ahead, training_batch
from medvae.training.epoch import Epoch
from medvae.training.learner import FROZEN_ON, WATCHED, Learner, Numbers, TrainingError
from medvae.training.losses import active_units
from medvae.training.plan import Budget, Plan
from medvae.vae.base import TrainingScan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from medvae.settings import Settings, TrainSettings
    from medvae.training.store import Scans
    from medvae.vae.base import VAE

_WARM_STEPS, _TIMED_STEPS = 2, 4  # before the first plan of a time budget
_LONGEST_S = 20.0  # for which they are timed


def fit(
    vae: VAE,
    training: Scans,
    validation: Scans,
    settings: Settings,
    *,
    fabric: Fabric,
    folder: Path,
    resume: bool,
    on_progress: Callable[[Progress], None] = ignore,
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Epoch, None, Plan]:
    """Train `vae` in place; afterwards it holds the best averaged weights and a frozen σ.

    Returns the plan of steps that was followed. It is not always that of the last epoch: a training that is resumed
    may end where it is, with no further epoch.

    Args:
        vae: fresh from `build_vae`.
        training: scans that are learned from.
        validation: scans of other subjects; may be empty.
        settings: of the run.
        fabric: device and precision.
        folder: where `last/` and `best/` are kept.
        resume: go on from `folder/last`, if it is there. A training that had ended goes on if it is given more steps
            or minutes.
        on_progress: called after each step, with the stages "plan" and "train".
        clock: seconds; what a time budget is measured with.

    Raises:
        TrainingError: the loss is not a number, or the posterior has collapsed.
        SettingsError: fewer steps than are done, or a plan that is not the one the training followed; or a network that
            cannot be trained on these scans.
    """
    vae.begin(_shown(training))
    run = _Run(vae, settings, fabric=fabric, folder=folder, clock=clock)
    if resume and state.has_state(folder):
        run.restore()
    plan = yield from run.epochs(training, validation, on_progress)
    run.finish(validation if len(validation) else training)
    return plan


def run_settings(settings: TrainSettings, *, plan: Sequence[tuple[int, int]]) -> TrainSettings:
    """The settings with the plan that was followed in place of a time budget, as they are kept in a checkpoint."""
    return settings.model_copy(update={"minutes": None, **Plan(tuple(plan)).settings})


def _shown(scans: Scans) -> Iterator[TrainingScan]:
    """The scans as a network sees them before training."""
    for index in range(len(scans)):
        prepared = scans[index]
        labels = None if prepared.label_map is None else torch.from_numpy(prepared.label_map)
        image, mask = torch.from_numpy(prepared.image), torch.from_numpy(prepared.mask)
        yield TrainingScan(image, mask, labels, prepared.grid.spacing)


class _Run:
    """Where a training is."""

    def __init__(
        self, vae: VAE, settings: Settings, *, fabric: Fabric, folder: Path, clock: Callable[[], float]
    ) -> None:
        self.settings, self.train = settings, settings.train
        self.fabric, self.folder, self.clock, self.begun = fabric, folder, clock, clock()
        self.learner = Learner(vae, settings, fabric=fabric)
        self.step, self.stale = 0, 0
        self.best_score = float("inf")
        self.known: Plan | None = None  # of a training that is resumed
        self.spent, self.minutes = 0.0, self.train.minutes
        self.budget: Budget | None = None
        self.means: deque[Tensor] = deque(maxlen=8)  # posterior means of the last batches

    # ------------------------------------------------------------------------------------------------- the loop

    def epochs(
        self, training: Scans, validation: Scans, on_progress: Callable[[Progress], None]
    ) -> Generator[Epoch, None, Plan]:
        baseline, note = self.learner.mean_image_error(training, validation), ""
        plan = self._begin(training, validation, on_progress)
        steps = range(self.step, plan.total if self.budget is None else sys.maxsize)
        with closing(ahead(self._make(training), steps)) as batches:
            while not self._ended(plan):
                start = self.clock()
                numbers: list[Numbers] = []
                self.means.clear()  # an epoch must not know how the one before was reached
                while not numbers or not self._validates(plan):
                    numbers.append(self._step(next(batches), plan))
                    if self.budget is not None:
                        plan = self.budget.corrected(plan, self.step, agreed=self.fabric.broadcast)
                    on_progress(Progress("train", self.step, plan.total, note))
                scans = len(numbers) * self.train.batch * self.fabric.world_size
                rate = scans / max(1e-9, self.clock() - start)
                epoch = self._epoch(numbers, validation, plan, scans_per_second=rate, baseline=baseline)
                note = str(epoch)
                on_progress(Progress("train", self.step, plan.total, note))
                yield epoch  # first: an epoch that was saved and not logged would be missing from the log for good
                self._save(plan)
        return plan

    def _ended(self, plan: Plan) -> bool:
        return self.step >= plan.total or (self.train.patience > 0 and self.stale >= self.train.patience)

    def _validates(self, plan: Plan) -> bool:
        return self.step % self.train.validate_every == 0 or plan.ends(self.step)

    def _make(self, training: Scans) -> Callable[[int], Batch]:
        world, rank = self.fabric.world_size, self.fabric.global_rank
        return lambda step: training_batch(training, step=step, rank=rank, world=world, settings=self.settings)

    def _step(self, batch: Batch, plan: Plan) -> Numbers:
        progress, share = plan.progress(self.step), plan.share(self.step)
        numbers, means = self.learner.step(batch, number=self.step, progress=progress, share=share)
        self.step += 1
        self.means.append(means)
        return numbers

    def _epoch(
        self,
        steps: Sequence[Numbers],
        validation: Scans,
        plan: Plan,
        *,
        scans_per_second: float,
        baseline: float | None,
    ) -> Epoch:
        mean, found = Numbers.mean(steps), self.learner.validate(validation)
        beta = self.learner.beta(plan.progress(self.step - 1))
        self._check(mean, found.loss, beta=beta)
        best = found.loss is None or found.loss < self.best_score
        self.stale = 0 if best else self.stale + 1
        if best:
            self.best_score = float("inf") if found.loss is None else found.loss
            if self.fabric.is_global_zero:
                state.save_best(self.folder, self.learner.average)
        seen = torch.cat(list(self.means)) if found.means is None or len(found.means) < 2 else found.means
        return Epoch(
            step=self.step,
            plan=plan.changes,
            loss=mean.loss,
            reconstruction=mean.reconstruction,
            kl=mean.kl,
            beta=beta,
            error=mean.error,
            validation=found.loss,
            validation_error=found.error,
            mean_image_error=baseline,
            active=active_units(seen.cpu()),
            scans_per_second=scans_per_second,
            best=best,
        )

    def _check(self, mean: Numbers, validation: float | None, *, beta: float) -> None:
        if validation is not None and not math.isfinite(validation):
            raise TrainingError(
                f"the loss of the validation scans is not a number after step {self.step}",
                hint="lower train.lr, or look at the inputs with `medvae info`",
            )
        if beta >= self.train.beta and mean.kl < 1.0:
            raise TrainingError(
                f"the posterior has collapsed at step {self.step}: the KL is {mean.kl:.2f} nats per scan",
                hint="warm the KL up for longer (train.kl_warmup), lower train.beta, or set train.free_bits",
            )

    # --------------------------------------------------------------------------------------------------- the plan

    def _begin(self, training: Scans, validation: Scans, on_progress: Callable[[Progress], None]) -> Plan:
        """The plan to begin or to go on with."""
        if self.train.plan or self.train.minutes is None:
            self.minutes = None
            return Plan.given(self.train, section="train", known=self.known, step=self.step)
        known, before = self.known, self.minutes
        if known is not None and self.step >= known.total and before is not None and self.train.minutes <= before:
            return known
        self.minutes = self.train.minutes
        self.budget = self._measured(training, validation, on_progress)
        return self.budget.plan(self.known, self.step, agreed=self.fabric.broadcast)

    def _measured(self, training: Scans, validation: Scans, on_progress: Callable[[Progress], None]) -> Budget:
        """The time budget, with the seconds that a few steps take which change nothing."""
        assert self.train.minutes is not None
        every, count = self.train.validate_every, _WARM_STEPS + _TIMED_STEPS
        spent = self.spent + self.clock() - self.begun
        budget = Budget(60 * self.train.minutes, clock=self.clock, validate_every=every, spent=spent)
        start, steps = self.clock(), range(self.step, self.step + count)
        seconds: list[float] = []
        with (
            closing(ahead(self._make(training), steps)) as batches,
            closing(self.learner.seconds_per_step(batches, clock=self.clock, warm=_WARM_STEPS)) as timed,
        ):
            for latest in timed:
                seconds.append(latest)
                on_progress(Progress("plan", len(seconds), count))
                if len(seconds) > 1 and self.fabric.broadcast(self.clock() - start > _LONGEST_S):
                    break
        at_end = min(len(validation) or len(training), FROZEN_ON)
        budget.begin(seconds[-1], batch=self.train.batch, validated=min(len(validation), WATCHED), at_end=at_end)
        return budget

    # ------------------------------------------------------------------------------------------------ begin and end

    def restore(self) -> None:
        """Go on from `last/`."""
        learner = self.learner
        facts = state.load_last(self.folder, learner.vae, learner.average, learner.optimizer)
        self.step, self.known, self.stale = facts.step, Plan(facts.plan), facts.stale
        self.best_score, self.spent, self.minutes = facts.best_score, facts.seconds, facts.minutes

    def finish(self, scans: Scans) -> None:
        """Put the best averaged weights into the network and freeze its σ on these scans."""
        self.fabric.barrier()  # the first process has to have written them
        state.load_best(self.folder, self.learner.average)
        self.learner.finish(scans)

    def _save(self, plan: Plan) -> None:
        """Write `last/`; only the first process does."""
        if self.fabric.is_global_zero:
            learner, spent = self.learner, self.spent if self.budget is None else self.budget.spent
            facts = state.Facts(self.step, plan.changes, self.stale, self.best_score, spent, self.minutes)
            state.save_last(self.folder, learner.vae, learner.average, learner.optimizer, facts)
        if self.budget is not None:
            self.budget.validation_done()
