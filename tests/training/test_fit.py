"""Fitting: resuming leaves the weights as they are, the best averaged ones are kept, failures name a setting."""

from __future__ import annotations

import math
import shutil
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import small_model
import torch
from safetensors.torch import load_file
from small_training import Ran, run, start, without_times

from medvae.checkpoint.model import build_vae
from medvae.training import fit as module
from medvae.training.batches import Batch, training_batch
from medvae.training.fit import run_settings
from medvae.training.learner import Learner, TrainingError, Validation
from medvae.training.losses import beta_at, rate_at
from medvae.training.state import read_facts
from medvae.training.store import Scans, store
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from pathlib import Path


TRAINING, VALIDATION = 5, 3


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scans, Scans]:
    folder = tmp_path_factory.mktemp("cache")
    return small_model.stored(folder, TRAINING), small_model.stored(folder, VALIDATION, start=50)


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
    assert without_times(seen[:-1] + rest.epochs) == without_times(whole.epochs)
    assert without_times(seen[-1:]) == without_times(rest.epochs[:1])
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
