"""Other networks as VAEs of medvae, so that the same training and the same maps take them all; for `rivals.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Kl, Var

from medvae.checkpoint.model import build_vae
from medvae.detector.network import build
from medvae.prepare.preparation import Preparation
from medvae.vae.base import VAE, Posterior
from medvae.vae.blocks import Norm
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.scan import Shape
    from medvae.settings import Settings

NOISE = 0.9  # 0.2 of the 99th percentile of the training brains, as in the paper; it lies 4.3 to 4.6 above air
CELL = 8  # voxels between the values that noise is interpolated from: 16 mm
KNOWN = -14.0  # ln variance of a code that is the input itself


class Slices(VAE):
    """A VAE of single axial slices, with a vector of length 128 for each (Baur et al., Med. Image Anal. 2021).

    Its encoder has four convolutions of 5×5 and stride 2, 32-64-128-128 wide, and 16 channels before the dense layers;
    its decoder is the mirror image. GroupNorm replaces BatchNorm, because the slices of two brains are not a random
    batch. The code of a volume is that of all its slices.
    """

    LATENT, WIDTHS, NARROW = 128, (32, 64, 128, 128), 16

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.observation = build_observation(settings.likelihood)
        across, along, self.slices = settings.prepare.shape
        self.low = (self.NARROW, across // 16, along // 16)
        size = self.low[0] * self.low[1] * self.low[2]
        down: list[nn.Module] = []
        up: list[nn.Module] = [nn.Conv2d(self.NARROW, self.WIDTHS[-1], 1)]
        for wide, narrow in zip(self.WIDTHS, (1, *self.WIDTHS), strict=False):
            down += [nn.Conv2d(narrow, wide, 5, stride=2, padding=2), Norm(wide), nn.LeakyReLU(0.2)]
        for wide, narrow in zip(reversed(self.WIDTHS), (*reversed(self.WIDTHS[:-1]), self.WIDTHS[0]), strict=True):
            up += [nn.ConvTranspose2d(wide, narrow, 5, 2, 2, output_padding=1), Norm(narrow), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(
            *down, nn.Conv2d(self.WIDTHS[-1], self.NARROW, 1), nn.Flatten(), nn.Linear(size, 2 * self.LATENT)
        )
        self.dense = nn.Linear(self.LATENT, size)
        self.decoder = nn.Sequential(*up, nn.Conv2d(self.WIDTHS[0], 1, 1))

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x), `(B, slices · 128)`."""
        one_by_one = x.movedim(-1, 1).flatten(0, 1)  # (B · Z, 1, X, Y)
        found = self.encoder(one_by_one).unflatten(1, (2, self.LATENT)).unflatten(0, (-1, self.slices))
        return Posterior.from_parameters(found.movedim(2, 1).flatten(1))

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output for all slices, put together."""
        output: Tensor = self.decoder(self.dense(z.reshape(-1, self.LATENT)).view(-1, *self.low))
        return output.unflatten(0, (-1, self.slices)).movedim(1, -1)

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(slices · 128,)`."""
        return (grid[2] * self.LATENT,)


class Denoising(VAE):
    """A denoising U-Net (Kascenas et al., MIDL 2022) in three dimensions.

    As a VAE, its code is the input without a bottleneck: in training with coarse noise in the foreground, Gaussian with
    a value every 16 mm, trilinear between them and rolled at random; otherwise as it is. Its KL has no gradient, and
    the likelihood with fitted σ has the direction of the masked squared error of the paper.
    """

    stride: int | None = 1

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.observation = build_observation(settings.likelihood)
        self.net = self.build(settings)

    def build(self, settings: Settings) -> nn.Module:
        """The network from noisy input to output, `(B, 1, X, Y, Z)`."""
        return UNet()

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """The input, with noise in training."""
        seen = x + coarse_noise(x) * (x != 0) if self.training else x  # 0 is the background
        return Posterior(seen.float(), torch.full_like(x, KNOWN, dtype=torch.float32))

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The input without noise."""
        output: Tensor = self.net(z)
        return output

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(1, *grid)`."""
        return (1, *grid)


class LightDenoising(Denoising):
    """The same with the denoiser of our detector, which folds 2×2×2 voxels into channels and says what to change."""

    def build(self, settings: Settings) -> nn.Module:
        """As the denoiser of the detector."""
        grid = Preparation(settings.prepare).grid
        return build(settings.detector.channels, grid, aligned=False, seed=settings.seed).denoiser

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The input without noise."""
        output: Tensor = z + self.net(z)
        return output


def coarse_noise(x: Tensor) -> Tensor:
    """Coarse Gaussian noise of the shape of `x`, `(B, C, X, Y, Z)`."""
    size = x.shape[2:]
    coarse = torch.randn(*x.shape[:2], *(max(2, n // CELL) for n in size), device=x.device) * NOISE
    shifts = [int(torch.randint(n, ())) for n in size]
    return F.interpolate(coarse, size=size, mode="trilinear").roll(shifts, dims=(2, 3, 4))


class Standardised(nn.Conv3d):
    """A convolution whose weights have mean 0 and variance 1 for each output channel (Qiao et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Conv3d`."""
        spread, mean = torch.std_mean(self.weight, dim=(1, 2, 3, 4), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (spread + 1e-5), self.bias)


class UNet(nn.Module):
    """Four levels, 16-32-64-128 wide, a quarter of the paper's width in 2D; mean pooling, transposed convolutions."""

    WIDTHS = (16, 32, 64, 128)

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip(self.WIDTHS, self.WIDTHS[1:], strict=False))
        self.down = nn.ModuleList([_level(1, self.WIDTHS[0]), *(_level(n, w) for n, w in pairs)])
        self.grow = nn.ModuleList([nn.ConvTranspose3d(w, n, 2, stride=2) for n, w in reversed(pairs)])
        self.up = nn.ModuleList([_level(2 * n, n) for n, _ in reversed(pairs)])
        self.last = nn.Conv3d(self.WIDTHS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, `(B, 1, X, Y, Z)`."""
        skips = []
        for number, level in enumerate(self.down):
            x = level(F.avg_pool3d(x, 2) if number else x)
            skips.append(x)
        for grow, level, skip in zip(self.grow, self.up, reversed(skips[:-1]), strict=True):
            x = level(torch.cat([grow(x), skip], dim=1))
        output: Tensor = self.last(x)
        return output


def _level(narrow: int, wide: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (narrow, wide):
        layers += [Standardised(width, wide, 3, padding=1), nn.SiLU(), Norm(wide)]
    return nn.Sequential(*layers)


class Nothing(VAE):
    """No network: all of the image is residual, so that what is left of a map is its healthy statistics."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.observation = build_observation(settings.likelihood)

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """The image."""
        return Posterior(x, torch.full_like(x, KNOWN))

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros_like(z)

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(1, *grid)`."""
        return (1, *grid)


UNTRAINED = ("untrained", "none")
NETS: dict[str, Callable[[Settings], VAE]] = {
    "spatial": build_vae,
    "AutoencoderKL": Kl,
    "VarAutoEncoder": Var,
    "slices": Slices,
    "DAE": Denoising,
    "DAE-light": LightDenoising,
    "untrained": build_vae,
    "none": Nothing,
}
