"""Fitting a detector: repeatable, resumable, by steps or by time; and it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model
import torch

from medvae.errors import SettingsError
from medvae.training import detector as module
from medvae.training import state
from medvae.training.detector import fit_detector, for_vae
from medvae.training.fabric import make_fabric
from medvae.training.learner import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

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
) -> tuple[Detector, int]:
    given = {} if clock is None else {"clock": clock}
    return fit_detector(
        scans,
        chosen,
        fabric=make_fabric("cpu", precision="32"),
        folder=folder,
        resume=resume,
        **given,
    )


def same(first: Detector, second: Detector) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_an_interrupted_training_ends_with_the_same_weights(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY", 2)
    whole, steps = fitted(scans, tmp_path / "whole", settings())
    assert steps == 4

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
    more, steps = fitted(scans, tmp_path, settings(6), resume=True)
    assert steps == 6
    assert not same(first, more)
    with pytest.raises(SettingsError, match="6 steps are done"):
        fitted(scans, tmp_path, settings(5), resume=True)


class Clock:
    """A second between any two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_time_budget_becomes_a_number_of_steps_that_is_kept(scans: Scans, tmp_path: Path) -> None:
    chosen = settings(minutes=0.2, share=0.5)
    whole, steps = fitted(scans, tmp_path / "by time", chosen, clock=Clock())
    assert steps == int(60 * 0.2 * 0.5 * 0.95)  # at a second each
    counted, _ = fitted(scans, tmp_path / "by steps", settings(steps))
    assert same(whole, counted), "measuring changes nothing"
    longer, more = fitted(scans, tmp_path / "by time", settings(minutes=0.4), resume=True, clock=Clock())
    assert more == 2 * steps
    assert not same(whole, longer)


def test_the_vae_has_the_rest_of_the_time() -> None:
    assert for_vae(settings(minutes=10, share=0.3)).train.minutes == pytest.approx(7)
    assert for_vae(settings(0, minutes=10)).train.minutes == 10
    assert for_vae(settings()).train.minutes is None


def test_it_learns_to_mark_anomalies(scans: Scans, tmp_path: Path) -> None:
    net, _ = fitted(scans, tmp_path, settings(40, channels=[8, 16], patch=[16, 16, 16], batch=4))
    rises = []
    for index in (20, 21, 22):
        both = [small_model.scan(index, lesion=lesion, align="mni152") for lesion in (0.0, 6.0)]
        before, after = (net.log_odds(one.image, one.mask)[small_model.LESION].mean() for one in both)
        rises.append(after - before)
    assert min(rises) > 1


def test_unaligned_scans_have_a_detector_too(scans: Scans, tmp_path: Path) -> None:
    net, _ = fitted(scans, tmp_path, settings(align="none"))
    assert net.usual is None
    one = small_model.scan(0)
    assert np.isfinite(net.log_odds(one.image, one.mask)).all()


def test_a_loss_that_is_no_number(scans: Scans, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="detector"):
        fitted(scans, tmp_path, settings(lr=1e30))
    assert not (tmp_path / state.LAST).exists()
