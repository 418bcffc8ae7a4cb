"""A trained model: its networks, how scans are prepared for them, and what it keeps. `folder` saves and loads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from medvae.settings import configure
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from medvae.checkpoint.arrays import ArraySet
    from medvae.checkpoint.kept import Latents, TrainingScans
    from medvae.prepare.preparation import Preparation, Prepared
    from medvae.settings import Settings
    from medvae.vae.base import VAE, Posterior

MAIN = "vae"  # the network that every model has


@dataclass(frozen=True, eq=False)
class Model:
    """What a checkpoint gives back.

    Attributes:
        networks: by name, with their averaged weights, in eval mode; `vae` is always there.
        preparation: scan -> model grid.
        settings: of the training run.
        latents: of the training scans.
        training: prepared training scans, maybe none.
        hash: SHA-256 of the weights of all networks.
        conditions: what the networks are given besides the image.
        sets: other named sets of arrays, e.g. "reference"; whoever adds one knows what it means.
        record: how it was trained.
        path: the folder it was loaded from; None where it was not.
    """

    networks: Mapping[str, VAE] = field(repr=False)
    preparation: Preparation
    settings: Settings
    latents: Latents
    training: TrainingScans
    hash: str
    conditions: Conditions = field(default_factory=Conditions)
    sets: Mapping[str, ArraySet] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def vae(self) -> VAE:
        """The network that reconstructs scans."""
        return self.networks[MAIN]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(chain(self.vae.parameters(), self.vae.buffers())).device

    def with_set(self, name: str, kept: ArraySet) -> Model:
        """The same model with a set added or replaced."""
        return replace(self, sets={**self.sets, name: kept})

    def condition(self, values: Mapping[str, float | str]) -> torch.Tensor | None:
        """`(1, conditions.size)` on the device, what the networks take as `c`; None for a model without conditions.

        Raises:
            SettingsError: a value that the training scans did not have the kind of.
        """
        if not self.conditions.columns:
            return None
        return torch.from_numpy(self.conditions.vector(values))[None].to(self.device)

    def encode_prepared(self, prepared: Prepared) -> Posterior:
        """q(z|x, c) of one prepared scan, in float32."""
        image = torch.from_numpy(prepared.image)[None].to(self.device)
        with torch.no_grad():
            return self.vae.encode(image, self.condition(prepared.conditions))

    def __repr__(self) -> str:
        grid = self.preparation.grid
        shape, mm = ("x".join(f"{n:g}" for n in values) for values in (grid.shape, grid.spacing))
        facts = [f"{self.settings.model.name}", f"grid {shape} at {mm} mm", f"{len(self.latents.ids)} training scans"]
        facts += [f"conditions {', '.join(self.conditions.names)}"] if self.conditions.columns else []
        facts += [one.summary for one in self.sets.values() if one.summary]
        return f"Model({'; '.join(facts)})"


def weights_hash(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 over names and values of all weights of all networks."""
    digest = sha256()
    for network, module in sorted(networks.items()):
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{network}.{name}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_vae(settings: Settings, conditions: Conditions | None = None) -> VAE:
    """The untrained network that the settings name; its weights follow from the seed of the run alone.

    Raises:
        SettingsError: an unknown network or option, a grid that does not fit.
    """
    return build_network(settings.model.name, settings.model.options, settings=settings, conditions=conditions)


def build_network(
    name: str, options: Mapping[str, Any], *, settings: Settings, conditions: Conditions | None = None
) -> VAE:
    """An untrained network of any name for the grid, likelihood and seed of a run.

    Raises:
        SettingsError: an unknown network or option, a grid that does not fit.
    """
    module, known = configure("networks", name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        size = (conditions or Conditions()).size
        network: VAE = module.build(known, settings.likelihood, settings.prepare.shape, conditions=size)
    network.architecture = {"name": name, "options": known.model_dump(mode="json")}
    return network


def with_all_options(settings: Settings) -> Settings:
    """The settings with the network's defaults written out: a later version may have others."""
    _, options = configure("networks", settings.model.name, settings.model.options)
    network = settings.model.model_copy(update={"options": options.model_dump(mode="json")})
    return settings.model_copy(update={"model": network})
