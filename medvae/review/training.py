"""Pictures of a training run: its curves, and scans beside their reconstructions."""

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

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.training.epoch import Epoch


_NAME = 28  # letters of a scan's id that fit over its picture


@dataclass(frozen=True, eq=False)
class Pair:
    """A prepared scan and what the model makes of it, on the model's grid (axes R, A, S).

    Attributes:
        image: `(X, Y, Z)`, prepared intensities.
        reconstruction: mean of p(x|z) at the posterior mean, the same shape.
        mask: bool, foreground.
        name: of the scan.
        error: mean squared error of the foreground.
    """

    image: NDArray[np.float32] = field(repr=False)
    reconstruction: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    name: str
    error: float


def pair_of(inference: Inference) -> Pair:
    """A scan and its reconstruction; of several channels the first."""
    prepared, inside = inference.prepared, inference.foreground
    error = float(np.square(inference.residual[:, inside]).mean())
    return Pair(prepared.image[0], inference.reconstruction[0], inside, prepared.id, error)


def curves(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write a PNG of the loss, the error, the KL and the active units over the steps; the kept epoch is marked."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    (left, right), (below, beside) = figure.subplots(2, 2, sharex=True)
    steps = [one.step for one in epochs]
    kept = max((one.step for one in epochs if one.best), default=0)
    left.plot(steps, [one.loss for one in epochs], label="training (with the warmed-up β)")
    right.plot(steps, [one.error for one in epochs], label="training")
    if any(one.validation is not None for one in epochs):
        left.plot(steps, [one.validation for one in epochs], label="validation (β = 1, averaged weights)")
        right.plot(steps, [one.validation_error for one in epochs], label="validation")
    below.plot(steps, [one.kl for one in epochs], label="KL")
    beside.plot(steps, [one.active for one in epochs], label="active units")
    texts = ("−ELBO, nats per foreground voxel", "error per foreground voxel", "KL, nats a scan", "active latent units")
    for ax, text in zip((left, right, below, beside), texts, strict=True):
        ax.axvline(kept, color="0.7", linewidth=1, label="kept weights")
        ax.set_ylabel(text)
        ax.legend(fontsize=7)
    below.set_xlabel("step")
    beside.set_xlabel("step")
    _save(figure, path)


def reconstructions(path: Path, pairs: Sequence[Pair], *, spacing: tuple[float, float, float], title: str) -> None:
    """Write a PNG: a row a scan; in three planes the scan and its reconstruction, on one scale.

    Args:
        path: of the PNG, written atomically.
        pairs: at least one.
        spacing: voxel size, mm.
        title: over the whole.
    """
    figure = Figure(figsize=(12, 2.1 * len(pairs) + 0.5), facecolor="black", layout="constrained")
    axes = figure.subplots(len(pairs), 6, squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        low, high = np.percentile(pair.image[pair.mask], (0.5, 99.5))
        inside = [np.where(pair.mask, volume, np.nan) for volume in (pair.image, pair.reconstruction)]
        middle = [int(n) for n in np.median(np.argwhere(pair.mask), axis=0)]
        for axis, place in zip((2, 1, 0), (0, 2, 4), strict=True):
            across, up = (a for a in range(3) if a != axis)
            for ax, volume in zip(row[place : place + 2], inside, strict=True):
                plane = np.take(volume, middle[axis], axis=axis).T
                aspect = spacing[up] / spacing[across]
                ax.imshow(plane, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect=aspect)
                if across == 0:
                    ax.invert_xaxis()
                ax.set_axis_off()
        row[0].set_title(pair.name[-_NAME:], color="white", fontsize=8)
        row[1].set_title(f"squared error {pair.error:.3f}", color="0.7", fontsize=8)
    figure.suptitle(title, color="white", fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=100, metadata={"Software": None})
