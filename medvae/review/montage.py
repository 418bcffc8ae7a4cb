"""A picture of one scan and its map, at the candidates and where the map is highest.

Slices are taken on the scan's own grid, the axes turned (not resampled) to lie nearest to R, A, S, so that the picture
shows what the written NIfTI files hold. Colours mean the same in all pictures of a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from medvae.io.files import atomic
from medvae.prepare.grid import nearest_ras
from medvae.review.drawing import drawable
from medvae.review.frame import turned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared
    from medvae.scan import Geometry

PEAKS = 3  # rows of a picture
_APART_MM = 30.0  # peaks are at least so far from each other
_SMOOTH_MM = 3.0  # σ under which they are looked for
_PLANES = (2, 1, 0)  # axial, coronal, sagittal
_WIDTH, _SIDE, _MARGINS, _LINE = 16.0, 1.2, 0.8, 0.22  # inches: whole, colour bar, title and footer, one more line
_GAPS, _ABOVE = 0.1, 0.3  # inches between panels, and over a row
_MARGIN_MM = 8.0  # around what is covered
_CROSS = "#00d0ff"
_CLEAR = 0.5  # below this share of the healthy limit a map is transparent
TOP = 3.0  # the colour scale ends at this many healthy limits


@dataclass(frozen=True, eq=False)
class Picture:
    """What a montage shows, on the scan's own grid.

    Attributes:
        scan: `(X, Y, Z)`, in the scan's units.
        heat: `(X, Y, Z)`, the map on that grid.
        covered: bool `(X, Y, Z)`, where the map was evaluated.
        geometry: of that grid.
        peaks: voxel indices `(n, 3)` that the slices go through, the highest first.
        values: the map at the peaks.
        numbers: of the candidates that the peaks lie in, 0 for none; written beside the cross.
        limit: 99.9% of healthy voxels lie below; fixes the colours of the whole run.
        unit: of the map.
        outline: bool `(X, Y, Z)`, the template's brain, whose border is drawn so that a reader can check the alignment;
            None for a scan that is not aligned.
    """

    scan: NDArray[np.float32] = field(repr=False)
    heat: NDArray[np.float32] = field(repr=False)
    covered: NDArray[np.bool_] = field(repr=False)
    geometry: Geometry
    peaks: NDArray[np.intp]
    values: tuple[float, ...]
    numbers: tuple[int, ...]
    limit: float
    unit: str
    outline: NDArray[np.bool_] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Montage:
    """A PNG to be written: one row per peak; in three planes the scan, and the scan under its map.

    Attributes:
        name: path below the output folder, ends in `.png`.
        picture: what is shown.
        title: over the whole: scan, map, score.
        footer: under the whole: what the numbers rest on, what they may not be used for.
    """

    name: str
    picture: Picture
    title: str
    footer: str

    def write(self, folder: Path) -> None:
        """Write it below `folder`, atomically."""
        png = self.png()
        with atomic(folder / self.name) as partial:
            partial.write_bytes(png)

    def png(self) -> bytes:
        """The bytes of the file."""
        layers = _Layers.from_picture(self.picture, nearest_ras(self.picture.geometry))
        widths, height = layers.panels()
        size = (_WIDTH, height * len(self.picture.peaks) + _MARGINS + _LINE * self.title.count("\n"))
        figure = Figure(figsize=size, facecolor="black", layout="constrained")
        axes = figure.subplots(len(self.picture.peaks), 6, squeeze=False, width_ratios=widths)
        _draw_rows(axes, self.picture, layers)
        _colour_bar(figure, axes, self.picture)
        figure.suptitle(drawable(self.title), color="white", fontsize=12)
        figure.supxlabel(drawable(self.footer), color="0.7", fontsize=8)
        FigureCanvasAgg(figure)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=100, facecolor="black", metadata={"Software": None})
        return file.getvalue()


def find_peaks(
    values: NDArray[np.float32], prepared: Prepared, *, first: Sequence[NDArray[np.float64]] = ()
) -> NDArray[np.intp]:
    """The places of a map to be shown, the given ones and then the highest: voxels of the scan's grid, `(n, 3)`.

    The highest are looked for on the model's grid after a light smoothing, so that one noisy voxel is not a peak; each
    is the highest voxel near its smoothed peak. They are at least `_APART_MM` away from all others, or a quarter of a
    small grid's longest side.

    Args:
        values: the map `(X, Y, Z)` on the model's grid.
        prepared: the scan on that grid, and the way back.
        first: places that are shown before all others, on the scan's grid.
    """
    spacing = np.array(prepared.grid.spacing)
    smooth = ndimage.gaussian_filter(values, _SMOOTH_MM / spacing)
    mask = prepared.mask.any(axis=0)
    apart = min(_APART_MM, float((spacing * values.shape).max()) / 4)
    left = mask.copy()
    found = list(first[:PEAKS])
    for place in found:
        on_grid = np.linalg.solve(prepared.to_input, [*place, 1.0])[:3]
        left &= _distance(on_grid, values.shape, spacing=spacing) > apart
    while left.any() and len(found) < PEAKS:
        index = np.unravel_index(int(np.where(left, smooth, -np.inf).argmax()), smooth.shape)
        highest = _highest_near(index, np.where(mask, values, -np.inf), reach=np.ceil(_SMOOTH_MM / spacing))
        found.append(prepared.to_input[:3, :3] @ highest + prepared.to_input[:3, 3])
        left &= _distance(np.array(index), values.shape, spacing=spacing) > apart
    last = np.array(prepared.input.shape) - 1
    return np.clip(np.rint(np.array(found)), 0, last).astype(np.intp)


def _distance(index: NDArray[Any], shape: tuple[int, ...], *, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each voxel of a grid from a place in it, mm."""
    offsets = [(np.arange(n) - i) * step for n, i, step in zip(shape, index, spacing, strict=True)]
    distance: NDArray[np.float64] = np.sqrt(
        sum(np.square(one) for one in np.meshgrid(*offsets, indexing="ij", sparse=True))
    )
    return distance


def _highest_near(
    index: tuple[np.intp, ...], values: NDArray[np.float32], *, reach: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The highest voxel of a box that reaches this many voxels to each side of another one; of equals, the nearest."""
    low = np.maximum(np.array(index) - reach.astype(np.intp), 0)
    box = values[tuple(slice(a, i + int(r) + 1) for a, i, r in zip(low, index, reach, strict=True))]
    highest: NDArray[np.intp] = low + np.argwhere(box == box.max())
    nearest: NDArray[np.intp] = highest[np.square(highest - np.array(index)).sum(axis=1).argmin()]
    return nearest


def _draw_rows(axes: NDArray[np.object_], picture: Picture, layers: _Layers) -> None:
    turn = nearest_ras(picture.geometry)
    for row, peak, value, number in zip(axes, picture.peaks, picture.values, picture.numbers, strict=True):
        at = np.rint(np.linalg.inv(turn) @ [*peak, 1])[:3].astype(int)
        for axis, plain, overlaid in zip(_PLANES, row[::2], row[1::2], strict=True):
            layers.draw(plain, axis=axis, at=at, heat=False)
            layers.draw(overlaid, axis=axis, at=at, heat=True)
            _mark(plain, at[[a for a in range(3) if a != axis]], number=number)
        what = f"candidate {number}" if number else "no candidate"
        text = f"{what}: {value:.3g} {picture.unit} at the cross"
        row[0].set_title(text, color="white", fontsize=10, loc="left")


def _mark(ax: Axes, place: NDArray[np.intp], *, number: int) -> None:
    """A cross at a place of a plane, and beside it the number of the candidate that it lies in, if any."""
    x, y = place
    ax.plot(x, y, "+", color=_CROSS, markersize=14, markeredgewidth=0.9)
    if number:
        text = ax.annotate(str(number), (x, y), (4, 4), textcoords="offset points", color=_CROSS)
        text.set(fontsize=13, fontweight="bold")


@dataclass(frozen=True, eq=False)
class _Layers:
    """Scan and map with their axes turned to R, A, S, and how both are coloured."""

    scan: NDArray[np.float32]
    heat: NDArray[np.float32]
    outline: NDArray[np.bool_] | None
    spacing: NDArray[np.float64]
    box: list[tuple[float, float]]  # what is worth showing along each axis
    grey: Normalize
    scale: Normalize

    @classmethod
    def from_picture(cls, picture: Picture, turn: NDArray[np.float64]) -> _Layers:
        scan, heat, covered = (turned(one, turn) for one in (picture.scan, picture.heat, picture.covered))
        spacing = np.array(picture.geometry.spacing) @ np.abs(turn[:3, :3])
        low, high = np.percentile(scan[covered] if covered.any() else scan, (0.5, 99.5))
        box = []
        for axis in range(3):
            inside = np.flatnonzero(covered.any(axis=tuple(a for a in range(3) if a != axis)))
            margin = _MARGIN_MM / spacing[axis]
            first, last = (inside[0], inside[-1]) if len(inside) else (0, covered.shape[axis] - 1)
            box.append((max(-0.5, first - margin), min(covered.shape[axis] - 0.5, last + margin)))
        outline = None if picture.outline is None else turned(picture.outline, turn)
        return cls(scan, heat, outline, spacing, box, Normalize(float(low), float(high)), colour_scale(picture.limit))

    def panels(self) -> tuple[list[float], float]:
        """Widths of the six panels, as their planes are wide, and the height of a row that they fill, inches."""
        mm = [float(high - low) * step for (low, high), step in zip(self.box, self.spacing, strict=True)]
        widths = [mm[across] for across in (0, 0, 0, 0, 1, 1)]
        per_mm = (_WIDTH - _SIDE - 6 * _GAPS) / sum(widths)
        return widths, per_mm * max(mm[1], mm[2]) + _ABOVE

    def draw(self, ax: Axes, *, axis: int, at: NDArray[np.intp], heat: bool) -> None:
        """One plane, head or front up, right or nose on the left; the template's outline on the plain one."""
        across, up = (a for a in range(3) if a != axis)
        look = {"origin": "lower", "aspect": self.spacing[up] / self.spacing[across], "interpolation": "nearest"}
        ax.imshow(np.take(self.scan, at[axis], axis=axis).T, cmap="gray", norm=self.grey, **look)
        if heat:
            ax.imshow(np.take(self.heat, at[axis], axis=axis).T, cmap=COLOURS, norm=self.scale, **look)
        else:
            self._draw_outline(ax, axis=axis, at=int(at[axis]))
        ax.set_xlim(*self.box[across][::-1])
        ax.set_ylim(*self.box[up])
        ax.set_axis_off()
        for x, side in ((0.01, "RA"[across]), (0.99, "LP"[across])):
            ha = "left" if x < 0.5 else "right"
            letter = ax.text(x, 0.5, side, color="#ffd000", fontsize=10, ha=ha, va="center", transform=ax.transAxes)
            letter.set_path_effects([withStroke(linewidth=2, foreground="black")])  # it may lie on white bone

    def _draw_outline(self, ax: Axes, *, axis: int, at: int) -> None:
        """The border of the template's brain in one plane, a thin line."""
        plane = None if self.outline is None else np.take(self.outline, at, axis=axis).T
        if plane is not None and plane.any() and not plane.all():
            ax.contour(plane, levels=[0.5], colors=["#40c060"], linewidths=0.5)


def _colour_bar(figure: Figure, axes: NDArray[np.object_], picture: Picture) -> None:
    bar = figure.colorbar(
        ScalarMappable(colour_scale(picture.limit), COLOURS),
        ax=axes,
        shrink=0.8,
        pad=0.01,
        fraction=0.03,
        aspect=25,
        extend="max",
    )
    bar.set_label(f"{picture.unit} (same scale in all pictures of this run)", color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)
    bar.ax.set_facecolor("black")
    bar.ax.axhline(picture.limit, color="white", linewidth=1)
    beside = bar.ax.get_yaxis_transform()
    text = "99.9% of\nhealthy"
    bar.ax.text(-0.15, picture.limit, text, color="white", fontsize=7, va="bottom", ha="right", transform=beside)


def colour_scale(limit: float) -> Normalize:
    """From a map's value to 0..1 on the colour scale, the same in all pictures of a run.

    Args:
        limit: 99.9% of healthy voxels lie below.
    """
    return Normalize(0.0, TOP * max(limit, 1e-6))


def _ramp() -> ListedColormap:
    """Transparent below half the healthy limit, then ever more opaque up to the limit."""
    colours = colormaps["inferno"](np.linspace(0.35, 1, 256))
    limits = np.linspace(0, TOP, 256)
    colours[:, 3] = 0.75 * np.clip((limits - _CLEAR) / (1 - _CLEAR), 0, 1)
    return ListedColormap(colours)


COLOURS = _ramp()
