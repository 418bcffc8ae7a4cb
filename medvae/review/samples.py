"""A montage of synthetic scans, each beside its nearest training scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medvae.io.files import atomic
from medvae.review.drawing import drawable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_HEIGHT = 1.5  # inches of one row
_PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))


@dataclass(frozen=True, eq=False)
class Pair:
    """A sample and its nearest training scan, on the model's grid (axes R, A, S), in prepared intensities.

    Attributes:
        sample: `(X, Y, Z)`, NaN outside its foreground.
        nearest: `(X, Y, Z)`, NaN outside its foreground; None where the model keeps no training scans.
        title: text beside the sample.
        caption: text beside its nearest training scan.
    """

    sample: NDArray[np.floating] = field(repr=False)
    nearest: NDArray[np.floating] | None = field(repr=False)
    title: str
    caption: str


@dataclass(frozen=True, eq=False)
class SampleMontage:
    """A PNG to be written: one row per pair, three planes of the sample (left) and of its neighbour (right).

    Attributes:
        name: path below the output folder.
        pairs: at least one.
        spacing: voxel size, mm.
        limits: prepared intensities shown as black and white, the same for all pairs.
        title: of the whole.
    """

    name: str
    pairs: tuple[Pair, ...]
    spacing: tuple[float, float, float]
    limits: tuple[float, float]
    title: str

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        figure = self._figure()
        with atomic(folder / self.name) as partial:
            figure.savefig(partial, format="png", dpi=100, facecolor="black", metadata={"Software": None})

    def _figure(self) -> Figure:
        figure = Figure(figsize=(10.5, _HEIGHT * len(self.pairs) + 0.6), facecolor="black", layout="constrained")
        axes = figure.subplots(len(self.pairs), 8, squeeze=False, width_ratios=[1.1, 1, 1, 1, 1.1, 1, 1, 1])
        for ax in axes.flat:
            ax.set_axis_off()
        for row, pair in zip(axes, self.pairs, strict=True):
            self._draw(row, pair)
        for column, (_, name) in zip((1, 2, 3, 5, 6, 7), _PLANES * 2, strict=True):
            axes[0, column].set_title(name, color="0.6", fontsize=7)
        figure.suptitle(drawable(self.title), color="white", fontsize=9)
        FigureCanvasAgg(figure)
        return figure

    def _draw(self, row: Sequence[Axes], pair: Pair) -> None:
        centre = _centre(pair.sample)
        for left, image, text in ((0, pair.sample, pair.title), (4, pair.nearest, pair.caption)):
            row[left].text(1, 0.5, drawable(text), color="white", fontsize=6, ha="right", va="center")
            for (axis, _), ax in zip(_PLANES, row[left + 1 : left + 4], strict=True):
                if image is not None:
                    _show(ax, image, axis=axis, at=centre[axis], spacing=self.spacing, limits=self.limits)


def display_limits(images: NDArray[np.floating], masks: NDArray[np.bool_]) -> tuple[float, float]:
    """Prepared intensities to show as black and white: 0.5 to 99.5% of the foreground of training scans.

    Args:
        images: `(n, 1, X, Y, Z)`.
        masks: bool, the same shape.
    """
    images, masks = images[:16], masks[:16]
    if not masks.any():
        return -3.0, 3.0
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
    """One plane, head or front up, the patient's right or nose on the left, as on the pages."""
    plane = np.take(image, at, axis=axis).T
    across, up = (a for a in range(3) if a != axis)
    ratio = spacing[up] / spacing[across]
    ax.imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", aspect=ratio, interpolation="nearest")
    ax.invert_xaxis()
    if across == 0:
        ax.text(0.01, 0.98, "R", color="0.7", fontsize=6, va="top", transform=ax.transAxes)


def _centre(image: NDArray[np.floating]) -> tuple[int, ...]:
    """Middle of the foreground."""
    inside = np.argwhere(np.isfinite(image))
    return tuple(int(n) for n in np.median(inside, axis=0)) if len(inside) else tuple(n // 2 for n in image.shape)
