"""Blocks that the networks share, built so that nothing with more than two channels exists at full resolution.

A CPU or GPU spends its time there on memory traffic: the stem folds space into channels, the end unfolds it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medvae.scan import Shape
    from medvae.vae.base import Posterior

_GAIN = 8.0  # of m(c) in `Conditioned`: a regression bears larger steps of the optimiser than a network does


def fold(x: Tensor, by: int) -> Tensor:
    """Space to depth: `(B, C, X, Y, Z)` -> `(B, C·by³, X/by, Y/by, Z/by)`, channels last in memory."""
    b, c, *sizes = x.shape
    nx, ny, nz = (n // by for n in sizes)
    x = x.reshape(b, c, nx, by, ny, by, nz, by).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return x.reshape(b, nx, ny, nz, c * by**3).permute(0, 4, 1, 2, 3)


def unfold(x: Tensor, by: int) -> Tensor:
    """Depth to space, the inverse of `fold`."""
    b, c, nx, ny, nz = x.shape
    x = x.permute(0, 2, 3, 4, 1).reshape(b, nx, ny, nz, c // by**3, by, by, by)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, c // by**3, nx * by, ny * by, nz * by)


class Conv(nn.Conv3d):
    """A 3×3×3 convolution that keeps the grid, in float32 where bf16 on a CPU has wrong gradients.

    With two voxels along the first axis, the gradient of the weights under autocast holds what happens to be in memory
    (torch 2.13 on a CPU; the other axes and other sizes are right).
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, into, X, Y, Z)` -> `(B, out, X, Y, Z)`."""
        if x.device.type == "cpu" and x.shape[2] == 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class Norm(nn.GroupNorm):
    """GroupNorm in float32 whatever the autocast: its sums need it, and its backward pass in bf16 is slow on a CPU."""

    def __init__(self, channels: int) -> None:
        super().__init__(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape and type."""
        normal: Tensor = super().forward(x.float())
        return normal.to(x.dtype)


class Residual(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), 3×3×3, the second convolution starting at zero."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] = Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = (norm(channels) for _ in range(2))
        self.conv1, self.conv2 = (Conv(channels, channels) for _ in range(2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        change: Tensor = self.conv2(F.silu(self.norm2(h)))
        return x + change


class Encoder(nn.Module):
    """`(B, into, X, Y, Z)` -> `(B, out, X/stride, …)`; `beside` channels more come at the resolution of the stem."""

    def __init__(
        self, *, stem: int, channels: Sequence[int], blocks: int, out: int, into: int = 1, beside: int = 0
    ) -> None:
        super().__init__()
        self.stem = stem
        layers: list[nn.Module] = [Conv(into * stem**3 + beside, channels[0])]
        for level, width in enumerate(channels):
            if level:
                layers.append(nn.Conv3d(channels[level - 1], width, 2, stride=2))
            layers += [Residual(width) for _ in range(blocks)]
        layers += [Norm(channels[-1]), nn.SiLU(), nn.Conv3d(channels[-1], out, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """Features at the lowest resolution."""
        folded = fold(x, self.stem)
        result: Tensor = self.layers(folded if beside is None else torch.cat([folded, beside.to(folded.dtype)], 1))
        return result


class Decoder(nn.Module):
    """`(B, into, X/stride, …)` -> `(B, out, X, Y, Z)`."""

    def __init__(self, *, stem: int, channels: Sequence[int], blocks: int, into: int, out: int) -> None:
        super().__init__()
        self.stem = stem
        layers: list[nn.Module] = [Conv(into, channels[-1])]
        for level in reversed(range(len(channels))):
            layers += [Residual(channels[level]) for _ in range(blocks)]
            if level:
                layers.append(nn.ConvTranspose3d(channels[level], channels[level - 1], 2, stride=2))
        layers += [Norm(channels[0]), nn.SiLU()]
        layers.append(Conv(channels[0], out * stem**3))
        self.layers = nn.Sequential(*layers)

    def features(self, z: Tensor) -> Tensor:
        """What the last convolution is given, `(B, channels[0], X/stem, …)`."""
        found: Tensor = self.layers[:-1](z)
        return found

    def forward(self, z: Tensor) -> Tensor:
        """The image's parameters at full resolution."""
        return unfold(self.layers(z), self.stem)


def cells(grid: Shape, stride: int) -> tuple[int, ...]:
    """Latent cells along each axis of a grid.

    Raises:
        SettingsError: the stride does not divide the grid.
    """
    if any(n % stride for n in grid):
        message = f"the grid {'x'.join(map(str, grid))} is not divisible by the model's stride {stride}"
        raise SettingsError(message, hint="change prepare.shape, or model.options.stem and channels")
    return tuple(n // stride for n in grid)


def require_grid(grid: Shape, own: Shape) -> None:
    """Refuse a grid that is not the one a network was built for.

    Raises:
        SettingsError: it is another one.
    """
    if tuple(grid) != tuple(own):
        known, other = ("x".join(map(str, one)) for one in (own, grid))
        hint = "change prepare.shape, or train with model.name=spatial, which takes other grids"
        raise SettingsError(f"the model was built for the grid {known}, not {other}", hint=hint)


class Conditioned(nn.Module):
    """Where conditions put a scan in latent space: m(c), a linear function of them, at first 0.

    An encoder takes m(c) off its posterior mean and a decoder adds it to z, so that z is what conditions do not say:
    p(z) is N(0, I) whatever they are. m(c) has no part in the reconstruction; the KL fits it, as a regression of the
    latent on the conditions. Without conditions it has no weights and changes nothing.

    Make it after all other parts of a network, so that these begin with the same weights as without conditions.

    Args:
        conditions: length of `c`; 0 for none.
        shape: of the latent, `(C, *latent)`.
    """

    def __init__(self, conditions: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.linear = nn.Linear(conditions, math.prod(shape), bias=False) if conditions else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)

    def removed(self, posterior: Posterior, c: Tensor | None) -> Posterior:
        """The posterior of what conditions do not say."""
        shift = self._shift(c)
        return posterior if shift is None else replace(posterior, mean=posterior.mean - shift)

    def added(self, z: Tensor, c: Tensor | None) -> Tensor:
        """z and m(c)."""
        shift = self._shift(c)
        return z if shift is None else z + shift

    def _shift(self, c: Tensor | None) -> Tensor | None:
        if (c is None) != (self.linear is None):
            wants = "takes no conditions" if self.linear is None else "needs conditions"
            raise ValueError(f"this network {wants}: pass c as `Model.condition` gives it")
        return None if c is None or self.linear is None else (_GAIN * self.linear(c)).float().view(-1, *self.shape)


def channels_last(module: nn.Module) -> nn.Module:
    """The module with its 3D weights stored channels last; one default tensor would cost ten times the time."""
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return module
