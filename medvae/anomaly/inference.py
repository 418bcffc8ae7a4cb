"""All that is known of one prepared scan: posterior and reconstruction once, means over draws, gradients.

Maps share it, and nothing is computed before a map asks for it. A scan goes through the network alone, so that nothing
depends on other scans; draws are seeded by the scan's content; everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch

from medvae.anomaly.restore import restore
from medvae.detector.network import USUAL_STEPS
from medvae.errors import ModelError
from medvae.vae.base import elbo, log_likelihood, negative_elbo_map, spread_kl

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.checkpoint.model import Model
    from medvae.detector.network import Detector
    from medvae.prepare.preparation import Prepared
    from medvae.vae.base import Posterior
    from medvae.vae.observation import Likelihood


@dataclass(frozen=True, eq=False)
class DrawMeans:
    """Means over K posterior draws.

    Attributes:
        negative_log_prob: −ln p(x|z) by voxel, nats, `(X, Y, Z)`, 0 outside the mask.
        negative_elbo: by voxel, nats, `(X, Y, Z)`; sums to −ELBO of the same draws.
        elbo: nats per scan.
    """

    negative_log_prob: NDArray[np.float32] = field(repr=False)
    negative_elbo: NDArray[np.float32] = field(repr=False)
    elbo: float


@dataclass(frozen=True, eq=False)
class Inference:
    """What a model makes of one prepared scan, each part computed once, when it is first asked for.

    Arrays are float32 on the model's grid, axes R, A, S; with C channels of the image they are `(C, X, Y, Z)`.

    Attributes:
        model: the checkpoint; its other networks are in `model.networks`.
        prepared: the scan on the model's grid.
        draws: K, posterior draws of `draw_means`.
        seed: of the draws.
    """

    model: Model
    prepared: Prepared
    draws: int
    seed: int
    _asked: dict[object, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def image(self) -> Tensor:
        """The prepared image on the model's device, `(1, C, X, Y, Z)`."""
        return self._on_device(self.prepared.image)

    @cached_property
    def mask(self) -> Tensor:
        """The foreground on the model's device, bool `(1, 1, X, Y, Z)`."""
        return self._on_device(self.prepared.mask)

    @cached_property
    def c(self) -> Tensor | None:
        """The scan's conditions, `(1, n)`; None for a model without conditions."""
        return self.model.condition(self.prepared.conditions)

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """The foreground, bool `(X, Y, Z)`."""
        return np.asarray(self.prepared.mask.any(axis=0))

    @cached_property
    def posterior(self) -> Posterior:
        """q(z|x, c)."""
        with torch.no_grad():
            return self.model.vae.encode(self.image, self.c)

    @cached_property
    def likelihood(self) -> Likelihood:
        """p(x|z, c) at the posterior mean."""
        with torch.no_grad():
            return self.model.vae.decode(self.posterior.mean, self.c)

    @cached_property
    def reconstruction(self) -> NDArray[np.float32]:
        """Mean of p(x|z) at the posterior mean, `(C, X, Y, Z)`."""
        return _to_array(self.likelihood.mean)

    @cached_property
    def residual(self) -> NDArray[np.float32]:
        """image − reconstruction in prepared intensities, `(C, X, Y, Z)`, 0 outside the mask."""
        return self._inside(self.prepared.image - self.reconstruction)

    @cached_property
    def deviance_residual(self) -> NDArray[np.float32]:
        """sign(x − x̂) √(2 (ln p(x̂|z) − ln p(x|z))) at the posterior mean, `(C, X, Y, Z)`, 0 outside the mask.

        x̂ is the likeliest value: the mean, or the likelier of 0 and 1 of a binary shape.
        """
        with torch.no_grad():
            mean = self.likelihood.mean
            likeliest = mean.round() if self.model.vae.observation.binary else mean
            apart = self.likelihood.log_prob(likeliest) - self.likelihood.log_prob(self.image)
            root = (2 * apart.clamp(min=0)).sqrt() * (self.image - likeliest).sign()
        return self._inside(_to_array(root))

    def residual_within(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
        """image − the reconstruction of the image clipped to `low` … `high`; `(C, X, Y, Z)`, 0 outside the mask.

        What lies beyond them cannot pull the reconstruction after it, however far: a model that copies what it sees
        (a latent with many units does) is not shown the whole of it.

        Args:
            low: lowest value of each voxel, `(C, X, Y, Z)`.
            high: highest value of each voxel, `(C, X, Y, Z)`.
        """
        return self.once(("residual", _key(low, high)), lambda: self._residual_of(self._clipped(low, high)))

    def restored(
        self, low: NDArray[np.float32], high: NDArray[np.float32], *, weight: float, steps: int
    ) -> NDArray[np.float32]:
        """The scan as `medvae.anomaly.restore` restores it, beginning from the scan clipped to `low` … `high`.

        Args:
            low: lowest value of each voxel, `(C, X, Y, Z)`.
            high: highest value of each voxel, `(C, X, Y, Z)`.
            weight: of total variation.
            steps: of the descent.

        Returns:
            `(C, X, Y, Z)`, the scan itself outside the mask.
        """
        key = ("restored", _key(low, high), weight, steps)
        return self.once(key, lambda: self._restored_from(self._clipped(low, high), weight=weight, steps=steps))

    def _restored_from(self, start: Tensor, *, weight: float, steps: int) -> NDArray[np.float32]:
        vae, c = self.model.vae, self.c
        found = restore(self.image, self.mask, vae=vae, c=c, start=start, weight=weight, steps=steps)
        return _to_array(found.image)

    def _clipped(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> Tensor:
        """The image with the foreground clipped, `(1, C, X, Y, Z)`."""
        image = self.prepared.image
        return self._on_device(np.where(self.prepared.mask, np.clip(image, low, high), image))

    def _residual_of(self, other: Tensor) -> NDArray[np.float32]:
        """image − the reconstruction of another image."""
        with torch.no_grad():
            expected = self.model.vae.decode(self.model.vae.encode(other, self.c).mean, self.c).mean
        return self._inside(self.prepared.image - _to_array(expected))

    def once(self, key: object, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `compute` gives, computed when it is first asked for under this key."""
        if key not in self._asked:
            self._asked[key] = compute()
        return self._asked[key]

    @cached_property
    def log_odds(self) -> NDArray[np.float32]:
        """What the detector says about each voxel, `(X, Y, Z)`, 0 outside the mask.

        Raises:
            ModelError: the model has no detector.
        """
        return self._detector.log_odds(self.prepared.image, self.prepared.mask)

    @cached_property
    def noise(self) -> NDArray[np.float32]:
        """What the detector takes for coarse noise, in prepared intensities, `(1, X, Y, Z)`, 0 outside the mask.

        Raises:
            ModelError: the model has no detector.
        """
        return -self._detector.change(self.prepared.image, self.prepared.mask)

    @property
    def _detector(self) -> Detector:
        detector = self.model.detector
        if detector is None:
            hint = f"train a model and set detector.steps={USUAL_STEPS}"
            raise ModelError("the model has no detector", path=self.model.path, hint=hint)
        return detector

    @cached_property
    def kl(self) -> NDArray[np.float32]:
        """KL(q(z|x) ‖ p(z)) spread over the voxels of each latent cell, nats, `(X, Y, Z)`; sums to the KL."""
        with torch.no_grad():
            return _over_channels(spread_kl(self.posterior.kl(), self.mask))

    @cached_property
    def draw_means(self) -> DrawMeans:
        """Means over the posterior draws, one draw in memory at a time."""
        nll, loss = torch.zeros_like(self.image), torch.zeros_like(self.mask, dtype=self.image.dtype)
        bound = 0.0
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for _ in range(self.draws):
                noise = torch.randn(self.posterior.mean.shape, generator=generator).to(self.image.device)
                drawn = self.model.vae.decode(self.posterior.sample(noise), self.c)
                nll -= drawn.log_prob(self.image) * self.mask
                loss = loss + negative_elbo_map(self.image, self.mask, posterior=self.posterior, likelihood=drawn)
                bound += float(elbo(self.image, self.mask, posterior=self.posterior, likelihood=drawn))
        return DrawMeans(_over_channels(nll / self.draws), _over_channels(loss / self.draws), bound / self.draws)

    @cached_property
    def elbo_gradient(self) -> NDArray[np.float32]:
        """∂ELBO/∂x by voxel, z = posterior mean, `(C, X, Y, Z)`, 0 outside the mask (Zimmerer et al., MICCAI 2019)."""
        x = self.image.clone().requires_grad_()
        with torch.enable_grad():
            posterior = self.model.vae.encode(x, self.c)
            likelihood = self.model.vae.decode(posterior.mean, self.c)
            value = log_likelihood(x, self.mask, likelihood).sum() - posterior.kl().sum()
            (slope,) = torch.autograd.grad(value, x)
        return _to_array(slope * self.mask)

    def _on_device(self, values: NDArray[np.generic]) -> Tensor:
        """`(C, X, Y, Z)` as a batch of one."""
        return torch.from_numpy(values)[None].to(self.model.device)

    def _inside(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values of the foreground, 0 elsewhere."""
        kept: NDArray[np.float32] = np.where(self.prepared.mask, values, np.float32(0))
        return kept


def infer(model: Model, prepared: Prepared, *, draws: int | None = None) -> Inference:
    """What a model makes of one prepared scan.

    Args:
        model: with its weights on any device.
        prepared: on the model's grid.
        draws: posterior draws for the maps that need them; the model's setting if None.

    Example:
        >>> prepared = medvae.prepare_scan(medvae.read("new-scans/case.nii.gz"), model.preparation)
        >>> medvae.infer(model, prepared).residual.shape == prepared.image.shape
        True
    """
    digest = sha256(f"{model.settings.seed}/{prepared.source_hash}".encode()).digest()
    seed = int.from_bytes(digest[:7], "little")
    return Inference(model, prepared, draws=draws or model.settings.detect.draws, seed=seed)


def _key(low: NDArray[np.float32], high: NDArray[np.float32]) -> str:
    """What two limits are known by."""
    return sha256(low.tobytes() + high.tobytes()).hexdigest()


def _to_array(batch: Tensor) -> NDArray[np.float32]:
    """A batch of one, `(1, C, X, Y, Z)`, on any device -> `(C, X, Y, Z)` float32."""
    values: NDArray[np.float32] = batch.squeeze(0).detach().float().cpu().numpy()
    return values


def _over_channels(batch: Tensor) -> NDArray[np.float32]:
    """Nats of a batch of one, summed over channels, `(1, C, X, Y, Z)` -> `(X, Y, Z)` float32."""
    return _to_array(batch.sum(dim=1))
