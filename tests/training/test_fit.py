"""Fitting: resuming leaves the weights as they are, a time budget is kept and repeatable, failures name a setting."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import small_model
import torch
from safetensors.torch import load_file

from medvae.checkpoint.model import build_vae, weights_hash
from medvae.errors import SettingsError
from medvae.run.work import Progress
from medvae.training import fit as module
from medvae.training.batches import Batch, training_batch
from medvae.training.fabric import make_fabric
from medvae.training.fit import fit, run_settings
from medvae.training.learner import Learner, TrainingError, Validation
from medvae.training.losses import beta_at, rate_at
from medvae.training.state import read_facts
from medvae.training.store import Scans, store
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from medvae.settings import Settings
    from medvae.training.epoch import Epoch
    from medvae.vae.base import VAE

TRAINING, VALIDATION = 5, 3


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scans, Scans]:
    folder = tmp_path_factory.mktemp("cache")
    return small_model.stored(folder, TRAINING), small_model.stored(folder, VALIDATION, start=50)


@dataclass
class Ran:
    vae: VAE
    epochs: list[Epoch]
    folder: Path

    @property
    def hash(self) -> str:
        return weights_hash({"vae": self.vae})

    @property
    def log_scale(self) -> float:
        return float(cast("Any", self.vae.observation).log_scale.detach())


def start(
    scans: tuple[Scans, Scans], folder: Path, settings: Settings, *, resume: bool = False, **more: Any
) -> tuple[VAE, Iterator[Epoch]]:
    vae = build_vae(settings, scans[0].conditions)
    fabric = make_fabric("cpu", precision=more.pop("precision", "32"))
    return vae, fit(vae, scans[0], scans[1], settings, fabric=fabric, folder=folder, resume=resume, **more)


def run(scans: tuple[Scans, Scans], folder: Path, settings: Settings, **more: Any) -> Ran:
    vae, epochs = start(scans, folder, settings, **more)
    return Ran(vae, list(epochs), folder)


def no_validation(scans: tuple[Scans, Scans]) -> tuple[Scans, Scans]:
    return scans[0], Scans([])


@pytest.fixture(scope="module")
def whole(scans: tuple[Scans, Scans], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Six steps, a look after each two, never interrupted."""
    return run(scans, tmp_path_factory.mktemp("whole"), small_model.settings())


def test_epochs_tell_where_the_run_is(whole: Ran) -> None:
    assert [(e.step, e.steps) for e in whole.epochs] == [(2, 6), (4, 6), (6, 6)]
    best = float("inf")
    for epoch in whole.epochs:
        assert epoch.validation is not None
        assert epoch.best == (epoch.validation < best)
        best = min(best, epoch.validation)
        assert 0 <= epoch.active <= 2 * 4**3
        assert epoch.scans_per_second > 0
        assert math.isfinite(epoch.loss + epoch.reconstruction + epoch.kl + epoch.error)


def test_training_lowers_the_loss(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    settings = small_model.settings(train={"steps": 40, "validate_every": 20, "lr": 3e-3})
    first, last = run(scans, tmp_path, settings).epochs
    assert last.loss < first.loss - 0.05
    assert last.validation_error is not None
    assert first.validation_error is not None
    assert last.validation_error < first.validation_error


def test_the_same_settings_give_the_same_weights_and_another_seed_others(
    scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path
) -> None:
    torch.manual_seed(11)
    assert run(scans, tmp_path / "again", small_model.settings()).hash == whole.hash
    assert run(scans, tmp_path / "other", small_model.settings(seed=1)).hash != whole.hash


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path, looks: int
) -> None:
    """Stopped at a look, before what it is worth is written."""
    _, epochs = start(scans, tmp_path, small_model.settings())
    with closing(cast("Any", epochs)):
        seen = [next(epochs) for _ in range(looks)]
    rest = run(scans, tmp_path, small_model.settings(), resume=True)
    assert rest.hash == whole.hash
    assert len(seen) + len(rest.epochs) == 4, "the look that a run was stopped at is done again, and told again"
    assert _told(seen[:-1] + rest.epochs) == _told(whole.epochs)
    assert _told(seen[-1:]) == _told(rest.epochs[:1])
    for name in ("last", "best"):
        ours, theirs = (load_file(f / name / "state.safetensors") for f in (tmp_path, whole.folder))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("stop", [1, 3])
def test_killed_within_an_epoch(
    scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Nothing was saved before the first look (step 1), or the first look was (step 3)."""

    def killed(training: Scans, *, step: int, **more: Any) -> Batch:
        if step == stop:
            raise KeyboardInterrupt
        return training_batch(training, step=step, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "training_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            run(scans, tmp_path, small_model.settings())
    rest = run(scans, tmp_path, small_model.settings(), resume=True)
    assert rest.hash == whole.hash
    assert rest.epochs[0].step == (2 if stop == 1 else 4)


def test_resuming_a_finished_run_gives_its_weights(scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    again = run(scans, tmp_path / "copy", small_model.settings(), resume=True)
    assert not again.epochs
    assert again.hash == whole.hash


def test_not_resuming_begins_anew(scans: tuple[Scans, Scans], whole: Ran, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    assert [e.step for e in run(scans, tmp_path / "copy", small_model.settings()).epochs] == [2, 4, 6]


def _told(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, scans_per_second=0.0) for epoch in epochs]


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
    assert _told(again.epochs[3:]) == _told(rest.epochs)
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


# ----------------------------------------------------------------------------------------------------- what is kept


def test_the_end_is_the_best_averaged_weights_with_the_spread_frozen_on_validation(
    scans: tuple[Scans, Scans], whole: Ran
) -> None:
    best = load_file(whole.folder / "best" / "state.safetensors")
    assert {name.removeprefix("average.") for name in best} == {name for name, _ in whole.vae.named_parameters()}
    for name, parameter in whole.vae.named_parameters():
        assert torch.equal(parameter, best[f"average.{name}"])
    assert not whole.vae.training
    errors = []
    for i in range(VALIDATION):
        image, mask = (torch.from_numpy(a)[None] for a in (scans[1][i].image, scans[1][i].mask))
        seed = np.random.SeedSequence([0, 4, i]).generate_state(1)[0]
        noise = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(int(seed)))
        with torch.no_grad():
            mean = whole.vae.decode(whole.vae.encode(image).sample(noise)).mean
        errors.append(float((image[mask] - mean[mask]).square().mean()))
    assert whole.log_scale == pytest.approx(0.5 * math.log(np.mean(errors)), abs=1e-4)


def test_without_validation_scans_the_last_weights_are_kept(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    ran = run(no_validation(scans), tmp_path, small_model.settings())
    assert all(e.best and e.validation is None and e.validation_error is None for e in ran.epochs)
    last = load_file(tmp_path / "last" / "state.safetensors")
    for name, parameter in ran.vae.named_parameters():
        assert torch.equal(parameter, last[f"average.{name}"])
    assert ran.log_scale != 0


def test_averaged_weights_by_hand(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    """The average of one step is w₀ + (1 − d)(w₁ − w₀) with d = min(ema, 1/10)."""
    settings = small_model.settings(train={"steps": 1, "validate_every": 1})
    initial = dict(build_vae(settings).named_parameters())
    run(no_validation(scans), tmp_path, settings)
    last = load_file(tmp_path / "last" / "state.safetensors")
    for name, before in initial.items():
        expected = before + 0.9 * (last[f"net.{name}"] - before)
        torch.testing.assert_close(last[f"average.{name}"], expected.detach())


def test_the_error_to_beat_is_that_of_the_training_scans_mean(scans: tuple[Scans, Scans], whole: Ran) -> None:
    seen = [scans[0][i] for i in range(TRAINING)]
    mean = sum(one.image for one in seen) / TRAINING  # all have the same foreground
    errors = [np.square(scans[1][i].image - mean)[scans[1][i].mask].mean() for i in range(VALIDATION)]
    assert [e.mean_image_error for e in whole.epochs] == [pytest.approx(np.mean(errors), rel=1e-4)] * 3


def test_the_state_on_disk(whole: Ran) -> None:
    facts = read_facts(whole.folder)
    assert (facts.step, facts.plan, facts.minutes) == (6, ((0, 6),), None)
    assert facts.best_score == min(e.validation for e in whole.epochs if e.validation is not None)


def test_conditions_take_part(tmp_path: Path) -> None:
    """Scans that differ by their condition alone: bright ones of old people, dark ones of young people."""
    files = [tmp_path / "scans" / str(i) for i in range(6)]
    for i, path in enumerate(files):
        one = small_model.scan(0)
        shift = np.where(one.mask, np.float32(3 * (i % 2)), np.float32(0))
        store(replace(one, image=one.image + shift, conditions={"age": 20.0 + 60 * (i % 2)}), path)
    ages = Conditions.fit(["age"], [{"age": 20.0}, {"age": 80.0}])
    scans = Scans(files[:4], ages), Scans(files[4:], ages)
    off = dict.fromkeys(("spatial", "gamma", "bias", "blur", "noise"), 0)
    settings = small_model.settings(train={"steps": 30, "validate_every": 30, "lr": 1e-2, "randomize": off})
    ran = run(scans, tmp_path, settings)
    mask = torch.from_numpy(small_model.scan(0).mask)[None]
    with torch.no_grad():
        z = torch.zeros(1, *ran.vae.latent_shape(small_model.SHAPE))
        young, old = (ran.vae.decode(z, torch.from_numpy(ages.vector({"age": a}))[None]).mean for a in (20.0, 80.0))
    assert (old - young)[mask].mean() == pytest.approx(3, abs=0.6)
    assert run(scans, tmp_path / "again", settings).hash == ran.hash


# ------------------------------------------------------------------------------------------- schedules and stopping


def test_beta_and_rate_follow_their_schedules(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_model.settings(train={"steps": 8, "beta": 2.0, "kl_warmup": 0.5, "warmup": 0.25, "lr": 1e-2})
    betas, rates = [], []
    gradients = Learner.gradients

    def watched(self: Learner, batch: Batch, *, number: int, beta: float) -> Any:
        betas.append(beta)
        rates.append(self.optimizer.param_groups[0]["lr"])
        return gradients(self, batch, number=number, beta=beta)

    monkeypatch.setattr(Learner, "gradients", watched)
    epochs = run(scans, tmp_path, settings).epochs
    assert (
        betas == [beta_at(i / 8, beta=2.0, warmup=0.5) for i in range(8)] == [0.02, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    )
    assert rates == [1e-2 * rate_at(i / 8, step=1 / 8, warmup=0.25) for i in range(8)]
    assert rates[:2] == [0.5e-2, 1e-2]
    assert [e.beta for e in epochs] == [betas[e.step - 1] for e in epochs]


def test_patience(scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([1.0, 0.5, 0.7, 0.6, 0.4, 0.3])
    validate = Learner.validate

    def scored(self: Learner, validation: Scans) -> Validation:
        return validate(self, validation)._replace(loss=next(scores))

    monkeypatch.setattr(Learner, "validate", scored)
    settings = small_model.settings(train={"steps": 12, "patience": 2})
    epochs = run(scans, tmp_path, settings).epochs
    assert [e.step for e in epochs] == [2, 4, 6, 8], "two validations without improvement"
    assert [e.best for e in epochs] == [True, True, False, False]
    assert run_settings(settings.train, plan=epochs[-1].plan).steps == 12, "its schedules were those of 12 steps"
    again = run(scans, tmp_path, settings, resume=True)
    assert not again.epochs, "a resumed training knows that patience is at its end"


# --------------------------------------------------------------------------------------------------------- failures


def test_a_loss_that_is_not_a_number(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    broken = Scans(scans[0].files)
    for i in range(TRAINING):
        bad = scans[0][i].image.copy()
        bad[0, 8, 8, 8] = np.nan
        broken._kept[i] = replace(scans[0][i], image=bad)
    with pytest.raises(TrainingError, match="the loss is not a number at step 0") as caught:
        run((broken, scans[1]), tmp_path, small_model.settings())
    assert "train.lr" in str(caught.value.hint)
    assert caught.value.code == "training"


def test_a_validation_that_is_not_a_number(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    broken = Scans(scans[1].files)
    bad = scans[1][0].image.copy()
    bad[0, 8, 8, 8] = np.nan
    broken._kept[0] = replace(scans[1][0], image=bad)
    with pytest.raises(TrainingError, match="validation scans is not a number after step 2") as caught:
        run((scans[0], broken), tmp_path, small_model.settings())
    assert "train.lr" in str(caught.value.hint)


def test_a_collapsed_posterior(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    settings = small_model.settings(train={"steps": 40, "validate_every": 20, "beta": 1e4, "lr": 2e-2})
    with pytest.raises(TrainingError, match=r"posterior has collapsed at step 40: the KL is 0.\d\d nats") as caught:
        run(scans, tmp_path, settings)
    for setting in ("train.kl_warmup", "train.beta", "train.free_bits"):
        assert setting in str(caught.value.hint)


def test_free_bits_keep_the_posterior_open(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    """The same pull towards the prior; each of the two channels may keep 5 nats."""
    settings = small_model.settings(
        train={"steps": 40, "validate_every": 20, "beta": 1e4, "lr": 2e-2, "free_bits": 5.0}
    )
    assert run(scans, tmp_path, settings).epochs[-1].kl > 2


# ------------------------------------------------------------------------------------------- precision and spread


def test_bf16_asked_for_on_a_cpu_runs(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    settings = small_model.settings(train={"steps": 2, "validate_every": 2})
    ran = run(scans, tmp_path, settings, precision="bf16")
    assert math.isfinite(ran.epochs[0].loss)
    assert {p.dtype for p in ran.vae.parameters()} == {torch.float32}
    whole = run(scans, tmp_path / "32", settings)
    assert ran.epochs[0].loss == pytest.approx(whole.epochs[0].loss, rel=0.05)


@pytest.mark.parametrize("spread", ["learned", "voxel"])
def test_other_spreads_train_and_keep_theirs(scans: tuple[Scans, Scans], tmp_path: Path, spread: str) -> None:
    settings = small_model.settings(likelihood={"spread": spread}, train={"steps": 2})
    ran = run(scans, tmp_path, settings)
    assert (ran.log_scale != 0) == (spread == "learned")
