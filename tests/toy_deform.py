"""The toy model with the network `deform` in the place of its linear one: untrained, but its maps are no identities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from toy_model import SHAPE, toy_model

from medvae.checkpoint.model import build_network
from medvae.settings import ModelSettings
from medvae.vae.networks.deform import Deform

if TYPE_CHECKING:
    from medvae.checkpoint.kept import Latents
    from medvae.checkpoint.model import Model

OPTIONS = {"stem": 2, "channels": [8], "latent": 6, "velocity": 1, "smooth": 3}


def toy_deform(*, size: float = 300.0, **more: Any) -> Model:
    """As `toy_model`; `size` scales the velocity: at 300 maps move by about a voxel, at 3000 they fold."""
    toy = toy_model(**more)
    known = ModelSettings(name="deform", options=OPTIONS)
    settings = toy.settings.model_copy(update={"model": known})
    with torch.random.fork_rng():
        network = build_network("deform", OPTIONS, settings=settings, conditions=toy.conditions)
    assert isinstance(network, Deform)
    with torch.no_grad():
        network.motion.layers[-1].weight *= size  # type: ignore[operator]
        if network.conditioned.linear is not None:
            network.conditioned.linear.weight.normal_(std=0.03, generator=torch.Generator().manual_seed(0))
    latents = _volumes(toy.latents, network)
    return replace(toy, networks={"vae": network.eval()}, settings=settings, latents=latents)


def _volumes(latents: Latents, network: Deform) -> Latents:
    """Codes of the toy model, one channel each, with some noise of their own in each cell."""
    codes = latents.mean.reshape(len(latents.ids), -1, 1, 1, 1)
    noise = np.random.default_rng(3).normal(size=(len(codes), *network.latent_shape(SHAPE)))
    mean = (codes + 0.5 * noise).astype(np.float32)
    return replace(latents, mean=mean, log_variance=np.full_like(mean, np.log(0.02)))
