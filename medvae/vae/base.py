"""What a VAE is here: a posterior, a likelihood, and the ELBO between them, in nats over the foreground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from medvae.scan import Shape
    from medvae.vae.observation import Likelihood, Observation

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
    def from_parameters(cls, parameters: Tensor) -> Posterior:
        """From a network's output `(B, 2C, *latent)`, means first; float32 whatever the autocast, clamped."""
        mean, log_variance = parameters.float().chunk(2, dim=1)
        return cls(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + σ·noise, for unit normal `noise` of the mean's shape (or with more in the batch)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ N(0, I)) of each latent unit in nats, `(B, C, *latent)`: ½(σ² + μ² − 1 − ln σ²)."""
        posterior = Normal(self.mean, torch.exp(0.5 * self.log_variance), validate_args=False)
        prior = Normal(self.mean.new_zeros(()), self.mean.new_ones(()), validate_args=False)
        return kl_divergence(posterior, prior)


class TrainingScan(NamedTuple):
    """A prepared scan as `VAE.begin` is shown it.

    Attributes:
        image: float32 `(1, X, Y, Z)`.
        mask: bool, foreground.
        label_map: int16; None where there is none.
        spacing: voxel size of the grid, mm.
    """

    image: Tensor
    mask: Tensor
    label_map: Tensor | None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


class VAE(nn.Module):
    """A network with an encoder and a decoder; base class of all networks.

    A network is one file in `networks/`, or a module that another package registers. It offers
    `build(settings, likelihood, grid, *, conditions=0) -> VAE` and, if it has options, a class `Settings`. The class
    derives from this one:

    - `__init__` sets `observation = build_observation(likelihood)`, and `stride` where the latent is a volume.
    - `encode(x, c)` takes prepared images `(B, 1, X, Y, Z)` and gives q(z|x, c).
    - `render(z, c)` gives the decoder's output `(B, observation.channels, X, Y, Z)`.
    - `latent_shape(grid)` is `(C, X/stride, Y/stride, Z/stride)`, or `(C,)` without stride; it raises SettingsError
      if the grid does not fit.
    - `c` is `(B, conditions)`, see `medvae.vae.conditions`; None for a network that was built without conditions.
    - `label_loss` is there for a network that learns label maps, too; `labels` and `decode_labels` for one that gives
      them back.
    - `begin` is there for a network that has to see the training scans before it is trained.

    Attributes:
        stride: grid voxels that a latent cell spans along an axis; None for a latent that is not a volume.
        observation: from the decoder's output to p(x|z).
        architecture: name and options that it was built from (`medvae.checkpoint.model.build_network`).
    """

    stride: int | None = None
    observation: Observation
    architecture: Mapping[str, Any]

    @property
    def labels(self) -> tuple[int, ...]:
        """Values of the label maps that it decodes, besides 0; () for a network that decodes images alone."""
        return ()

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x, c) of prepared images `(B, 1, X, Y, Z)`."""
        raise NotImplementedError

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output `(B, observation.channels, X, Y, Z)`."""
        raise NotImplementedError

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C, *latent)` of a grid.

        Raises:
            SettingsError: the grid does not fit.
        """
        raise NotImplementedError

    def begin(self, scans: Iterable[TrainingScan]) -> None:
        """See the training scans once, before the optimiser is made; most networks have no use for it.

        What a network chooses here (labels, say) belongs to its `architecture`, from which a checkpoint builds it: see
        `keep_options`.

        Args:
            scans: all of them, one after the other; the same ones in the same order when a training is resumed.

        Raises:
            SettingsError: it cannot be trained on them.
        """

    def keep_options(self, chosen: Mapping[str, Any]) -> None:
        """Write options that `begin` has chosen into the architecture."""
        self.architecture = {**self.architecture, "options": {**self.architecture["options"], **chosen}}

    def decode(self, z: Tensor, c: Tensor | None = None) -> Likelihood:
        """p(x|z, c) on the grid."""
        likelihood: Likelihood = self.observation(self.render(z, c))
        return likelihood

    def label_loss(self, z: Tensor, label_map: Tensor, c: Tensor | None = None) -> Tensor | None:
        """What label maps add to the loss of a batch, in nats, summed; None for a network that does not learn them.

        Args:
            z: draws of the posterior, `(B, C, *latent)`.
            label_map: int16 `(B, 1, X, Y, Z)`; −1 where a scan has no label map.
            c: conditions.
        """
        return None

    def decode_labels(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The label map that belongs to a code, int16 `(B, 1, X, Y, Z)`, with values of `labels` and 0."""
        raise NotImplementedError


def log_likelihood(x: Tensor, mask: Tensor, likelihood: Likelihood) -> Tensor:
    """ln p(x|z) in nats, summed over the foreground: `(B,)` float32."""
    return (likelihood.log_prob(x).float() * mask).flatten(1).sum(1)


def elbo(x: Tensor, mask: Tensor, *, posterior: Posterior, likelihood: Likelihood) -> Tensor:
    """The evidence lower bound of each scan in nats, `(B,)`: ln p(x|z) − KL(q(z|x) ‖ p(z)), with β = 1."""
    return log_likelihood(x, mask, likelihood) - posterior.kl().flatten(1).sum(1)


def negative_elbo_map(x: Tensor, mask: Tensor, *, posterior: Posterior, likelihood: Likelihood) -> Tensor:
    """−ELBO of each voxel in nats, `(B, 1, X, Y, Z)`: sums to −`elbo` of the same draw, 0 outside the mask."""
    return -likelihood.log_prob(x).float() * mask + spread_kl(posterior.kl(), mask)


def spread_kl(kl: Tensor, mask: Tensor) -> Tensor:
    """Each latent cell's KL spread evenly over its foreground voxels; the sum is kept.

    Args:
        kl: `(B, C, *latent)` nats. A latent that is not a volume (`(B, C)`) is spread over the whole foreground.
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
    cells = torch.stack([_moved_to_nearest(one, count) for one, count in zip(cells, voxels, strict=True)])
    share = cells / voxels.clamp(min=1)
    for axis, length in enumerate(block, start=2):
        share = share.repeat_interleave(length, dim=axis)
    return share * mask


def _moved_to_nearest(cells: Tensor, voxels: Tensor) -> Tensor:
    """The KL of cells without voxels, moved to the nearest cell with some; both `(1, *latent)`."""
    empty = (voxels[0] < 0.5).cpu().numpy()
    if not empty.any() or empty.all():
        return cells
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    index = torch.from_numpy(np.ravel_multi_index(tuple(nearest), empty.shape).ravel()).to(cells.device)
    return torch.zeros_like(cells).view(-1).index_add(0, index, cells.reshape(-1)).view_as(cells)
