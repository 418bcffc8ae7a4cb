"""The detector: two small 3D U-Nets that look for what does not belong in a scan.

One says so of each voxel, from the features of a scan; the other removes coarse noise, and with it what deviates from
the surrounding tissue.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvae.detector.features import ALIGNED, UNALIGNED, Usual, features
from medvae.statistics import Normal
from medvae.vae.blocks import Conv, Residual, channels_last, fold, unfold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.scan import Geometry

DETECTOR = "detector"  # name of the network in a checkpoint
USUAL_STEPS = 1500  # that hints name
_STEM = 2  # voxels per axis folded into channels before the first convolution
_RARE = -3.0  # log-odds before training: most voxels are usual


class UNet(nn.Module):
    """U-Net with residual blocks and batch normalisation, which keeps the size of a feature where others divide it out.

    Args:
        inputs: features of a voxel.
        channels: width of each level; each level halves space.
    """

    def __init__(self, inputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.stride = _STEM * 2 ** (len(channels) - 1)
        steps = list(pairwise(channels))
        self.first = Conv(inputs * _STEM**3, channels[0])
        self.encoder = nn.ModuleList(Residual(width, nn.BatchNorm3d) for width in channels)
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.middle = Residual(channels[-1], nn.BatchNorm3d)
        self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.decoder = nn.ModuleList(Residual(fine, nn.BatchNorm3d) for fine, _ in steps)
        self.last = nn.Sequential(nn.BatchNorm3d(channels[0]), nn.SiLU(), Conv(channels[0], _STEM**3))

    def forward(self, shown: Tensor) -> Tensor:
        """Features `(B, F, X, Y, Z)` of any size -> one value per voxel, `(B, 1, X, Y, Z)`, float32."""
        sizes = shown.shape[2:]
        missing = [side for n in reversed(sizes) for side in (0, -n % self.stride)]
        h = self.first(fold(F.pad(shown, missing), _STEM))
        passed = []
        for encode, down in zip(self.encoder, self.down, strict=False):
            passed.append(encode(h))
            h = down(passed[-1])
        h = self.middle(self.encoder[-1](h))
        for decode, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            h = decode(up(h) + passed.pop())
        x, y, z = sizes
        values: Tensor = unfold(self.last(h), _STEM)[..., :x, :y, :z]
        return values.float()


class Detector(nn.Module):
    """Two networks with the same levels, trained on the same patches.

    Args:
        channels: width of each level; each level halves space.
        grid: the model's grid.
        aligned: whether its scans are aligned to a template.

    Attributes:
        architecture: name and options, as a checkpoint keeps them.
        finder: from the features of a scan to the log-odds that a voxel does not belong in it.
        denoiser: from a scan to the change that removes its noise.
    """

    def __init__(self, channels: Sequence[int], grid: Geometry, *, aligned: bool) -> None:
        super().__init__()
        self.architecture = {"name": DETECTOR, "options": {"channels": list(channels)}}
        self.grid, self.aligned = grid, aligned
        self.finder = UNet(ALIGNED if aligned else UNALIGNED, channels)
        nn.init.constant_(self.finder.last[-1].bias, _RARE)  # type: ignore[arg-type]
        self.denoiser = UNet(UNALIGNED, channels)
        for values in self.denoiser.last[-1].parameters():  # before training nothing is changed
            nn.init.zeros_(values)
        for name in _BUFFERS if aligned else ():
            self.register_buffer(name, torch.ones(grid.shape))
        channels_last(self)

    def forward(self, shown: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """What both networks say, `(B, 1, X, Y, Z)`, float32: log-odds, and the change.

        Args:
            shown: features of a scan with anomalies, `(B, F, X, Y, Z)` of any size.
            noisy: a scan with noise, 0 outside the foreground, `(B, 1, X, Y, Z)`.
        """
        return self.finder(shown), self.denoiser(noisy)

    @property
    def usual(self) -> Usual | None:
        """The healthy scans that the features compare with; None where scans are not aligned."""
        if not self.aligned:
            return None
        mean, sd, side_mean, side_sd = (getattr(self, name).cpu().numpy() for name in _BUFFERS)
        return Usual(Normal(mean, sd), Normal(side_mean, side_sd))

    def compare_with(self, usual: Usual) -> None:
        """Keep the healthy scans that the features compare with, as buffers beside the weights."""
        values = (usual.image.mean, usual.image.sd, usual.difference.mean, usual.difference.sd)
        for name, value in zip(_BUFFERS, values, strict=True):
            getattr(self, name).copy_(torch.from_numpy(value))

    def log_odds(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Log-odds of each voxel of a prepared scan, float32 `(X, Y, Z)`, 0 outside the foreground.

        Args:
            image: `(1, X, Y, Z)` on the model's grid.
            mask: bool, the same shape.
        """
        shown = features(image[0], mask[0], grid=self.grid, usual=self.usual)
        odds: NDArray[np.float32] = self._inside(self.finder, shown, mask)[0]
        return odds

    def change(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What the denoiser adds to a prepared scan, in prepared intensities, `(1, X, Y, Z)`, 0 outside the foreground.

        Args:
            image: `(1, X, Y, Z)` on the model's grid.
            mask: bool, the same shape.
        """
        return self._inside(self.denoiser, np.where(mask, image, np.float32(0)), mask)

    def _inside(self, net: UNet, shown: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What a network says of the features of a whole scan, `(1, X, Y, Z)`, 0 outside the foreground."""
        with torch.no_grad():
            values = net(torch.from_numpy(shown)[None].to(next(self.parameters()).device)).cpu().numpy()
        inside: NDArray[np.float32] = np.where(mask, values[0], np.float32(0))
        return inside


_BUFFERS = ("image_mean", "image_sd", "difference_mean", "difference_sd")


def build(channels: Sequence[int], grid: Geometry, *, aligned: bool, seed: int) -> Detector:
    """An untrained detector; its weights follow from the seed of the run alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(channels, grid, aligned=aligned)
