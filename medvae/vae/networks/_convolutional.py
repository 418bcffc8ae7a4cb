"""The convolutional VAE whose latent is a small volume: what `spatial` and `joint` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from medvae.settings import Frozen, LikelihoodSettings
from medvae.vae.base import VAE, Posterior
from medvae.vae.blocks import Conditioned, Decoder, Encoder, cells
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from torch import Tensor

    from medvae.scan import Shape


class ConvolutionalSettings(Frozen):
    """Options of such a network."""

    stem: int = Field(4, ge=1, description="voxels per axis folded into channels before the first convolution")
    channels: tuple[int, ...] = Field((32, 96), min_length=1, description="channels per level, each half as fine")
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    latent: int = Field(4, ge=1, description="channels of the latent")


class Convolutional(VAE):
    """q(z|x) and p(x|z) with a latent `(B, C, X/stride, Y/stride, Z/stride)`."""

    def __init__(
        self, settings: ConvolutionalSettings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0
    ) -> None:
        super().__init__()
        shape = {"stem": settings.stem, "channels": settings.channels, "blocks": settings.blocks}
        self.stride: int | None = settings.stem * 2 ** (len(settings.channels) - 1)
        self.latent = settings.latent
        self.observation = build_observation(likelihood)
        self.encoder = Encoder(**shape, out=2 * settings.latent)  # type: ignore[arg-type]
        self.decoder = Decoder(**shape, into=settings.latent, out=self.observation.channels)  # type: ignore[arg-type]
        self.conditioned = Conditioned(conditions, self.latent_shape(grid))

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x, c) of prepared images `(B, 1, X, Y, Z)`."""
        return self.conditioned.removed(Posterior.from_parameters(self.encoder(x)), c)

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output `(B, channels, X, Y, Z)`."""
        output: Tensor = self.decoder(self.conditioned.added(z, c))
        return output

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C, *latent)` of a grid."""
        assert self.stride is not None
        return (self.latent, *cells(grid, self.stride))
