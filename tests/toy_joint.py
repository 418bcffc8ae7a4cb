"""The toy model with the network `joint` in the place of its linear one: untrained, but labels follow the code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from toy_model import SHAPE, toy_model

from medvae.checkpoint.model import build_network
from medvae.settings import ModelSettings
from medvae.vae.distances import truncated_distance
from medvae.vae.networks.joint import Joint

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model

OPTIONS = {"stem": 2, "channels": [8], "latent": 6, "labels": [1, 4]}
NUDGE = 0.5  # how far a code moves the borders


def toy_joint(**more: Any) -> Model:
    """As `toy_model`, whose training label maps have the same two boxes in all scans."""
    toy = toy_model(label_maps=True, **more)
    settings = toy.settings.model_copy(update={"model": ModelSettings(name="joint", options=OPTIONS)})
    with torch.random.fork_rng():
        network = build_network("joint", OPTIONS, settings=settings, conditions=toy.conditions)
    assert isinstance(network, Joint)
    assert network.shapes is not None
    spacing, labels = toy.preparation.grid.spacing, boxes()
    mean = [truncated_distance(labels == value, spacing, reach=network.reach) for value in network.labels]
    network.shapes.begin(torch.from_numpy(np.stack(mean))[None], spacing)
    with torch.no_grad():
        network.shapes.layer.weight.normal_(std=NUDGE, generator=torch.Generator().manual_seed(0))
    codes = toy.latents.mean.reshape(len(toy.latents.ids), -1, 1, 1, 1)
    noise = np.random.default_rng(3).normal(size=(len(codes), *network.latent_shape(SHAPE)))
    mean_codes = (codes + 0.5 * noise).astype(np.float32)
    latents = replace(toy.latents, mean=mean_codes, log_variance=np.full_like(mean_codes, np.log(0.02)))
    maps = np.broadcast_to(boxes(), toy.training.masks.shape).copy()
    training = replace(toy.training, label_maps=maps)
    return replace(toy, networks={"vae": network.eval()}, settings=settings, latents=latents, training=training)


def boxes() -> np.ndarray:
    """Labels `(X, Y, Z)`: two boxes side by side."""
    labels = np.zeros(SHAPE, np.int16)
    labels[4:8, 5:13, 4:10] = 1
    labels[8:12, 5:13, 4:10] = 4
    return labels
