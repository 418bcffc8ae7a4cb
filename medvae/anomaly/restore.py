"""A scan as it would be without what a model of healthy scans finds unlikely: MAP restoration with total variation.

x' maximises ELBO(x') − λ TV(x − x') (You et al., MIDL 2019; Chen et al., Med. Image Anal. 2020): it is likely under the
model, and differs from the scan x by as few and as sharply bounded regions as pay for themselves in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medvae.vae.base import log_likelihood

if TYPE_CHECKING:
    from medvae.vae.base import VAE

_INNER = 15  # steps of the denoising within each step; the dual goes on from the step before
_NORM = 12.0  # no larger is the squared norm of forward differences along three axes
_TRIES = 3  # halvings of a step that would not lower the objective
_AXES = (2, 3, 4)


@dataclass(frozen=True, eq=False)
class Restored:
    """What `restore` gives.

    Attributes:
        image: x', float32 `(1, C, X, Y, Z)`; the scan itself outside the mask.
        objective: −ELBO(x') + λ TV(x − x') in nats, before the first step and after each one that was taken; falling.
    """

    image: Tensor = field(repr=False)
    objective: tuple[float, ...]


def restore(
    image: Tensor,
    mask: Tensor,
    *,
    vae: VAE,
    c: Tensor | None,
    start: Tensor,
    weight: float,
    steps: int,
) -> Restored:
    """Proximal gradient descent on −ELBO(x') + λ TV(x − x') within the foreground.

    The gradient goes through encoder and decoder, with z at the posterior mean. A step t along it is followed by the
    exact answer of the other term, total-variation denoising of x − x' (Rudin et al., 1992) by fast gradient projection
    (Beck and Teboulle, 2009). t begins at σ̂² and is halved until the objective falls.

    Args:
        image: x, `(1, C, X, Y, Z)`.
        mask: the foreground, bool `(1, 1, X, Y, Z)`.
        vae: the model of healthy scans.
        c: conditions of the scan.
        start: x' to begin with, as `image`.
        weight: w, with λ = w / σ̂ nats per prepared intensity, where σ̂ is 1.4826 times the median of |x − x̂|: without a
            unit, and so the same for all intensities.
        steps: of the descent; it ends earlier where no step lowers the objective.
    """
    noise = _noise(image, mask, vae=vae, c=c)
    variation = Variation(mask, strength=weight / noise)
    change = (image - start) * mask
    nats, slope = _negative_elbo(image - change, mask, vae=vae, c=c)
    objective, size = [nats + variation.nats(change)], noise**2
    for _ in range(steps):
        for _ in range(_TRIES):
            tried = variation.denoised(change + size * slope, size=size)
            nats, new_slope = _negative_elbo(image - tried, mask, vae=vae, c=c)
            total = nats + variation.nats(tried)
            if total < objective[-1]:
                break
            size /= 2
        else:
            break
        change, slope = tried, new_slope
        objective.append(total)
    return Restored(image - change, tuple(objective))


class Variation:
    """λ TV: λ times the sum over voxels of the length of the forward differences, between foreground voxels only.

    Args:
        mask: bool `(1, 1, X, Y, Z)`.
        strength: λ, nats per prepared intensity.
    """

    def __init__(self, mask: Tensor, *, strength: float) -> None:
        self.strength = strength
        first, second, third = (_extent(mask, axis) for axis in _AXES)
        self._box = (..., first, second, third)
        self._mask = mask[self._box]
        self._pairs = [_neighbours(self._mask, axis).float() for axis in _AXES]
        self._dual: list[Tensor] | None = None

    def nats(self, values: Tensor) -> float:
        """The nats of an image `(1, C, X, Y, Z)`."""
        lengths = _length(self._differences(values[self._box]))
        return self.strength * float(lengths.sum(dtype=torch.float64))

    def denoised(self, values: Tensor, *, size: float) -> Tensor:
        """The image d that minimises ½ |d − `values`|² + `size` · λ TV(d), each channel alone; 0 outside the mask."""
        reach = size * self.strength
        there = values[self._box] * self._mask
        dual = self._dual or [torch.zeros_like(there) for _ in _AXES]
        ahead, momentum = dual, 1.0
        for _ in range(_INNER):
            slopes = self._differences(there - self._back(ahead).mul_(reach))
            new = [one.div_(_NORM * reach).add_(before) for one, before in zip(slopes, ahead, strict=True)]
            length = _length(new).clamp_(min=1)
            new = [one.div_(length) for one in new]
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = [torch.lerp(old, one, 1 + (momentum - 1) / following) for old, one in zip(dual, new, strict=True)]
            dual, momentum = new, following
        self._dual = dual
        result = torch.zeros_like(values)
        result[self._box] = there - self._back(dual).mul_(reach)
        return result

    def _differences(self, values: Tensor) -> list[Tensor]:
        """Differences to the next voxel along each axis; 0 where one of the two is outside."""
        found = [torch.zeros_like(values) for _ in _AXES]
        for one, axis, pairs in zip(found, _AXES, self._pairs, strict=True):
            count = values.shape[axis] - 1
            torch.sub(values.narrow(axis, 1, count), values.narrow(axis, 0, count), out=one.narrow(axis, 0, count))
            one.mul_(pairs)
        return found

    def _back(self, dual: list[Tensor]) -> Tensor:
        """The adjoint of `_differences`, of what is 0 where that is."""
        result = -(dual[0] + dual[1] + dual[2])
        for one, axis in zip(dual, _AXES, strict=True):
            count = one.shape[axis] - 1
            result.narrow(axis, 1, count).add_(one.narrow(axis, 0, count))
        return result


def _length(components: list[Tensor]) -> Tensor:
    first, second, third = components
    return (first * first).addcmul_(second, second).addcmul_(third, third).sqrt_()


def _extent(mask: Tensor, axis: int) -> slice:
    """From the first to the last plane with foreground."""
    planes = mask.transpose(axis, 0).flatten(1).any(dim=1).nonzero()
    return slice(int(planes[0]), int(planes[-1]) + 1)


def _neighbours(mask: Tensor, axis: int) -> Tensor:
    """Where a voxel and the next one along an axis are both inside."""
    following = torch.cat([mask.narrow(axis, 1, mask.shape[axis] - 1), torch.zeros_like(mask.narrow(axis, 0, 1))], axis)
    return mask & following


def _negative_elbo(image: Tensor, mask: Tensor, *, vae: VAE, c: Tensor | None) -> tuple[float, Tensor]:
    """−ELBO of an image in nats, z at the posterior mean, and its gradient by voxel, 0 outside the mask."""
    x = image.clone().requires_grad_()
    with torch.enable_grad():
        posterior = vae.encode(x, c)
        likelihood = vae.decode(posterior.mean, c)
        nats = posterior.kl().sum() - log_likelihood(x, mask, likelihood).sum()
        (slope,) = torch.autograd.grad(nats, x)
    return float(nats.detach()), slope * mask


def _noise(image: Tensor, mask: Tensor, *, vae: VAE, c: Tensor | None) -> float:
    """σ̂: what the model usually leaves of this scan, outliers disregarded; positive."""
    with torch.no_grad():
        expected = vae.decode(vae.encode(image, c).mean, c).mean
    apart = (image - expected).abs()[mask.expand_as(image)]
    return max(1.4826 * float(np.median(apart.cpu().numpy())), 1e-3)
