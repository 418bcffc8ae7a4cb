"""Trainings of the smallest network, for tests of `fit`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from medvae.checkpoint.model import build_vae, weights_hash
from medvae.training.fabric import make_fabric
from medvae.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from medvae.settings import Settings
    from medvae.training.epoch import Epoch
    from medvae.training.store import Scans
    from medvae.vae.base import VAE


@dataclass
class Ran:
    """A training that has ended."""

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


def without_times(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, scans_per_second=0.0) for epoch in epochs]
