"""Noise with the statistics of the residuals, so that samples are not noticeably smoother than real scans.

A decoder's mean is an average of all images that fit the code: what differs between them at random is missing. This
draws a Gaussian field with the radial power spectrum of the residuals and, voxel by voxel, the standard deviation that
residuals have at the decoded value. No residual of a scan is stored, so no patient's texture is reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Spacing = tuple[float, float, float]

_LEVELS = 16  # values at which the standard deviation is known
_BANDS = 32  # shells of spatial frequency
_AXES = (-3, -2, -1)  # of space; channels have noise of their own


@dataclass(frozen=True, eq=False)
class Texture:
    """Statistics of the residuals.

    Attributes:
        levels: decoded values, ascending, prepared intensities.
        spread: standard deviation of the residual at those values.
        bands: radial frequency of the shells, cycles/mm.
        power: power of the normalised residual in the shells.
        spacing: voxel size that it was measured at, mm.
    """

    levels: NDArray[np.float64]
    spread: NDArray[np.float64]
    bands: NDArray[np.float64] = field(repr=False)
    power: NDArray[np.float64] = field(repr=False)
    spacing: Spacing

    def draw(
        self, decoded: NDArray[np.float32], mask: NDArray[np.bool_], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Noise for a decoded image `(C, X, Y, Z)`; 0 outside its mask `(1, X, Y, Z)`."""
        white = generator.standard_normal(decoded.shape, dtype=np.float32)
        transfer = self._transfer(decoded.shape[1:])
        coloured = fft.irfftn(fft.rfftn(white, axes=_AXES) * transfer, decoded.shape[1:], axes=_AXES)
        noise: NDArray[np.float32] = np.where(mask, coloured * self._spread(decoded), 0).astype(np.float32)
        return noise

    def _spread(self, decoded: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.interp(decoded, self.levels, self.spread).astype(np.float32)

    def _transfer(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Factor on each coefficient of the real transform, so that white noise of variance 1 keeps variance 1."""
        power = np.interp(_radius(shape, self.spacing), self.bands, self.power)
        mean = float((power * _multiplicity(shape)).sum() / np.prod(shape))
        return np.sqrt(power / mean).astype(np.float32)


def fit(
    known: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]], *, spacing: Spacing
) -> Texture:
    """Measure the residuals of scans.

    Args:
        known: of each scan image, reconstruction and foreground, each `(C, X, Y, Z)`, prepared intensities.
        spacing: voxel size, mm.
    """
    decoded = np.concatenate([mean[mask] for _, mean, mask in known])
    squared = np.concatenate([np.square(image[mask] - mean[mask]) for image, mean, mask in known])
    levels, spread = _spread_by_value(decoded, squared)
    total = np.zeros(_BANDS)
    edges = np.linspace(0, float(_radius(known[0][0].shape[1:], spacing).max()) * (1 + 1e-9), _BANDS + 1)
    for image, mean, mask in known:
        scaled = np.where(mask, (image - mean) / np.interp(mean, levels, spread), 0).astype(np.float32)
        total += _radial_power(scaled, edges, spacing)
    return Texture(levels, spread, (edges[:-1] + edges[1:]) / 2, total / len(known), spacing)


def _spread_by_value(
    decoded: NDArray[np.float32], squared: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Root mean squared residual in bins of equally many voxels; bins of one value are merged."""
    edges = np.unique(np.quantile(decoded, np.linspace(0, 1, _LEVELS + 1)))
    inside = np.clip(np.searchsorted(edges, decoded, side="right") - 1, 0, max(0, len(edges) - 2))
    count = np.bincount(inside)
    filled = count > 0
    levels = np.bincount(inside, decoded)[filled] / count[filled]
    spread = np.sqrt(np.bincount(inside, squared)[filled] / count[filled])
    return levels, np.maximum(spread, 1e-6)


def _radial_power(scaled: NDArray[np.float32], edges: NDArray[np.float64], spacing: Spacing) -> NDArray[np.float64]:
    """Mean power in shells of radial frequency; interpolated for a shell without a coefficient."""
    shape, channels = scaled.shape[1:], len(scaled)
    weight = np.tile(_multiplicity(shape).ravel(), channels)
    power = np.square(np.abs(fft.rfftn(scaled, axes=_AXES))).ravel() * weight
    shell = np.tile(np.searchsorted(edges, _radius(shape, spacing).ravel(), side="right") - 1, channels)
    count = np.bincount(shell, weight, minlength=_BANDS)
    mean = np.bincount(shell, power, minlength=_BANDS) / np.maximum(count, 1)
    known = np.flatnonzero(count)
    return np.interp(np.arange(_BANDS), known, mean[known])


def _radius(shape: tuple[int, ...], spacing: Spacing) -> NDArray[np.float64]:
    """Length of the frequency of each coefficient of the real transform, cycles/mm."""
    axes = [fft.fftfreq(n, d) for n, d in zip(shape[:2], spacing[:2], strict=True)]
    axes.append(fft.rfftfreq(shape[2], spacing[2]))
    radius: NDArray[np.float64] = np.sqrt(sum(np.square(one) for one in np.meshgrid(*axes, indexing="ij")))
    return radius


def _multiplicity(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How many coefficients of the full transform each one of the real transform represents."""
    weight = np.full((shape[0], shape[1], shape[2] // 2 + 1), 2.0)
    weight[..., 0] = 1
    if shape[2] % 2 == 0:
        weight[..., -1] = 1
    return weight
