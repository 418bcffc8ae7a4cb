"""Fitting a detector: repeatable, resumable, by steps or by time; and it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model
import torch
from safetensors.torch import load_file, save_file

from medvae.detector.noise import coarse_noise
from medvae.errors import OutputError, SettingsError
from medvae.training import detector as module
from medvae.training import state
from medvae.training.detector import fit_detector, for_vae
from medvae.training.fabric import make_fabric
from medvae.training.learner import TrainingError
from medvae.training.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.nn import Module

    from medvae.detector.network import Detector
    from medvae.settings import Settings
    from medvae.training.store import Scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 4, align="mni152")


def settings(steps: int = 4, *, minutes: float | None = None, align: str = "mni152", **more: Any) -> Settings:
    detector = {"steps": steps, "channels": [4, 8], "patch": [12, 12, 12], "lr": 1e-2, **more}
    return small_model.settings(align=align, detector=detector, train={"minutes": minutes})


def fitted(
    scans: Scans, folder: Path, chosen: Settings, *, resume: bool = False, clock: Any = None
) -> tuple[Detector, Plan]:
    given = {} if clock is None else {"clock": clock}
    return fit_detector(
        scans,
        chosen,
        fabric=make_fabric("cpu", precision="32"),
        folder=folder,
        resume=resume,
        **given,
    )


def same(first: Module, second: Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_an_interrupted_training_ends_with_the_same_weights(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY", 2)
    whole, plan = fitted(scans, tmp_path / "whole", settings())
    assert plan == Plan(((0, 4),))

    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    chosen = settings()
    with pytest.raises(KeyboardInterrupt):
        fit_detector(
            scans,
            chosen,
            fabric=make_fabric("cpu", precision="32"),
            folder=tmp_path / "stopped",
            resume=False,
            on_progress=stop,
        )
    resumed, _ = fitted(scans, tmp_path / "stopped", settings(), resume=True)
    assert same(whole, resumed)
    again, _ = fitted(scans, tmp_path / "whole", settings(), resume=True)
    assert same(whole, again), "nothing is left to do"


def test_more_steps_go_on_and_fewer_are_refused(scans: Scans, tmp_path: Path) -> None:
    first, _ = fitted(scans, tmp_path, settings())
    more, plan = fitted(scans, tmp_path, settings(6), resume=True)
    assert plan == Plan(((0, 4), (4, 6)))
    assert not same(first, more)
    with pytest.raises(SettingsError, match="6 steps are done"):
        fitted(scans, tmp_path, settings(5), resume=True)


class Clock:
    """Time that passes with gradients alone: so many seconds each, which may depend on the time."""

    def __init__(self, patch: pytest.MonkeyPatch, step_s: Callable[[float], float]) -> None:
        self.now = 0.0
        gradients = module._Run.gradients

        def slow(run: module._Run, patches: module.Patches) -> torch.Tensor:
            self.now += step_s(self.now)
            return gradients(run, patches)

        patch.setattr(module._Run, "gradients", slow)

    def __call__(self) -> float:
        return self.now


SPEEDS: dict[str, Callable[[float], float]] = {
    "even": lambda _: 1.0,
    "half": lambda now: 1.0 if now < 15 else 2.0,
    "double": lambda now: 2.0 if now < 15 else 1.0,
}


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_time_budget_is_kept_and_its_plan_gives_the_same_weights(scans: Scans, tmp_path: Path, speed: str) -> None:
    """Half a minute, on a machine that becomes half or twice as fast in the middle."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch, SPEEDS[speed])
        whole, plan = fitted(scans, tmp_path / "by time", settings(minutes=1.0, share=0.5), clock=clock)
    assert 26 <= clock.now <= 30
    assert (len(plan.changes) > 1) == (speed != "even")
    again, _ = fitted(scans, tmp_path / "by plan", settings(**plan.settings))
    assert same(whole, again), "measuring changes nothing"


def test_a_resumed_budget_goes_on_with_the_time_that_is_left(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda _: 1.0)
    chosen = settings(minutes=1.0, share=0.5)
    monkeypatch.setattr(module, "_EVERY", 5)

    def stop(progress: Any) -> None:
        if progress.done == 12:
            raise KeyboardInterrupt

    make = make_fabric("cpu", precision="32")
    with pytest.raises(KeyboardInterrupt):
        fit_detector(scans, chosen, fabric=make, folder=tmp_path, resume=False, on_progress=stop, clock=clock)
    clock.now = 1000.0
    whole, plan = fitted(scans, tmp_path, chosen, resume=True, clock=clock)
    timed = module._TIMED + 1
    assert 26 <= clock.now - 1000 + (timed + 10) <= 30, "ten steps were saved, after those that were timed"
    begun = clock.now
    _, ended = fitted(scans, tmp_path, chosen, resume=True, clock=clock)
    assert (ended, clock.now) == (plan, begun), "the budget is used up"
    longer, more = fitted(scans, tmp_path, settings(minutes=2.0), resume=True, clock=clock)
    assert clock.now - begun == pytest.approx(30, abs=2)
    assert more.total > plan.total
    assert not same(whole, longer)
    again, _ = fitted(scans, tmp_path / "again", settings(**more.settings))
    assert same(longer, again)


def test_the_vae_has_the_rest_of_the_time() -> None:
    assert for_vae(settings(minutes=10, share=0.3)).train.minutes == pytest.approx(7)
    assert for_vae(settings(0, minutes=10)).train.minutes == 10
    assert for_vae(settings()).train.minutes is None


def test_it_learns_to_mark_anomalies(scans: Scans, tmp_path: Path) -> None:
    net, _ = fitted(scans, tmp_path, settings(80, channels=[8, 16], patch=[16, 16, 16], batch=4))
    rises = []
    for index in (20, 21, 22):
        both = [small_model.scan(index, lesion=lesion, align="mni152") for lesion in (0.0, 6.0)]
        before, after = (net.log_odds(one.image, one.mask)[small_model.LESION].mean() for one in both)
        rises.append(after - before)
    assert min(rises) > 1


@pytest.mark.parametrize("align", ["mni152", "none"])
def test_it_learns_to_take_coarse_noise_out(scans: Scans, tmp_path: Path, align: str) -> None:
    chosen = settings(60, align=align, channels=[8, 16], patch=[16, 16, 16], batch=4)
    net, _ = fitted(scans, tmp_path, chosen)
    before, after = [], []
    for index in range(20, 26):
        one, rng = small_model.scan(index, align=align), np.random.default_rng(index)
        noise = coarse_noise(one.image[0], one.mask[0], spacing=one.grid.spacing, rng=rng)[None]
        left = noise + net.change(one.image + noise * one.mask, one.mask)
        before.append(noise[one.mask])
        after.append(left[one.mask])
    assert np.square(np.concatenate(after)).mean() < 0.8 * np.square(np.concatenate(before)).mean()


def test_noise_is_added_to_the_scan_without_anomalies(scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown anomalies that it is to keep, a denoiser would learn to keep them."""
    source = module._Source(scans, settings(align="none"), scans[0].grid, None)
    plain, corrupt = source.patches(3), module.corrupt

    def spoilt(*args: Any, **more: Any) -> Any:
        made = corrupt(*args, **more)
        return replace(made, image=made.image + 1000)

    monkeypatch.setattr(module, "corrupt", spoilt)
    other = source.patches(3)
    assert not torch.equal(plain.shown, other.shown)
    assert torch.equal(plain.noisy, other.noisy)
    assert not plain.noisy[~plain.mask].any()
    assert (~plain.mask).any()


def test_neither_network_slows_the_other_one_down(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are clipped for each: with a denoiser whose noise is huge the finder has the same weights."""
    whole, _ = fitted(scans, tmp_path / "whole", settings())
    monkeypatch.setattr(module, "coarse_noise", lambda *args, **more: 100 * coarse_noise(*args, **more))
    loud, _ = fitted(scans, tmp_path / "loud", settings())
    assert same(whole.finder, loud.finder)
    assert not same(whole.denoiser, loud.denoiser)


def test_unaligned_scans_have_a_detector_too(scans: Scans, tmp_path: Path) -> None:
    net, _ = fitted(scans, tmp_path, settings(align="none"))
    assert net.usual is None
    one = small_model.scan(0)
    assert np.isfinite(net.log_odds(one.image, one.mask)).all()


def test_a_loss_that_is_no_number(scans: Scans, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="detector"):
        fitted(scans, tmp_path, settings(lr=1e30))
    assert not (tmp_path / state.LAST).exists()


def test_the_state_of_another_network_is_no_state(scans: Scans, tmp_path: Path) -> None:
    fitted(scans, tmp_path, settings())
    path = tmp_path / state.LAST / "detector.safetensors"
    tensors = load_file(path)
    save_file({name.replace("net.finder.", "net."): value for name, value in tensors.items()}, path)
    with pytest.raises(OutputError, match="another version"):
        fitted(scans, tmp_path, settings(), resume=True)
