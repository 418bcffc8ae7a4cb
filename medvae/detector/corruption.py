"""A healthy scan with simulated anomalies, and how much was changed where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.detector.shapes import draw_shape
from medvae.detector.tasks import TASKS, Place
from medvae.prepare.intensity import robust_spread
from medvae.prepare.noise import noise_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.detector.shapes import Spacing

_EDGE_MM = 3.0  # borders are blurred by a Gaussian of up to this σ
_HALF = 0.4  # change, in units of the tissue spread, whose target is 1 − exp(−1/2)
_AROUND_MM = 4.0  # the change is averaged around a voxel, so that the inside of a shifted border counts
_LARGE_ML, _MOST, _MARKED = 20.0, 10.0, 0.05  # of the emphasis, and the target from which it counts
_NESTED = 0.5  # how often one more anomaly is put into or around the last one: core, rim, swelling
_MOST_NESTED, _APART_MM = 3, 2.0  # anomalies in one place, and what lies between their borders, once to four times


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A scan with anomalies.

    Attributes:
        image: float32 `(X, Y, Z)`.
        target: float32 `(X, Y, Z)`, 0 where nothing was changed, near 1 where much was.
        emphasis: float32 `(X, Y, Z)`, √(20 mL / V) in an anomaly of volume V, at most 10: small ones are to count, too,
            though they have few voxels; 0 elsewhere.
    """

    image: NDArray[np.float32] = field(repr=False)
    target: NDArray[np.float32] = field(repr=False)
    emphasis: NDArray[np.float32] = field(repr=False)


def corrupt(
    image: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    *,
    donor: NDArray[np.float32],
    tasks: Sequence[str],
    count: int,
    spacing: Spacing,
    rng: np.random.Generator,
) -> Corrupted:
    """Put anomalies into a scan. The target is 1 − exp(−d² / 2h²), with d the mean size of the change around a voxel in
    units of the spread of the scan's tissue, and h = `_HALF` (after Baugh et al., MICCAI 2023).

    Args:
        image: prepared, `(X, Y, Z)`.
        foreground: bool, the same shape.
        donor: another prepared scan on the same grid, with the value of fluid outside its foreground.
        tasks: names in `TASKS`, one of which is drawn for each anomaly.
        count: of anomalies.
        spacing: of the voxels, mm.
        rng: all that is random.

    Raises:
        ScanError: `blank`, where the foreground has one value.
    """
    target, emphasis = np.zeros_like(image), np.zeros_like(image)
    floor = np.float32(np.percentile(image[foreground][::7], 0.5))
    changed = np.where(foreground, image, floor)  # a patch from the brain's border brings fluid along, not background
    noise = noise_of(image, foreground)
    spread = robust_spread(image, foreground)
    for _ in range(count):
        box, shape = draw_shape(foreground, spacing=spacing, rng=rng)
        shapes = [shape]
        while len(shapes) < _MOST_NESTED and rng.random() < _NESTED:
            shapes.append(_nested(shape, spacing=spacing, rng=rng))
        for one in shapes:
            weight = _softened(one, foreground[box], spacing=spacing, rng=rng)
            place = Place(changed, foreground, donor, box, weight, spacing, noise, spread)
            there = place.there.copy()
            new = TASKS[tasks[int(rng.integers(len(tasks)))]](place, rng)
            inside = foreground[box]
            new = np.where(inside, np.maximum(new, np.minimum(there, floor)), there)
            changed[box] = new
        change = np.where(foreground[box], np.abs(changed[box] - image[box]) / np.float32(spread), np.float32(0))
        widest = _softened(np.logical_or.reduce(shapes), foreground[box], spacing=spacing, rng=rng)
        new_target = np.where(foreground[box], _target(change, widest, spacing=spacing), np.float32(0))
        target[box] = np.maximum(target[box], new_target)
        emphasis[box] = np.maximum(emphasis[box], _emphasis(new_target, spacing=spacing))
    return Corrupted(np.where(foreground, changed, image), target, emphasis)


def _nested(shape: NDArray[np.bool_], *, spacing: Spacing, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A smaller shape inside, its rim, or what lies around it; borders are 2, 4, 6 or 8 mm apart."""
    steps = np.maximum(1, np.round(_APART_MM * int(rng.integers(1, 5)) / np.array(spacing))).astype(int)
    near = _octahedron(steps)
    inner = ndimage.binary_erosion(shape, near)
    if not inner.any():
        return shape
    outer = ndimage.binary_dilation(shape, near)
    choices: list[NDArray[np.bool_]] = [inner, shape & ~inner, outer & ~shape, outer]
    return choices[int(rng.integers(len(choices)))]


def _octahedron(steps: NDArray[np.int_]) -> NDArray[np.bool_]:
    """What lies within these numbers of voxels along the axes: on cubic voxels, as many steps from face to face."""
    away = [np.abs(np.arange(-n, n + 1)) / n for n in steps]
    near: NDArray[np.bool_] = np.add.reduce(np.meshgrid(*away, indexing="ij")) <= 1 + 1e-9
    return near


def _softened(
    shape: NDArray[np.bool_], inside: NDArray[np.bool_], *, spacing: Spacing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """1 in the shape and 0 outside, with a blurred border; 0 outside the foreground."""
    sigma = rng.uniform(0, _EDGE_MM) / np.array(spacing)
    soft = ndimage.gaussian_filter(shape.astype(np.float32), sigma, truncate=3)
    weight: NDArray[np.float32] = np.where(inside, soft, np.float32(0))
    return weight


def _target(change: NDArray[np.float32], weight: NDArray[np.float32], *, spacing: Spacing) -> NDArray[np.float32]:
    """The target for the mean change under the shape around a voxel, or for the change right here if it is more."""
    sigma = _AROUND_MM / np.array(spacing)
    share = np.maximum(ndimage.gaussian_filter(weight, sigma, truncate=3), 1e-3)
    mean = ndimage.gaussian_filter(change * weight, sigma, truncate=3) / share
    here = ndimage.gaussian_filter(change, sigma / 2, truncate=3)
    target: NDArray[np.float32] = np.maximum(weight * _degree(mean), _degree(here))
    return target


def _emphasis(target: NDArray[np.float32], *, spacing: Spacing) -> NDArray[np.float32]:
    """More for an anomaly of a smaller volume."""
    millilitres = float(target.sum()) * float(np.prod(spacing)) / 1000
    size = min(float(np.sqrt(_LARGE_ML / max(millilitres, 1e-3))), _MOST)
    emphasis: NDArray[np.float32] = np.where(target > _MARKED, np.float32(size), np.float32(0))
    return emphasis


def _degree(change: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 to 1: how anomalous a change of this size is."""
    degree: NDArray[np.float32] = 1 - np.exp(-np.square(change / np.float32(_HALF)) / 2)
    return degree
