"""The VAE of lesion crops: p(profile, distance | z), a Gaussian with one spread per channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medvae.lesions.crops import SIDE
from medvae.vae.base import VAE, Posterior
from medvae.vae.blocks import Decoder, Encoder, channels_last
from medvae.vae.observation import LOG_SCALE_RANGE, Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.scan import Shape

LESIONS = "lesions"  # name of the network in a checkpoint
USUAL_STEPS = 600  # that hints name, and `--lesions` asks for
_STEM = 2
_NARROW = 16  # channels that go into the vector


@dataclass(frozen=True, eq=False)
class CropLikelihood:
    """p(x|z) of crops: independent Gaussians, one σ per channel.

    Attributes:
        mean: `(B, 2, S, S, S)`: profile of the change, distance.
        log_scale: ln σ, `(2,)`.
    """

    mean: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x|z) of each voxel and channel in nats, `(B, 2, S, S, S)`."""
        log_scale = self.log_scale.view(1, 2, 1, 1, 1)
        squared = ((x - self.mean) / log_scale.exp()) ** 2
        return -0.5 * squared - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, generator: torch.Generator) -> Tensor:
        """A crop with the noise of both channels."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + self.log_scale.exp().view(1, 2, 1, 1, 1) * noise


class CropObservation(Observation):
    """From the decoder's two channels to p(x|z).

    Each channel has a σ of its own: the analytic optimum of a batch in training (σ-VAE, Rybkin et al., ICML 2021), and
    frozen afterwards in `log_scale`. So neither channel has to be weighted against the other.
    """

    channels = 2
    log_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_scale", torch.zeros(2))

    def forward(self, output: Tensor) -> CropLikelihood:
        """p(x|z) with the frozen σ."""
        return CropLikelihood(output.float(), self.log_scale)

    def optimal(self, output: Tensor, x: Tensor, weight: Tensor) -> CropLikelihood:
        """p(x|z) with the most likely σ of each channel, over voxels of weight 1; all are `(B, 2, S, S, S)`."""
        mean = output.float()
        return CropLikelihood(mean, log_scales(squared_errors(mean, x, weight)))

    def freeze_at(self, errors: Tensor) -> None:
        """Set σ to the optimum of these mean squared errors, `(2,)`."""
        self.log_scale.copy_(log_scales(errors))


def squared_errors(mean: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of each channel over the voxels that count, `(2,)`."""
    counted = weight.sum((0, 2, 3, 4)).clamp(min=1)
    return ((x - mean) ** 2 * weight).sum((0, 2, 3, 4)) / counted


def log_scales(errors: Tensor) -> Tensor:
    """Ln σ that is most likely for mean squared errors."""
    return (0.5 * errors.clamp(min=1e-12).log()).clamp(*LOG_SCALE_RANGE)


class LesionVAE(VAE):
    """q(z|x) and p(x|z) of crops `(B, 2, S, S, S)`: profile of the change and signed distance; z is `(B, C)`.

    The layers see and give deviations from the mean crop, in units of their spread per channel: crops have much in
    common, and few steps should be spent on that.

    Attributes:
        mean: mean crop, `(2, S, S, S)`.
        spread: root mean square deviation of each channel, `(2, 1, 1, 1)`.
    """

    observation: CropObservation
    mean: Tensor
    spread: Tensor

    def __init__(self, channels: Sequence[int], latent: int) -> None:
        super().__init__()
        self.architecture = {"name": LESIONS, "options": {"channels": list(channels), "latent": latent}}
        cells = SIDE // (_STEM * 2 ** (len(channels) - 1))
        self.inner, self.latent = (_NARROW, cells, cells, cells), latent
        self.observation = CropObservation()
        self.encoder = Encoder(stem=_STEM, channels=channels, blocks=1, out=_NARROW, into=2)
        self.decoder = Decoder(stem=_STEM, channels=channels, blocks=1, into=_NARROW, out=2)
        self.squeeze = nn.Linear(math.prod(self.inner), 2 * latent)
        self.unsqueeze = nn.Linear(latent, math.prod(self.inner))
        self.register_buffer("mean", torch.zeros(2, SIDE, SIDE, SIDE))
        self.register_buffer("spread", torch.ones(2, 1, 1, 1))
        channels_last(self)

    def centre_on(self, x: Tensor, weight: Tensor) -> None:
        """Set mean and spread to those of crops `(n, 2, S, S, S)`, over what counts of them."""
        counted = weight.sum(0).clamp(min=1)
        self.mean.copy_((x * weight).sum(0) / counted)
        self.spread.copy_(squared_errors(self.mean, x, weight).sqrt().clamp(min=1e-3).view(2, 1, 1, 1))

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x) of crops; the first channel is NaN where only the mask is known."""
        deviation = torch.nan_to_num((x - self.mean) / self.spread)
        return Posterior.from_parameters(self.squeeze(self.encoder(deviation).flatten(1)))

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The mean of both channels, `(B, 2, S, S, S)`."""
        deviation: Tensor = self.decoder(self.unsqueeze(z).view(-1, *self.inner))
        return self.mean + self.spread * deviation

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C,)`: crops have one size."""
        return (self.latent,)


def build(channels: Sequence[int], latent: int, *, seed: int) -> LesionVAE:
    """An untrained network; its weights follow from the seed of the run alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LesionVAE(channels, latent)
