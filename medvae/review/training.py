"""Pictures of a training: its curves, and scans beside their reconstructions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medvae.io.files import atomic
from medvae.prepare.native import only_channel
from medvae.review.drawing import drawable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared
    from medvae.training.epoch import Epoch


_NAME = 28  # letters of a scan's id that fit over its picture


@dataclass(frozen=True, eq=False)
class Pair:
    """A prepared scan and its reconstruction, on the model's grid (axes R, A, S).

    Attributes:
        prepared: the scan.
        reconstruction: mean of p(x|z) at the posterior mean, `(1, X, Y, Z)`, prepared intensities.
    """

    prepared: Prepared
    reconstruction: NDArray[np.float32] = field(repr=False)

    @property
    def error(self) -> float:
        """Mean squared error of the foreground."""
        return float(np.square(self.prepared.image - self.reconstruction)[self.prepared.mask].mean())


def curves(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write a PNG of the loss, the error, the KL and the active units over the steps; the kept epoch is marked."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    (left, right), (below, beside) = figure.subplots(2, 2, sharex=True)
    kept = max((one.step for one in epochs if one.best), default=0)
    _curve(left, epochs, "loss", label="training (with the warmed-up β)")
    _curve(left, epochs, "validation", label="validation (β = 1, averaged weights)")
    _curve(right, epochs, "error", label="training")
    _curve(right, epochs, "validation_error", label="validation")
    _curve(right, epochs, "mean_image_error", label="validation, mean of the training scans", style=":")
    _curve(below, epochs, "kl", label="KL")
    _curve(beside, epochs, "active", label="active units")
    texts = (
        "−ELBO, nats per foreground voxel",
        "error per foreground voxel",
        "KL, nats per scan",
        "active latent units",
    )
    for ax, text in zip((left, right, below, beside), texts, strict=True):
        ax.axvline(kept, color="0.7", linewidth=1, label="kept weights")
        ax.set_ylabel(text)
        ax.legend(loc="upper right", fontsize=7)
        _widen(ax)
    left.set_xlim(0, 1.05 * epochs[-1].step)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    beside.set_ylim(bottom=0)
    beside.yaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel("step")
    beside.set_xlabel("step")
    _save(figure, path)


def _curve(ax: Axes, epochs: Sequence[Epoch], name: str, *, label: str, style: str = "-") -> None:
    """One number of the epochs over their steps, where it is known; a single point gets a marker."""
    points = [(one.step, getattr(one, name)) for one in epochs if getattr(one, name) is not None]
    if points:
        steps, values = zip(*points, strict=True)
        ax.plot(steps, values, style, label=label, marker="o" if len(points) == 1 else None)


def _widen(ax: Axes) -> None:
    """Let the axis of the values span a tenth of their size: one value, or nearly equal ones, would be magnified."""
    low, high = ax.dataLim.intervaly
    if np.isfinite([low, high]).all():
        middle, half = (low + high) / 2, 0.55 * (high - low)
        half = max(half, 0.05 * abs(middle)) or 1.0
        ax.set_ylim(middle - half, middle + half)
    ax.ticklabel_format(axis="y", useOffset=False)


def reconstructions(path: Path, pairs: Sequence[Pair], *, spacing: tuple[float, float, float], title: str) -> None:
    """Write a PNG: one row per scan; in three planes the scan and its reconstruction, on one scale.

    Args:
        path: of the PNG, written atomically.
        pairs: at least one.
        spacing: voxel size, mm.
        title: over the whole.
    """
    figure = Figure(figsize=(12, 2.1 * len(pairs) + 0.5), facecolor="black", layout="constrained")
    axes = figure.subplots(len(pairs), 6, squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        _draw(row, pair, spacing=spacing)
    figure.suptitle(title, color="white", fontsize=10)
    _save(figure, path)


def _draw(row: Sequence[Axes], pair: Pair, *, spacing: tuple[float, float, float]) -> None:
    """One scan: axial, coronal and sagittal planes through the middle of its foreground, each beside its image.

    The patient's right or nose is on the left, as on the pages.
    """
    image, mask = only_channel(pair.prepared.image), only_channel(pair.prepared.mask)
    low, high = np.percentile(image[mask], (0.5, 99.5))
    inside = [np.where(mask, volume, np.nan) for volume in (image, only_channel(pair.reconstruction))]
    middle = [int(n) for n in np.median(np.argwhere(mask), axis=0)]
    for axis, place in zip((2, 1, 0), (0, 2, 4), strict=True):
        across, up = (a for a in range(3) if a != axis)
        for ax, volume in zip(row[place : place + 2], inside, strict=True):
            plane = np.take(volume, middle[axis], axis=axis).T
            aspect = spacing[up] / spacing[across]
            ax.imshow(plane, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect=aspect)
            ax.invert_xaxis()
            ax.set_axis_off()
    row[0].set_title(drawable(f"scan {pair.prepared.id[-_NAME:]}"), color="white", fontsize=8)
    row[1].set_title(f"reconstruction, squared error {pair.error:.3f}", color="0.7", fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})
