"""What a VAE is here: a posterior, a likelihood, and the ELBO between them, in nats over the foreground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvae.scan import Shape
    from medvae.vae.likelihoods import Likelihood, Observation

LOG_VARIANCE_RANGE = (-14.0, 6.0)  # keeps exp and KL finite in float32, far outside of what is learned


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(z|x): a diagonal Gaussian.

    Attributes:
        mean: float32 `(B, C, *latent)`.
        log_variance: float32, the same shape.
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> Posterior:
        """From a network's output `(B, 2C, *latent)`, in float32 and clamped whatever the autocast."""
        mean, log_variance = parameters.float().chunk(2, dim=1)
        return cls(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + σ·noise, for unit normal `noise` of the mean's shape (or with more in the batch)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ N(0, I)) of each latent unit in nats, `(B, C, *latent)`: ½(σ² + μ² − 1 − ln σ²)."""
        return 0.5 * (self.log_variance.exp() + self.mean**2 - 1 - self.log_variance)

    def log_prob(self, z: Tensor) -> Tensor:
        """ln q(z|x) in nats, `(B,)`."""
        square = (z - self.mean) ** 2 * torch.exp(-self.log_variance)
        return -0.5 * (square + self.log_variance + math.log(2 * math.pi)).flatten(1).sum(1)


class VAE(nn.Module):
    """A network with an encoder and a decoder; base class of all networks.

    - `encode(x, c)` takes prepared images `(B, 1, X, Y, Z)` and gives q(z|x, c).
    - `render(z, c)` gives the decoder's raw output, which `observation` turns into a likelihood.
    - `latent_shape(grid)` is `(C, *latent)`; it raises SettingsError where the grid does not fit.
    - `c` is `(B, n)`, see `medvae.vae.conditions`; None for a network that was built without conditions.

    Attributes:
        stride: grid voxels that a latent cell spans along an axis; None where the latent has no place.
        observation: from the decoder's output to p(x|z).
        architecture: name and options that it was built from (`medvae.checkpoint.model.build_network`).
    """

    stride: int | None
    observation: Observation
    architecture: Mapping[str, Any]

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x, c) of prepared images `(B, 1, X, Y, Z)`."""
        raise NotImplementedError

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output `(B, channels, X, Y, Z)`."""
        raise NotImplementedError

    def decode(self, z: Tensor, c: Tensor | None = None) -> Likelihood:
        """p(x|z, c) on the grid."""
        likelihood: Likelihood = self.observation(self.render(z, c))
        return likelihood

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C, *latent)` of a grid.

        Raises:
            SettingsError: the grid does not fit.
        """
        raise NotImplementedError


def log_likelihood(x: Tensor, mask: Tensor, likelihood: Likelihood) -> Tensor:
    """ln p(x|z) in nats, summed over the foreground: `(B,)` float32."""
    return (likelihood.log_prob(x).float() * mask).flatten(1).sum(1)


def elbo(x: Tensor, mask: Tensor, *, posterior: Posterior, likelihood: Likelihood) -> Tensor:
    """The evidence lower bound of each scan in nats, `(B,)`: ln p(x|z) − KL(q(z|x) ‖ p(z)), with β = 1."""
    return log_likelihood(x, mask, likelihood) - posterior.kl().flatten(1).sum(1)


def negative_elbo_map(x: Tensor, mask: Tensor, *, posterior: Posterior, likelihood: Likelihood) -> Tensor:
    """−ELBO by voxel in nats, `(B, 1, X, Y, Z)`: sums to −`elbo` of the same draw, 0 outside the mask."""
    return -likelihood.log_prob(x).float() * mask + spread_kl(posterior.kl(), mask)


def spread_kl(kl: Tensor, mask: Tensor) -> Tensor:
    """Each latent cell's KL spread evenly over its foreground voxels; the sum is kept.

    Args:
        kl: `(B, C, *latent)` nats. A latent without place (`(B, C)`) is spread over the whole foreground.
        mask: bool `(B, 1, X, Y, Z)`, some foreground in each scan.

    Returns:
        `(B, 1, X, Y, Z)` nats. A cell without foreground gives its KL to the nearest cell that has some.
    """
    mask = mask.to(kl.dtype)
    cells = kl.sum(1, keepdim=True)
    if kl.ndim == 2:
        return cells[..., None, None, None] * mask / mask.flatten(1).sum(1).view(-1, 1, 1, 1, 1)
    block = [n // m for n, m in zip(mask.shape[2:], cells.shape[2:], strict=True)]
    voxels = F.avg_pool3d(mask, block) * math.prod(block)
    cells = torch.stack([_moved(one, count) for one, count in zip(cells, voxels, strict=True)])
    share = cells / voxels.clamp(min=1)
    for axis, length in enumerate(block, start=2):
        share = share.repeat_interleave(length, dim=axis)
    return share * mask


def _moved(cells: Tensor, voxels: Tensor) -> Tensor:
    """The KL of cells without voxels, moved to the nearest cell with some; both `(1, *latent)`."""
    empty = (voxels[0] < 0.5).cpu().numpy()
    if not empty.any() or empty.all():
        return cells
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    index = torch.from_numpy(np.ravel_multi_index(tuple(nearest), empty.shape).ravel()).to(cells.device)
    return torch.zeros_like(cells).view(-1).index_add(0, index, cells.reshape(-1)).view_as(cells)


@torch.no_grad()
def importance_bound(
    vae: VAE, x: Tensor, mask: Tensor, *, draws: int, generator: torch.Generator
) -> tuple[float, float]:
    """The importance-weighted bound of one scan in nats, and its effective sample size (Burda et al., ICLR 2016).

    L_K = ln (1/K) Σ_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x); in expectation it rises with K, from the ELBO towards
    ln p(x). With a million voxels the ln w_k differ by tens of nats: then the effective sample size (Σw)² / Σw² is near
    1, one draw decides, and L_K is still far from the evidence and noisy. Read both.

    Args:
        vae: the network.
        x: `(1, 1, X, Y, Z)`.
        mask: bool, the same shape.
        draws: K.
        generator: of the draws, on the CPU.
    """
    posterior = vae.encode(x)
    weights = []
    for _ in range(draws):
        z = posterior.sample(torch.randn(posterior.mean.shape, generator=generator).to(x.device))
        prior = -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(1)
        weights.append(log_likelihood(x, mask, vae.decode(z)) + prior - posterior.log_prob(z))
    w = torch.stack(weights).double().flatten()
    bound = torch.logsumexp(w, 0) - math.log(draws)
    share = torch.softmax(w, 0)
    return float(bound), float(1 / (share**2).sum())
