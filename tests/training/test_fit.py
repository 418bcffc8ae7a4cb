"""Fitting: resuming is not seen in the weights, a time budget is steps, failures say which setting mends them."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import small_model
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from medvae.checkpoint.model import build_vae, weights_hash
from medvae.training import fit as module
from medvae.training.batches import Batch, Scans, training_batch
from medvae.training.fit import Epoch, TrainingError, fit, make_fabric, run_settings
from medvae.training.losses import beta_at, rate_at
from medvae.vae.likelihoods import error_moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from medvae.settings import Settings
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
        return weights_hash(cast("nn.Module", self.vae))

    @property
    def log_scale(self) -> float:
        return float(self.vae.observation.log_scale.detach())


def start(
    scans: tuple[Scans, Scans], folder: Path, settings: Settings, *, resume: bool = False, precision: str = "32"
) -> tuple[VAE, Iterator[Epoch]]:
    vae = build_vae(settings)
    fabric = make_fabric("cpu", precision=precision)
    return vae, fit(vae, scans[0], scans[1], settings, fabric=fabric, folder=folder, resume=resume)


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


# ------------------------------------------------------------------------------------------------------ time budget


def test_a_time_budget_becomes_steps_that_a_resumed_run_keeps(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WARM_STEPS", 1)
    monkeypatch.setattr(module, "_TIMED_STEPS", 2)
    timed = module._Run._time

    def eighth(self: Any, batches: Iterator[Batch], most: int) -> float:
        timed(self, batches, most)
        return 0.125

    monkeypatch.setattr(module._Run, "_time", eighth)
    ticks = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * 0.25)  # a quarter second passes between two looks at it
    monkeypatch.setattr(module, "time", clock)
    settings = small_model.settings(train={"minutes": 0.025, "validate_every": 2})
    vae, epochs = start(scans, tmp_path, settings)
    with closing(cast("Any", epochs)):
        first, _ = next(epochs), next(epochs)
    # a step takes 0.125 s, and a look at the validation 0.25 s, of which there is one in two steps
    assert first.steps == int(0.025 * 60 * 0.95 / (0.125 + 0.125)) == 5
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 100.0))
    rest = run(scans, tmp_path, settings, resume=True)
    assert [(e.step, e.steps) for e in rest.epochs] == [(4, 5), (5, 5)]
    counted = small_model.settings(train={"steps": 5, "validate_every": 2})
    assert rest.hash == run(scans, tmp_path / "counted", counted).hash, "the timed steps leave no trace"
    kept = run_settings(settings.train, steps=5)
    assert kept == counted.train
    assert vae is not rest.vae


def test_slow_steps_are_timed_for_a_while_only(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 2 * module._LONGEST_S))
    taken: list[int] = []
    step = module._Run._step

    def counted(self: Any, batch: Batch) -> Any:
        taken.append(self.step)
        return step(self, batch)

    monkeypatch.setattr(module._Run, "_step", counted)
    run(scans, tmp_path, small_model.settings(train={"minutes": 1e-6}))
    assert taken == [0, 1, 2, 3, 0], "two to warm up, two that are timed, and the one that is trained"


def test_the_shortest_budget_is_a_step(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    settings = small_model.settings(train={"minutes": 1e-6})
    assert [(e.step, e.steps) for e in run(scans, tmp_path, settings).epochs] == [(1, 1)]


# ----------------------------------------------------------------------------------------------------- what is kept


def test_the_end_is_the_best_averaged_weights_with_the_spread_frozen_on_validation(
    scans: tuple[Scans, Scans], whole: Ran
) -> None:
    best = load_file(whole.folder / "best" / "state.safetensors")
    network = cast("nn.Module", whole.vae)
    assert {name.removeprefix("average.") for name in best} == {name for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, best[f"average.{name}"])
    assert not network.training
    errors = []
    for i in range(VALIDATION):
        image, mask = (torch.from_numpy(a)[None] for a in (scans[1][i].image, scans[1][i].mask))
        seed = np.random.SeedSequence([0, 4, i]).generate_state(1)[0]
        noise = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(int(seed)))
        with torch.no_grad():
            mean = whole.vae.decode(whole.vae.encode(image).sample(noise)).mean
        errors.append(float(error_moment(image[mask], mean[mask], family="gaussian")))
    assert whole.log_scale == pytest.approx(0.5 * math.log(np.mean(errors)), abs=1e-4)


def test_without_validation_scans_the_last_weights_are_kept(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    ran = run(no_validation(scans), tmp_path, small_model.settings())
    assert all(e.best and e.validation is None and e.validation_error is None for e in ran.epochs)
    last = load_file(tmp_path / "last" / "state.safetensors")
    for name, parameter in cast("nn.Module", ran.vae).named_parameters():
        assert torch.equal(parameter, last[f"average.{name}"])
    assert ran.log_scale != 0


def test_averaged_weights_by_hand(scans: tuple[Scans, Scans], tmp_path: Path) -> None:
    """The average of one step is w₀ + (1 − d)(w₁ − w₀) with d = min(ema, 1/10)."""
    settings = small_model.settings(train={"steps": 1, "validate_every": 1})
    initial = dict(cast("nn.Module", build_vae(settings)).named_parameters())
    run(no_validation(scans), tmp_path, settings)
    last = load_file(tmp_path / "last" / "state.safetensors")
    for name, before in initial.items():
        expected = before + 0.9 * (last[f"net.{name}"] - before)
        torch.testing.assert_close(last[f"average.{name}"], expected.detach())


def test_the_state_on_disk(whole: Ran) -> None:
    with safe_open(whole.folder / "last" / "state.safetensors", framework="pt") as file:
        facts = file.metadata()
    best = min(e.validation for e in whole.epochs if e.validation is not None)
    assert (int(facts["step"]), int(facts["steps"])) == (6, 6)
    assert float(facts["best_score"]) == best


# ------------------------------------------------------------------------------------------- schedules and stopping


def test_beta_and_rate_follow_their_schedules(
    scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_model.settings(train={"steps": 8, "beta": 2.0, "kl_warmup": 0.5, "warmup": 0.25, "lr": 1e-2})
    betas, rates = [], []
    terms, average = module._Run._terms, module._Run._average

    def watched(self: Any, batch: Batch, **more: Any) -> Any:
        if more["fit_spread"] and more["draw"][0] == 3:
            betas.append(more["beta"])
        return terms(self, batch, **more)

    def averaged(self: Any) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"])
        average(self)

    monkeypatch.setattr(module._Run, "_terms", watched)
    monkeypatch.setattr(module._Run, "_average", averaged)
    epochs = run(scans, tmp_path, settings).epochs
    assert betas == [beta_at(i, steps=8, beta=2.0, warmup=0.5) for i in range(8)]
    assert betas[:5] == [0.02, 0.5, 1.0, 1.5, 2.0]
    assert rates == [1e-2 * rate_at(i, steps=8, warmup=0.25) for i in range(8)]
    assert [e.beta for e in epochs] == [betas[e.step - 1] for e in epochs]


def test_patience(scans: tuple[Scans, Scans], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([1.0, 0.5, 0.7, 0.6, 0.4, 0.3])
    validate = module._Run._validate

    def judged(self: Any, validation: Scans) -> Any:
        _, error, means = validate(self, validation)
        return next(scores), error, means

    monkeypatch.setattr(module._Run, "_validate", judged)
    settings = small_model.settings(train={"steps": 12, "patience": 2})
    epochs = run(scans, tmp_path, settings).epochs
    assert [e.step for e in epochs] == [2, 4, 6, 8], "two looks without improvement"
    assert [e.best for e in epochs] == [True, True, False, False]
    again = run(scans, tmp_path, settings, resume=True)
    assert not again.epochs, "a resumed run knows that patience is at its end"


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
    assert {p.dtype for p in cast("nn.Module", ran.vae).parameters()} == {torch.float32}
    whole = run(scans, tmp_path / "32", settings)
    assert ran.epochs[0].loss == pytest.approx(whole.epochs[0].loss, rel=0.05)


@pytest.mark.parametrize("spread", ["learned", "voxel"])
def test_other_spreads_train_and_keep_theirs(scans: tuple[Scans, Scans], tmp_path: Path, spread: str) -> None:
    settings = small_model.settings(likelihood={"spread": spread}, train={"steps": 2})
    ran = run(scans, tmp_path, settings)
    assert (ran.log_scale != 0) == (spread == "learned")
