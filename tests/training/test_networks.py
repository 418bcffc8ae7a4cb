"""What is recorded of the networks of a model: the steps that were taken, whatever was planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import small_model

from medvae.run.work import Progress, ignore
from medvae.training.fabric import make_fabric
from medvae.training.networks import Networks, fit_networks
from medvae.training.roles import Roles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("shorter", [{"minutes": 1e-6}, {"steps": 8}], ids=["a budget that is used up", "these steps"])
def test_a_resumed_training_that_ends_at_once_records_the_steps_that_were_taken(
    shorter: dict[str, float], tmp_path: Path
) -> None:
    training, validation = small_model.stored(tmp_path, 3), small_model.stored(tmp_path, 1, start=50)
    roles = Roles(training, (None,) * 3, training, validation)

    def fitted(
        name: str, *, resume: bool = False, on_progress: Callable[[Progress], None] = ignore, **train: object
    ) -> Networks:
        settings = small_model.settings(train={"validate_every": 4, "batch": 1, **train})
        fabric = make_fabric("cpu", precision="32")
        return fit_networks(
            roles, settings, fabric=fabric, folder=tmp_path / name, resume=resume, on_progress=on_progress
        )

    def stop(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("train", 10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted("cut", on_progress=stop, steps=20)  # saved at step 8
    nets = fitted("cut", resume=True, **shorter)
    assert nets.record["steps"] == nets.settings.train.steps == 8
    again = fitted("again", steps=8, plan=nets.settings.train.plan)
    weights = again.vae.state_dict()
    assert all(value.equal(weights[name]) for name, value in nets.vae.state_dict().items()), "its record repeats it"
