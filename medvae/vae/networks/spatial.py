"""A VAE whose latent is a small volume: sharp, for any grid that its stride divides, with a KL of each latent cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.vae.blocks import channels_last
from medvae.vae.networks._convolutional import Convolutional, ConvolutionalSettings

if TYPE_CHECKING:
    from medvae.scan import Shape
    from medvae.settings import LikelihoodSettings
    from medvae.vae.base import VAE


class Settings(ConvolutionalSettings):
    """Options of the network."""


def build(settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> VAE:
    """The network for a grid and this many conditions.

    Raises:
        SettingsError: the stride does not divide the grid.
    """
    vae = Convolutional(settings, likelihood, grid, conditions=conditions)
    channels_last(vae)
    return vae
