"""The toy model with lesions: an untrained network of crops, lesions of a known size, place and change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from toy_model import toy_model

from medvae.checkpoint.lesion_codes import LESION_CODES, LesionCodes
from medvae.lesions.crops import SIDE, frame
from medvae.lesions.network import LESIONS, LesionVAE, build
from medvae.vae.distances import signed_distance

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model

LATENT = 3
CHANGE = -2.0  # of the lesions, give or take a tenth


def toy_lesion(*, known: bool = True, counts: tuple[int, ...] = (1, 2, 3), **more: Any) -> Model:
    """As `toy_model`; its lesions are balls of about 4 mm.

    Of four scans, the first two are without lesions.
    """
    toy = toy_model(**more)
    if toy.training.label_maps is not None:
        toy.training.label_maps[::4] = 0
        toy.training.label_maps[1::4] = 0
    codes = lesion_codes(sum(counts), known=known, counts=counts)
    networks = {**toy.networks, LESIONS: ball_network()}
    return replace(toy, networks=networks, sets={LESION_CODES: codes.to_set()})


def ball_network() -> LesionVAE:
    """A network whose mean crop is a ball with a flat profile; codes change it a little."""
    net = build((4,), LATENT, seed=0)
    line = 2 * 1.7 / (SIDE - 1)
    inside = np.linalg.norm(frame(), axis=0) < 1
    distance = np.clip(signed_distance(inside, (line,) * 3) / 0.5, -1, 1)
    net.mean.copy_(torch.from_numpy(np.stack([np.ones_like(distance), distance]).astype(np.float32)))
    net.spread.fill_(0.02)
    return net.eval().requires_grad_(requires_grad=False)


def lesion_codes(n: int, *, known: bool = True, counts: tuple[int, ...] = (1, 2, 3)) -> LesionCodes:
    """Lesions around the centre of the grid."""
    rng = np.random.default_rng(4)
    unknown = np.full(n, np.nan)
    return LesionCodes(
        mean=rng.normal(size=(n, LATENT)).astype(np.float32),
        log_variance=np.full((n, LATENT), np.log(0.1), np.float32),
        changes=CHANGE + 0.1 * rng.normal(size=n) if known else unknown,
        sizes=np.sort(4 + 0.3 * rng.normal(size=(n, 3)))[:, ::-1].copy(),
        axes=np.broadcast_to(np.eye(3), (n, 3, 3)).copy(),
        places=rng.normal(0, 4, size=(n, 3)) if known else np.full((n, 3), np.nan),
        levels=rng.normal(size=n) if known else unknown,
        counts=np.array(counts, np.int64),
        sources=[f"scan-{i:02d}" for i in range(n)],
        detail=1.0,
        labels=(1,),
    )
