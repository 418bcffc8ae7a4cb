"""How well the model explains a sample: −ELBO per voxel, against that of the training scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from medvae.synthesis.decoding import conditions_of, rows_of_training
from medvae.vae.base import elbo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

SCANS = 16  # training scans, at most, that are encoded to know the range
BEYOND = 1.0  # samples may lie above the training scans' range by this share of it
NOISE = 0.5  # and by this many nats per voxel: what more noise of one σ costs a Gaussian; texture is such noise


def negative_elbo(
    model: Model, image: NDArray[np.float32], mask: NDArray[np.bool_], conditions: Mapping[str, float | str]
) -> float:
    """−ELBO of an image in nats per foreground voxel, with the posterior mean as the draw (Kingma and Welling, 2014).

    Args:
        model: the checkpoint.
        image: `(1, X, Y, Z)`, prepared intensities, background outside its mask.
        mask: bool `(1, X, Y, Z)`, not empty.
        conditions: by column.
    """
    x, inside = (torch.from_numpy(one)[None].to(model.device) for one in (image, mask))
    c = model.condition(conditions)
    with torch.inference_mode():
        posterior = model.vae.encode(x, c)
        bound = elbo(x, inside, posterior=posterior, likelihood=model.vae.decode(posterior.mean, c))
    return -float(bound) / int(mask.sum())


def highest(model: Model) -> float:
    """The highest −ELBO per voxel that a sample may have; infinite where the model keeps no scan.

    The 99.5% quantile of training scans, and beyond it `BEYOND` times their range (0.5% to 99.5%) and `NOISE`. There is
    no lower limit, because a decoded mean has no noise, and the model explains it better than any scan.
    """
    training, rows = model.training, rows_of_training(model)
    if not rows:
        return float("inf")
    chosen = np.unique(np.linspace(0, len(rows) - 1, SCANS).astype(int))
    found = [
        negative_elbo(model, training.images[at].astype(np.float32), training.masks[at], conditions_of(model, rows[at]))
        for at in chosen
    ]
    low, high = np.quantile(found, (0.005, 0.995))
    return float(high + BEYOND * (high - low) + NOISE)
