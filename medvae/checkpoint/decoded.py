"""From what a decoder gives to a scan in real units: on the grid of the scan it was encoded from, or the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.prepare import intensity
from medvae.prepare.intensity import Intensity
from medvae.prepare.native import coverage, only_channel, to_native
from medvae.scan import Scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.kept import TrainingScans
    from medvae.prepare.preparation import Preparation, Prepared

_COMMON = 0.5  # share of the training scans that have a voxel of the foreground they share


def on_own_grid(values: NDArray[np.float32], prepared: Prepared, scan: Scan) -> Scan:
    """Decoded values on the grid and in the units of the scan that was prepared.

    Args:
        values: `(1, X, Y, Z)` on the model's grid, prepared intensities.
        prepared: the scan, prepared.
        scan: the scan, as read.

    Returns:
        Float32 `(X, Y, Z)` with the geometry of `scan`; its lowest value outside the foreground, which the network has
        never learnt.
    """
    mask = only_channel(prepared.mask).astype(np.float32)
    real = only_channel(prepared.in_units(_within(values, prepared.intensity)))
    weight = to_native(mask, prepared)
    inside = (coverage(prepared) > 0) & (weight > 0)
    spread = to_native(np.where(mask > 0, real, np.float32(0)), prepared)
    data = np.full(scan.data.shape, scan.data.min(), np.float32)
    data[inside] = spread[inside] / weight[inside]  # a mean of foreground voxels, without the neighbouring background
    return scan.with_data(data)


def on_model_grid(values: NDArray[np.float32], training: TrainingScans, preparation: Preparation) -> Scan:
    """Decoded values `(1, X, Y, Z)` on the model's grid, in the units of the training scans as far as they are known.

    Where each scan has a scale of its own, the median of the training scans that the model keeps is taken; if it keeps
    none, values stay in prepared intensities. Outside the foreground that half of these scans share it is background.
    """
    settings, scale = preparation.settings, typical_intensity(training, preparation)
    data = scale.invert(_within(only_channel(values), scale))
    if len(training.masks):
        shared = only_channel(training.masks.mean(axis=0) >= _COMMON)
        outside = settings.window[0] if settings.intensity == "window" else 0.0
        data = np.where(shared, data, np.float32(outside))
    units = training.units if len(training.ids) or settings.intensity != "robust_z" else "a.u."
    return Scan(data, preparation.grid, modality=settings.modality, units=units)


def typical_intensity(training: TrainingScans, preparation: Preparation) -> Intensity:
    """The value map of all scans, or the median of those that the model keeps; no scale where there is none."""
    settings = preparation.settings
    if settings.intensity != "robust_z":
        return intensity.fit(np.zeros(1, np.float32), np.ones(1, bool), settings=settings)
    if not training.intensities:
        return Intensity(low=-intensity.CLIP, high=intensity.CLIP)
    offset, scale = (
        float(np.median([getattr(one, key) for one in training.intensities])) for key in ("offset", "scale")
    )
    return Intensity(offset, scale, -intensity.CLIP, intensity.CLIP)


def _within(values: NDArray[np.float32], limits: Intensity) -> NDArray[np.float32]:
    clipped: NDArray[np.float32] = np.clip(values, np.float32(limits.low), np.float32(limits.high))
    return clipped
