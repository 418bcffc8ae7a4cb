"""A VAE whose latent is one vector: a fixed grid, a tight bottleneck that cannot copy a lesion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from medvae.settings import Frozen, LikelihoodSettings
from medvae.vae.base import VAE, Posterior
from medvae.vae.blocks import Conditioned, Decoder, Encoder, cells, channels_last, require_grid
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from medvae.scan import Shape


class Settings(Frozen):
    """Options of the network."""

    stem: int = Field(4, ge=1, description="voxels per axis folded into channels before the first convolution")
    channels: tuple[int, ...] = Field((32, 64, 128), min_length=1, description="channels per level, each half as fine")
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    narrow: int = Field(16, ge=1, description="channels that go into the vector")
    latent: int = Field(128, ge=1, description="length of the latent vector")


def build(settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> VAE:
    """The network for one grid and this many conditions; other grids are refused.

    Raises:
        SettingsError: the stride does not divide the grid.
    """
    vae = Flat(settings, likelihood, grid, conditions=conditions)
    channels_last(vae)
    return vae


class Flat(VAE):
    """q(z|x) and p(x|z) with a latent `(B, C)`."""

    def __init__(self, settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> None:
        super().__init__()
        shape = {"stem": settings.stem, "channels": settings.channels, "blocks": settings.blocks}
        step = settings.stem * 2 ** (len(settings.channels) - 1)
        self.grid, self.latent = grid, settings.latent
        self.inner = (settings.narrow, *cells(grid, step))
        self.observation = build_observation(likelihood)
        self.encoder = Encoder(**shape, out=settings.narrow)  # type: ignore[arg-type]
        self.decoder = Decoder(**shape, into=settings.narrow, out=self.observation.channels)  # type: ignore[arg-type]
        self.squeeze = nn.Linear(math.prod(self.inner), 2 * settings.latent)
        self.spread = nn.Linear(settings.latent, math.prod(self.inner))
        self.conditioned = Conditioned(conditions, self.latent_shape(grid))

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x, c) of prepared images `(B, 1, X, Y, Z)`.

        Raises:
            SettingsError: images of another grid.
        """
        self.latent_shape((x.shape[2], x.shape[3], x.shape[4]))
        return self.conditioned.removed(Posterior.from_parameters(self.squeeze(self.encoder(x).flatten(1))), c)

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output `(B, channels, X, Y, Z)`."""
        features = self.spread(self.conditioned.added(z, c))
        output: Tensor = self.decoder(features.view(-1, *self.inner))
        return output

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C,)`, for the one grid it was built for."""
        require_grid(grid, self.grid)
        return (self.latent,)
