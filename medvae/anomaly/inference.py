"""All that is known of one prepared scan: posterior and reconstruction once, moments over draws, gradients on demand.

Maps share it. A scan goes through the network alone, so that nothing depends on other scans; draws are seeded by the
scan's content; everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor

from medvae.vae.base import elbo, log_likelihood, negative_elbo_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.vae.base import VAE, Posterior
    from medvae.vae.observation import Likelihood


@dataclass(frozen=True, eq=False)
class DrawMoments:
    """Means over K posterior draws, streamed.

    Attributes:
        negative_log_prob: −ln p(x|z) by voxel, nats, `(X, Y, Z)`, 0 outside the mask.
        negative_elbo: by voxel, nats; sums to −ELBO of the same draws.
        variance: of the reconstruction over draws.
        elbo: nats a scan.
    """

    negative_log_prob: NDArray[np.float32] = field(repr=False)
    negative_elbo: NDArray[np.float32] = field(repr=False)
    variance: NDArray[np.float32] = field(repr=False)
    elbo: float


@dataclass(frozen=True, eq=False)
class Inference:
    """What the model makes of one prepared scan.

    Attributes:
        prepared: the scan on the model's grid.
        vae: the network.
        image: float32 `(1, 1, X, Y, Z)` on the device.
        mask: bool, the same shape.
        c: the scan's conditions, `(1, n)` on the device, or None.
        posterior: q(z|x).
        likelihood: p(x|z) at the posterior mean.
        draws: K.
        seed: of the draws.
    """

    prepared: Prepared
    vae: VAE = field(repr=False)
    image: Tensor = field(repr=False)
    mask: Tensor = field(repr=False)
    c: Tensor | None = field(repr=False)
    posterior: Posterior = field(repr=False)
    likelihood: Likelihood = field(repr=False)
    draws: int
    seed: int

    @cached_property
    def reconstruction(self) -> NDArray[np.float32]:
        """Mean of p(x|z) at the posterior mean, `(X, Y, Z)`."""
        return to_array(self.likelihood.mean)

    @cached_property
    def residual(self) -> NDArray[np.float32]:
        """image − reconstruction in prepared intensities, `(X, Y, Z)`, 0 outside the mask."""
        difference: NDArray[np.float32] = np.where(
            self.prepared.mask[0], self.prepared.image[0] - self.reconstruction, np.float32(0)
        )
        return difference

    def residual_within(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
        """image − what the model makes of the image held between `low` and `high`, all `(X, Y, Z)`; 0 outside the mask.

        What lies beyond them cannot pull the reconstruction after it, however far: a model that copies what it sees
        (a latent with many units does) is not shown the whole of it.
        """
        image, inside = self.prepared.image[0], self.prepared.mask[0]
        held = np.where(inside, np.clip(image, low, high), image)
        with torch.no_grad():
            posterior = self.vae.encode(torch.from_numpy(held)[None, None].to(self.image.device), self.c)
            expected = to_array(self.vae.decode(posterior.mean, self.c).mean)
        difference: NDArray[np.float32] = np.where(inside, image - expected, np.float32(0))
        return difference

    @cached_property
    def kl(self) -> NDArray[np.float32]:
        """KL(q‖p) of each latent unit in nats, `(C, *latent)`."""
        return self.posterior.kl()[0].cpu().numpy()

    @cached_property
    def moments(self) -> DrawMoments:
        """Means over the posterior draws; computed when a map first asks, one draw in memory at a time."""
        nll, loss = torch.zeros_like(self.image), torch.zeros_like(self.image)
        first, second = torch.zeros_like(self.image), torch.zeros_like(self.image)
        bound = 0.0
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for _ in range(self.draws):
                noise = torch.randn(self.posterior.mean.shape, generator=generator).to(self.image.device)
                drawn = self.vae.decode(self.posterior.sample(noise), self.c)
                nll -= drawn.log_prob(self.image) * self.mask
                loss += negative_elbo_map(self.image, self.mask, posterior=self.posterior, likelihood=drawn)
                bound += float(elbo(self.image, self.mask, posterior=self.posterior, likelihood=drawn))
                first += drawn.mean
                second += drawn.mean**2
        k = self.draws
        variance = (second / k - (first / k) ** 2).clamp(min=0) * self.mask
        return DrawMoments(to_array(nll / k), to_array(loss / k), to_array(variance), bound / k)

    def gradient(self, of: Literal["elbo", "kl", "log_prob"]) -> NDArray[np.float32]:
        """∂(what)/∂x by voxel in float32, z = posterior mean, `(X, Y, Z)` (Zimmerer et al., MICCAI 2019)."""
        x = self.image.clone().requires_grad_()
        with torch.enable_grad():
            posterior = self.vae.encode(x, self.c)
            kl = posterior.kl().sum()
            if of == "kl":
                value = kl
            else:
                log_prob = log_likelihood(x, self.mask, self.vae.decode(posterior.mean, self.c)).sum()
                value = log_prob - kl if of == "elbo" else log_prob
            (slope,) = torch.autograd.grad(value, x)
        return to_array(slope * self.mask)


def infer(model: Model, prepared: Prepared, *, draws: int | None = None) -> Inference:
    """Encode and decode one prepared scan.

    Args:
        model: with its weights on any device.
        prepared: on the model's grid.
        draws: posterior draws for the maps that need them; the model's setting if None.
    """
    image = torch.from_numpy(prepared.image)[None].to(model.device)
    mask = torch.from_numpy(prepared.mask)[None].to(model.device)
    with torch.no_grad():
        c = model.condition(prepared.conditions)
        posterior = model.vae.encode(image, c)
        likelihood = model.vae.decode(posterior.mean, c)
    digest = sha256(f"{model.settings.seed}/{prepared.source_hash}".encode()).digest()
    return Inference(
        prepared=prepared,
        vae=model.vae,
        image=image,
        mask=mask,
        c=c,
        posterior=posterior,
        likelihood=likelihood,
        draws=draws or model.settings.detect.draws,
        seed=int.from_bytes(digest[:7], "little"),
    )


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """`(1, 1, X, Y, Z)` on any device -> `(X, Y, Z)` float32."""
    return cast("NDArray[np.float32]", tensor[0, 0].detach().float().cpu().numpy())
