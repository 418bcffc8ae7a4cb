"""A picture of synthetic scans, each beside the training scan nearest to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medvae.io.files import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample

_HEIGHT = 1.5  # inches of one row
_PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))


@dataclass(frozen=True, eq=False)
class Pair:
    """A sample and its nearest training scan, on the model's grid (axes R, A, S), in prepared intensities.

    Attributes:
        sample: `(X, Y, Z)`, NaN outside its foreground.
        nearest: `(X, Y, Z)`, NaN outside its foreground; None where the model keeps no training scans.
        title: lines beside the sample.
        caption: what the nearest one is.
    """

    sample: NDArray[np.floating] = field(repr=False)
    nearest: NDArray[np.floating] | None = field(repr=False)
    title: str
    caption: str


def sample_montage(
    path: Path, pairs: Sequence[Pair], *, spacing: tuple[float, float, float], limits: tuple[float, float], title: str
) -> None:
    """Write a PNG: a row a pair, three planes of the sample on the left, the same three of its neighbour on the right.

    Args:
        path: of the PNG, written atomically.
        pairs: at least one.
        spacing: voxel size, mm.
        limits: prepared intensities shown as black and white, the same in all pictures.
        title: over the whole.
    """
    figure = Figure(figsize=(10.5, _HEIGHT * len(pairs) + 0.6), facecolor="black", layout="constrained")
    axes = figure.subplots(len(pairs), 8, squeeze=False, width_ratios=[1.1, 1, 1, 1, 1.1, 1, 1, 1])
    for ax in axes.flat:
        ax.set_axis_off()
    for row, pair in zip(axes, pairs, strict=True):
        centre = _centre(pair.sample)
        for left, image, text in ((0, pair.sample, pair.title), (4, pair.nearest, pair.caption)):
            row[left].text(1, 0.5, text, color="white", fontsize=6, ha="right", va="center")
            for (axis, _), ax in zip(_PLANES, row[left + 1 : left + 4], strict=True):
                if image is not None:
                    _show(ax, image, axis=axis, at=centre[axis], spacing=spacing, limits=limits)
    for place, (_, name) in zip((1, 2, 3, 5, 6, 7), _PLANES * 2, strict=True):
        axes[0, place].set_title(name, color="0.6", fontsize=7)
    figure.suptitle(title, color="white", fontsize=9)
    FigureCanvasAgg(figure)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100, facecolor="black", metadata={"Software": None})


def pair_of(sample: Sample, model: Model, *, nearest: str | None, title: str) -> Pair:
    """A sample beside the kept training scan of the id `nearest`."""
    image = np.where(sample.mask[0], sample.image[0], np.nan)
    if nearest is None:
        return Pair(image, None, title, "no training scan is kept")
    row = list(model.training.ids).index(nearest)
    neighbour = np.where(model.training.masks[row, 0], model.training.images[row, 0].astype(np.float32), np.nan)
    return Pair(image, neighbour, title, nearest)


def display_limits(model: Model) -> tuple[float, float]:
    """Prepared intensities to show as black and white: 0.5 to 99.5% of what training scans have, 0 and 1 for shapes."""
    images, masks = model.training.images[:16], model.training.masks[:16]
    if model.settings.likelihood.family == "bernoulli" or not masks.any():
        return (0.0, 1.0) if model.settings.likelihood.family == "bernoulli" else (-3.0, 3.0)
    low, high = np.percentile(images[masks].astype(np.float32), (0.5, 99.5))
    return float(low), float(high)


def _show(
    ax: Axes,
    image: NDArray[np.floating],
    *,
    axis: int,
    at: int,
    spacing: tuple[float, float, float],
    limits: tuple[float, float],
) -> None:
    """One plane, head or front up; where the picture runs along R, the patient's right is on its left."""
    plane = np.take(image, at, axis=axis).T
    across, up = (a for a in range(3) if a != axis)
    ratio = spacing[up] / spacing[across]
    ax.imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", aspect=ratio, interpolation="nearest")
    if across == 0:
        ax.invert_xaxis()
        ax.text(0.01, 0.98, "R", color="0.7", fontsize=6, va="top", transform=ax.transAxes)


def _centre(image: NDArray[np.floating]) -> tuple[int, ...]:
    """Middle of the foreground."""
    inside = np.argwhere(np.isfinite(image))
    return tuple(int(n) for n in np.median(inside, axis=0)) if len(inside) else tuple(n // 2 for n in image.shape)
