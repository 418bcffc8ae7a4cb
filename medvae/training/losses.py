"""The training objective: −ELBO with a warmed-up β and free bits, per foreground voxel; and the schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

if TYPE_CHECKING:
    from medvae.vae.base import VAE


class Terms(NamedTuple):
    """What one training step or one validation scan gave; sums are over the foreground, means over the batch.

    A tuple, because Fabric looks into what a module returns and refuses frozen dataclasses.

    Attributes:
        loss: what is minimised, nats per foreground voxel.
        reconstruction: −ln p(x|z), nats per scan.
        kl: KL(q‖p), nats per scan.
        error: mean error per voxel: squared, unless the likelihood has another (`Observation.error`).
        mean: posterior means, `(B, C, *latent)`.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    error: Tensor
    mean: Tensor


class Objective(nn.Module):
    """The VAE with its loss: one forward pass, so that data-parallel training sees all of it."""

    def __init__(self, vae: VAE, *, free_bits: float) -> None:
        super().__init__()
        self.vae = vae
        self.free_bits = free_bits

    def forward(
        self,
        *,
        inputs: Tensor,
        image: Tensor,
        mask: Tensor,
        noise: Tensor,
        beta: float,
        fit_spread: bool,
        c: Tensor | None = None,
        label_map: Tensor | None = None,
    ) -> Terms:
        """The loss of a batch.

        Args:
            inputs: what the encoder sees, `(B, 1, X, Y, Z)`.
            image: what is to be reconstructed.
            mask: bool, foreground.
            noise: unit normal of the latent's shape; zeros for z = mean.
            beta: weight of the KL.
            fit_spread: whether a shared σ is the optimum of this batch (training) or the frozen one (scoring).
            c: conditions, `(B, n)`; None for a network without.
            label_map: int16 `(B, 1, X, Y, Z)`, or None; see `VAE.label_loss`.
        """
        vae, scans = self.vae, len(image)
        posterior = vae.encode(inputs, c)
        z = posterior.sample(noise)
        output = vae.render(z, c)
        foreground = mask.flatten().nonzero().flatten()  # most of a grid is air, which has no part in the loss
        output, image = _at(output, foreground), _at(image, foreground)
        observation = vae.observation
        likelihood = observation.fitted(output, image) if fit_spread else observation(output)
        log_p = likelihood.log_prob(image)
        kl = posterior.kl().flatten(2).sum(2) if posterior.mean.ndim > 2 else posterior.kl()
        # free bits (Kingma et al., NeurIPS 2016): a channel's batch mean below the limit costs the limit, no gradient
        penalised = kl.mean(0).clamp(min=self.free_bits).sum()
        weighted = observation.weighted(log_p, likelihood) if fit_spread else log_p
        loss = beta * penalised * scans - weighted.sum()
        labels = None if label_map is None else vae.label_loss(z, label_map, c)
        return Terms(
            loss=(loss if labels is None else loss + labels) / len(foreground),
            reconstruction=-log_p.sum().detach() / scans,
            kl=kl.sum(1).mean().detach(),
            error=observation.error(image, likelihood.mean.detach()),
            mean=posterior.mean.detach(),
        )


def _at(images: Tensor, voxels: Tensor) -> Tensor:
    """The values of a batch `(B, C, X, Y, Z)` at some of its voxels, numbered through all scans: `(1, C, N)`."""
    return images.transpose(0, 1).flatten(1).index_select(1, voxels)[None]


def active_units(means: Tensor, *, threshold: float = 0.01) -> int:
    """Latent units whose posterior mean varies over scans by more than a threshold (Burda et al., ICLR 2016)."""
    return int((means.flatten(1).var(0) > threshold).sum()) if len(means) > 1 else 0


def beta_at(progress: float, *, beta: float, warmup: float) -> float:
    """β rising linearly over the first `warmup` share of the training, from 1% of its value.

    Args:
        progress: share of the training that is done, 0..1.
        beta: its final value.
        warmup: share of the training in which it rises.
    """
    return beta if warmup <= 0 else beta * min(1.0, max(0.01, progress / warmup))


def rate_at(progress: float, *, step: float, warmup: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine to 1% (Loshchilov and Hutter, ICLR 2017).

    Args:
        progress: share of the training that is done, 0..1.
        step: share that this step adds.
        warmup: share of the training in which it rises.
    """
    if progress < warmup:
        return min(1.0, (progress + step) / warmup)
    done = min(1.0, (progress - warmup) / (1 - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(done * math.pi))
