"""Smooth invertible maps of a grid: integration of a velocity, composition, warping, Jacobian determinant.

A map φ(x) = x + u(x) is kept as its displacement u, `(B, 3, X, Y, Z)` in voxels of the image's grid, along the array
axes. A grid that is coarser by a stride covers the same space: its cells are centred on the voxels they stand for. All
is computed in float32 whatever the autocast, because a composition of many small steps needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

_STEPS = 6  # squarings: 2⁶ small steps


def exponential(velocity: Tensor, size: Sequence[int]) -> Tensor:
    """The displacement of φ = exp(v) by scaling and squaring (Arsigny et al., MICCAI 2006).

    φ_{1/64} = id + v/64, then six times φ_{2t} = φ_t ∘ φ_t. The inverse map is exp(−v).

    Args:
        velocity: v, `(B, 3, x, y, z)` in voxels of the image's grid, maybe on a coarser grid.
        size: of the image's grid, `(X, Y, Z)`.

    Returns:
        `(B, 3, x, y, z)`, on the grid of the velocity.
    """
    with torch.autocast(velocity.device.type, enabled=False):
        u: Tensor = velocity.float() / 2**_STEPS
        for _ in range(_STEPS):
            u = compose(u, u, size)
        return u


def compose(outer: Tensor, inner: Tensor, size: Sequence[int]) -> Tensor:
    """The displacement of φ_outer ∘ φ_inner, x ↦ φ_outer(φ_inner(x)): u_inner(x) + u_outer(x + u_inner(x)).

    Args:
        outer: displacement of the map that is applied second, `(B, 3, x, y, z)`.
        inner: of the one that is applied first, the same shape.
        size: of the image's grid, `(X, Y, Z)`, in whose voxels both are.
    """
    return inner + warp(outer, inner, size)


def refine(displacement: Tensor, size: Sequence[int]) -> Tensor:
    """A displacement on the image's grid, by linear interpolation; `(B, 3, *size)`."""
    with torch.autocast(displacement.device.type, enabled=False):
        fine: Tensor = F.interpolate(displacement.float(), tuple(size), mode="trilinear", align_corners=False)
        return fine


def warp(image: Tensor, displacement: Tensor, size: Sequence[int]) -> Tensor:
    """Values of an image at x + u(x), linearly interpolated; beyond the grid those of its border.

    Args:
        image: `(B, C, x, y, z)`, or `(1, C, x, y, z)` for all of the batch.
        displacement: u, `(B, 3, x, y, z)` in voxels of the image's grid.
        size: of that grid, `(X, Y, Z)`; more than x, y, z where both are on a coarser one.

    Returns:
        `(B, C, x, y, z)`, float32.
    """
    with torch.autocast(image.device.type, enabled=False):
        u = displacement.float()
        lengths = u.new_tensor([float(n) for n in size]).view(1, 3, 1, 1, 1)
        at = (_centres(u) + 2 * u / lengths).flip(1).permute(0, 2, 3, 4, 1)  # grid_sample wants the last axis first
        image = image.float().expand(len(u), *image.shape[1:])
        return F.grid_sample(image, at, mode="bilinear", padding_mode="border", align_corners=False)


def force(image: Tensor, template: Tensor) -> Tensor:
    """Which way a voxel has to read in the template to become like the image, `(B, 3, X, Y, Z)` (Thirion, 1998).

    (x − T) ∇T / (|∇T|² + (x − T)²), at most half a voxel: the direction of a displacement, without its size.

    Args:
        image: x, `(B, 1, X, Y, Z)`.
        template: T, `(1, 1, X, Y, Z)`, or one for each image, `(B, 1, X, Y, Z)`.
    """
    slope = torch.cat(torch.gradient(template.float(), dim=(2, 3, 4)), 1)
    difference = image.float() - template.float()
    return difference * slope / (slope.square().sum(1, keepdim=True) + difference.square()).clamp(min=1e-6)


def jacobian(displacement: Tensor) -> Tensor:
    """Determinant of the derivative of φ in each cell of eight voxels, `(B, X − 1, Y − 1, Z − 1)`; 1 for the identity.

    Forward differences, each averaged over the four edges of the cell along its axis. A determinant of 0 or less is a
    fold.

    Args:
        displacement: u, `(B, 3, X, Y, Z)` in voxels of its own grid.
    """
    u = displacement.float()
    columns = []
    for axis in range(3):
        slope = u.diff(dim=axis + 2)
        for other in {0, 1, 2} - {axis}:
            length = slope.shape[other + 2] - 1
            slope = (slope.narrow(other + 2, 0, length) + slope.narrow(other + 2, 1, length)) / 2
        columns.append(slope)
    first, second, third = (slope + _unit(axis, slope) for axis, slope in enumerate(columns))
    determinant: Tensor = (first * torch.linalg.cross(second, third, dim=1)).sum(1)
    return determinant


def _centres(like: Tensor) -> Tensor:
    """Where the cells of a grid lie, `(1, 3, x, y, z)`: −1 … 1 from edge to edge along each axis."""
    lines = [(2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in like.shape[2:]]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))[None]


def _unit(axis: int, like: Tensor) -> Tensor:
    return torch.eye(3, device=like.device, dtype=like.dtype)[axis].view(1, 3, 1, 1, 1)
