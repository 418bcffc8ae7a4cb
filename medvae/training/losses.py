"""The training objective: −ELBO with a warmed-up β and free bits, per foreground voxel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from medvae.vae.likelihoods import Gaussian, Laplace, error_moment

if TYPE_CHECKING:
    from medvae.vae.base import VAE
    from medvae.vae.likelihoods import Likelihood


class Terms(NamedTuple):
    """What one step or one look at the validation scans gave; sums are over the foreground, means over the batch.

    A tuple, because Fabric looks into what a module returns and refuses frozen dataclasses.

    Attributes:
        loss: what is minimised, nats per foreground voxel.
        reconstruction: −ln p(x|z), nats a scan.
        kl: KL(q‖p), nats a scan.
        error: mean squared (Laplace: absolute) error a voxel.
        kl_by_channel: nats a scan of each latent channel, `(C,)`.
        mean: posterior means, `(B, C, *latent)`.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    error: Tensor
    kl_by_channel: Tensor
    mean: Tensor


class Objective(nn.Module):
    """The VAE with its loss: one forward pass, so that data-parallel training sees all of it."""

    def __init__(self, vae: VAE, *, free_bits: float) -> None:
        super().__init__()
        self.vae = cast("nn.Module", vae)
        self._vae = [vae]  # the same object, typed; a list so that it is not registered twice
        self.free_bits = free_bits

    def forward(
        self, *, inputs: Tensor, image: Tensor, mask: Tensor, noise: Tensor, beta: float, fit_spread: bool
    ) -> Terms:
        """The loss of a batch.

        Args:
            inputs: what the encoder sees, `(B, 1, X, Y, Z)`.
            image: what is to be reconstructed.
            mask: bool, foreground.
            noise: unit normal of the latent's shape; zeros for z = mean.
            beta: weight of the KL.
            fit_spread: whether a shared σ is the optimum of this batch (training) or the frozen one (scoring).
        """
        vae, scans = self._vae[0], len(image)
        posterior = vae.encode(inputs)
        output = vae.render(posterior.sample(noise))
        foreground = mask.flatten().nonzero().flatten()  # most of a grid is air, which has no part in the loss
        output, image = _at(output, foreground), _at(image, foreground)
        observation = vae.observation
        likelihood = observation.fitted(output, image) if fit_spread else observation(output)
        log_p = likelihood.log_prob(image)
        kl = posterior.kl()
        by_channel = kl.flatten(2).sum(2) if kl.ndim > 2 else kl
        # free bits (Kingma et al., NeurIPS 2016): a channel's batch mean below the limit costs the limit, no gradient
        penalised = by_channel.mean(0).clamp(min=self.free_bits).sum()
        weighted = _beta_nll(log_p, likelihood) if observation.channels == 2 and fit_spread else log_p
        return Terms(
            loss=(beta * penalised * scans - weighted.sum()) / len(foreground),
            reconstruction=-log_p.sum().detach() / scans,
            kl=by_channel.sum(1).mean().detach(),
            error=error_moment(image, likelihood.mean.detach(), family=observation.family),
            kl_by_channel=by_channel.mean(0).detach(),
            mean=posterior.mean.detach(),
        )


def _at(images: Tensor, voxels: Tensor) -> Tensor:
    """The values of a batch `(B, C, X, Y, Z)` at some of its voxels, numbered through all scans: `(1, C, N)`."""
    return images.transpose(0, 1).flatten(1).index_select(1, voxels)[None]


def _beta_nll(log_p: Tensor, likelihood: Likelihood) -> Tensor:
    """β-NLL (Seitzer et al., ICLR 2022) with β = ½: each voxel weighted by its σ, held constant; mean weight 1.

    Without it a learned σ by voxel explains hard voxels away before their mean is learned.
    """
    assert isinstance(likelihood, Gaussian | Laplace)
    scale = likelihood.log_scale.detach().exp()
    return log_p * (scale / scale.mean())


def active_units(means: Tensor, *, threshold: float = 0.01) -> int:
    """Latent units whose posterior mean varies over scans by more than a threshold (Burda et al., ICLR 2016)."""
    return int((means.flatten(1).var(0) > threshold).sum()) if len(means) > 1 else 0


def beta_at(step: int, *, steps: int, beta: float, warmup: float) -> float:
    """β rising linearly over the first `warmup` share of the steps, from 1% of its value."""
    if warmup <= 0:
        return beta
    return beta * min(1.0, max(0.01, step / (warmup * steps)))


def rate_at(step: int, *, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to 1%."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    progress = min(1.0, (step - rise) / max(1, steps - rise))
    return 0.01 + 0.99 * 0.5 * float(1 + torch.cos(torch.tensor(progress * torch.pi)))
