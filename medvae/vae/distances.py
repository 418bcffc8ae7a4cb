"""Signed distances to the border of structures, truncated, and their likelihood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.distributions import Normal

from medvae.prepare.grid import box_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def signed_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance to the border between voxels, mm, positive inside."""
    half = min(spacing) / 2
    inside, outside = (ndimage.distance_transform_edt(one, spacing) for one in (mask, ~mask))
    return np.asarray(np.where(mask, inside - half, half - outside))


def truncated_distance(mask: NDArray[np.bool_], spacing: Sequence[float], *, reach: float) -> NDArray[np.float32]:
    """Signed distance to the border of a mask `(X, Y, Z)`, mm, positive inside, truncated at ±`reach`.

    It is measured where it is less than that alone, which takes a fraction of the time. A mask without a border is at
    the limit everywhere.
    """
    if mask.all():
        return np.full(mask.shape, reach, np.float32)
    distance = np.full(mask.shape, -reach, np.float32)
    if mask.any():
        box = box_around(mask, margin=[math.ceil(reach / mm) + 1 for mm in spacing])
        distance[box] = np.clip(signed_distance(mask[box], spacing), -reach, reach)
    return distance


def truncated_distances(label_map: Tensor, labels: Sequence[int], spacing: Sequence[float], *, reach: float) -> Tensor:
    """`truncated_distance` of each structure: labels `(B, 1, X, Y, Z)` -> float32 `(B, K, X, Y, Z)`."""
    maps = label_map[:, 0].cpu().numpy()
    found = [[truncated_distance(one == value, spacing, reach=reach) for value in labels] for one in maps]
    return torch.from_numpy(np.stack([np.stack(each) for each in found])).to(label_map.device)


def censored_log_prob(distance: Tensor, at: Tensor, *, log_scale: Tensor, reach: float) -> Tensor:
    """ln p of distances that were truncated at ±`reach`, in nats: a censored normal distribution (Tobin, 1958).

    Between the limits ln N(t; d, σ²); at a limit the probability of everything beyond it, ln Φ(−(r ∓ d)/σ). So a
    decoder is free to say anything beyond the reach, and σ is the uncertainty of borders, whatever lies around them.

    Args:
        distance: t, mm, truncated.
        at: d, mm, of any size and the same shape.
        log_scale: ln σ, σ in mm.
        reach: r, mm.
    """
    scale = log_scale.exp()
    within: Tensor = Normal(at, scale, validate_args=False).log_prob(distance)
    beyond = torch.special.log_ndtr((distance.sign() * at - reach) / scale)
    return torch.where(distance.abs() < reach, within, beyond)
