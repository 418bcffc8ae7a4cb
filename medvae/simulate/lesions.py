"""Simulated lesions: a lesion of a given shape is implanted into a healthy scan; its mask is the ground truth.

Shapes are real where mask files are given. Their contents are simulated and simpler than disease: no swelling, no
oedema, one contrast throughout. Results on simulated lesions compare methods; they do not predict results on real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from medvae.io.formats import nifti
from medvae.prepare import intensity
from medvae.prepare.grid import box_around, resample
from medvae.prepare.noise import noise_of
from medvae.prepare.pieces import CORNERS, numbered
from medvae.settings import PrepareSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Geometry

Kind = Literal["dark", "bright", "iso"]

CONTRAST = 1.5  # about the step from white to grey matter in T1: the value alone is not abnormal
EDGE_MM = 3.0
TEXTURE_MM = 6.0
_FLUID = 0.5  # percentile of the foreground: no lesion is darker than this


@dataclass(frozen=True, eq=False)
class Implanted:
    """A scan with a simulated lesion.

    Attributes:
        image: float32 `(X, Y, Z)`, in the scan's units; unchanged outside the lesion and its edge.
        truth: bool `(X, Y, Z)`, the shape within the foreground.
        contrast: mean change over the truth that was reached, in units of the scan's own tissue spread.
    """

    image: NDArray[np.float32] = field(repr=False)
    truth: NDArray[np.bool_] = field(repr=False)
    contrast: float


def implant(
    image: NDArray[np.float32],
    shape: NDArray[np.bool_],
    *,
    foreground: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    kind: Kind,
    contrast: float = CONTRAST,
    edge_mm: float = EDGE_MM,
    seed: int = 0,
) -> Implanted:
    """Put a lesion of this shape into a scan. Only the foreground changes.

    - `dark`, `bright`: values fall or rise by `contrast` times the tissue spread; anatomy and noise stay visible.
      No value falls below the scan's darkest fluid.
    - `iso`: anatomy is replaced by its local mean (Gaussian σ of `TEXTURE_MM`) and noise as strong as the scan's own.
      Every connected piece of the lesion keeps its mean: only the missing structure shows it.

    Args:
        image: `(X, Y, Z)`, native or prepared values.
        shape: bool `(X, Y, Z)`, the shape of the lesion.
        foreground: bool `(X, Y, Z)`, e.g. the brain.
        spacing: of the voxels, mm.
        kind: what fills the shape.
        contrast: change in units of the tissue spread: the 5–95% range of the foreground over that of a unit normal, as
            in `robust_z`. Not used by `iso`.
        edge_mm: width of the ramp across the border; its half height lies on the border of the truth.
        seed: of the noise in `iso`.

    Raises:
        ValueError: no voxel of the shape lies in the foreground.
        ScanError: `blank`, where the foreground has one value.
    """
    truth = shape & foreground
    if not truth.any():
        raise ValueError("no voxel of the shape lies in the foreground")
    spread = intensity.fit(image, foreground, settings=PrepareSettings(intensity="robust_z")).scale
    box = box_around(truth, margin=[int(np.ceil((edge_mm + 3 * TEXTURE_MM) / mm)) for mm in spacing])
    there, inside = image[box], foreground[box]
    weight = np.where(inside, _ramp(truth[box], edge_mm=edge_mm, spacing=spacing), np.float32(0))
    if kind == "iso":
        noise = noise_of(image, foreground)
        smooth = _without_anatomy(there, truth[box], inside=inside, spacing=spacing, noise=noise, seed=seed)
        changed = there + weight * (smooth - there)
        changed += weight * _mean_by_piece(there - changed, weight, truth[box])
    else:
        step = np.float32(contrast * spread) * weight
        fluid = np.float32(np.percentile(image[foreground], _FLUID))
        changed = there + step if kind == "bright" else np.maximum(there - step, np.minimum(there, fluid))
    result = image.astype(np.float32)
    result[box] = np.where(weight > 0, changed, there)
    realised = float((result[truth].astype(np.float64) - image[truth]).mean()) / spread
    return Implanted(result, truth, realised)


def shape_on(path: Path, geometry: Geometry) -> NDArray[np.bool_]:
    """A lesion mask file on another grid, by position in mm: voxels that it covers by at least half.

    Raises:
        ScanError: the file cannot be read.
    """
    data, own = nifti.read_values(path, ReadSettings())
    covered = resample((data > 0).astype(np.float32), np.linalg.inv(own.affine) @ geometry.affine, geometry.shape)
    return np.asarray(covered >= 0.5)


def spread_by_volume(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` mask files, evenly spread over all of them by rank of volume, from small to large.

    Raises:
        ScanError: a file cannot be read.
        ValueError: there are fewer than `count`.
    """
    if not 0 < count <= len(paths):
        raise ValueError(f"{count} of {len(paths)} shapes")
    volumes = []
    for path in paths:
        data, geometry = nifti.read_values(path, ReadSettings())
        volumes.append((float((data > 0).sum()) * geometry.voxel_volume, path.name, path))
    ranked = [path for _, _, path in sorted(volumes)]
    return [ranked[int((place + 0.5) * len(ranked) / count)] for place in range(count)]


def _ramp(truth: NDArray[np.bool_], *, edge_mm: float, spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """From 0 outside to 1 inside over `edge_mm`; above one half exactly inside the truth."""
    half = min(spacing) / 2  # the border lies between two voxels
    depth = ndimage.distance_transform_edt(truth, spacing) - half
    height = ndimage.distance_transform_edt(~truth, spacing) - half
    signed = np.where(truth, depth, -height)
    ramp: NDArray[np.float32] = np.clip(0.5 + signed / max(edge_mm, 1e-6), 0, 1).astype(np.float32)
    return ramp


def _without_anatomy(
    image: NDArray[np.float32],
    truth: NDArray[np.bool_],
    *,
    inside: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    noise: float,
    seed: int,
) -> NDArray[np.float32]:
    """The local mean of the foreground, with white noise added."""
    sigma = TEXTURE_MM / np.array(spacing)
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma, truncate=3)
    total = ndimage.gaussian_filter(np.where(inside, image, np.float32(0)).astype(np.float32), sigma, truncate=3)
    grain = np.random.default_rng(seed).normal(0, noise, size=image.shape).astype(np.float32)
    smooth: NDArray[np.float32] = total / np.maximum(weight, np.float32(1e-6)) + grain
    return smooth


def _mean_by_piece(
    missing: NDArray[np.float32], weight: NDArray[np.float32], truth: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Per connected piece of the truth, the value that times `weight` adds up to the missing mean; 0 elsewhere."""
    labels, sizes = numbered(truth, CORNERS)
    numbers = np.arange(1, len(sizes) + 1)
    share = ndimage.sum(missing, labels, numbers) / ndimage.sum(weight, labels, numbers)
    spread_out: NDArray[np.float32] = np.concatenate([[0], share]).astype(np.float32)[labels]
    return spread_out
