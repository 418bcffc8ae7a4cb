"""From the model's grid back to a scan's own grid, along the matrix that brought the scan there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from medvae.prepare import template
from medvae.prepare.grid import resample, resample_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared
    from medvae.scan import Geometry

T = TypeVar("T", bound=np.generic)


def to_native(
    values: NDArray[np.float32] | NDArray[np.integer], prepared: Prepared, *, labels: bool = False
) -> NDArray[np.float32] | NDArray[np.int16]:
    """Bring values on the model's grid onto the scan's own grid, exactly its shape.

    Args:
        values: `(X, Y, Z)` on the model's grid, axes R, A, S, e.g. an anomaly map.
        prepared: the scan, as it was prepared for the model.
        labels: nearest neighbour, int16, so that the set of values is kept. Else linear, smoothed first where the scan
            is coarser than the grid.

    Returns:
        `(X, Y, Z)` on the scan's grid, in its axis order, 0 outside the model's grid; float32, or int16 for labels.
    """
    back = np.linalg.inv(np.asarray(prepared.to_input, np.float64))
    if labels:
        return resample_labels(np.asarray(values, np.int16), back, prepared.input.shape)
    return resample(np.asarray(values, np.float32), back, prepared.input.shape)


def coverage(prepared: Prepared) -> NDArray[np.uint8]:
    """Which voxels of a scan are evaluated, uint8 `(X, Y, Z)` on its own grid: 1 = evaluated, 0 = not evaluated.

    The foreground that lies on the model's grid is evaluated. 0 does not mean healthy.
    """
    return to_native(only_channel(prepared.mask).astype(np.uint8), prepared, labels=True).astype(np.uint8)


def outline(prepared: Prepared) -> NDArray[np.bool_]:
    """The template's brain on the own grid of a scan that was aligned to it, bool `(X, Y, Z)`."""
    brain = template.on_grid(prepared.grid)[1]
    return to_native(brain.astype(np.uint8), prepared, labels=True) > 0


def brain_share(prepared: Prepared) -> float:
    """Which share of the template's brain is evaluated in a scan that was aligned to it, 0 to 1."""
    brain = template.on_grid(prepared.grid)[1]
    return float((only_channel(prepared.mask) & brain).sum() / brain.sum())


def foreground_share(prepared: Prepared, covered: NDArray[np.uint8]) -> float | None:
    """Which share of a scan's foreground is evaluated, 0 to 1, by volume; None where its volume is not known.

    Args:
        prepared: the scan.
        covered: its `coverage`.
    """
    if prepared.foreground_ml is None:
        return None
    return min(1.0, evaluated_ml(covered, prepared.input) / prepared.foreground_ml)


def evaluated_ml(covered: NDArray[np.uint8], geometry: Geometry) -> float:
    """Volume of what is evaluated in a scan with this geometry and `coverage`."""
    return float(np.count_nonzero(covered)) * geometry.voxel_volume / 1000


def only_channel(image: NDArray[T]) -> NDArray[T]:
    """`(X, Y, Z)` of an image `(1, X, Y, Z)`: what a file or a picture of one scan holds.

    Raises:
        ValueError: it has several channels.
    """
    volume: NDArray[T]
    (volume,) = image
    return volume
