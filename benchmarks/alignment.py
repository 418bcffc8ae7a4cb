"""Alignment of diseased and degraded brains: how far the result is from that of the same brain without the change.

    python benchmarks/alignment.py [--data FOLDER] [--choose]

Every stroke shape of `stroke-lesion-masks` is implanted into a healthy brain (dark, bright or mixed in turn), the
tissue around it is displaced, and the result is degraded in one of several ways. The distance is between the positions
of the template's brain under the two matrices, averaged over its voxels. Images that are not upright heads must be
refused. By default the brains are those of the split `test`; `--choose` takes the others, on which thresholds were
chosen.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvae.cli import console
from medvae.cohort.find import find
from medvae.cohort.read import read
from medvae.errors import ScanError
from medvae.io.formats import nifti
from medvae.prepare import template
from medvae.prepare.align import Alignment, align_to_template
from medvae.prepare.grid import resample
from medvae.scan import Geometry, Scan, Selection
from medvae.settings import ReadSettings
from medvae.simulate.lesions import implant, shape_on, spread_by_volume

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = ReadSettings()
SWELLING_MM, REACH_MM = 10.0, 25.0  # displacement at the border of the lesion, and how far it reaches
ALLOWED_MM = 4.0
KINDS = ("dark", "bright", "mixed")
Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Brain:
    """A stripped brain on its own grid, 0 outside."""

    data: Volume
    geometry: Geometry

    @property
    def inside(self) -> Mask:
        """The brain."""
        return np.asarray(self.data != 0)


# ------------------------------------------------------------------------------------------------ disease


def with_lesion(brain: Brain, path: Path, kind: str) -> Brain:
    """A lesion of this shape that displaces the tissue around it; `mixed` has a dark core and a bright rim."""
    shape = shape_on(path, brain.geometry)
    spacing = brain.geometry.spacing
    swollen, inside = swell(brain.data, shape, spacing=spacing), brain.inside
    if kind == "mixed":
        core = ndimage.distance_transform_edt(shape & inside, spacing) > 6
        rim = implant(swollen, shape, foreground=inside, spacing=spacing, kind="bright").image
        one = implant(rim, core if core.any() else shape, foreground=inside, spacing=spacing, kind="dark", contrast=4.0)
    elif kind == "dark":
        one = implant(swollen, shape, foreground=inside, spacing=spacing, kind="dark")
    else:
        one = implant(swollen, shape, foreground=inside, spacing=spacing, kind="bright")
    return Brain(np.where(inside, one.image, np.float32(0)), brain.geometry)


def swell(image: Volume, shape: Mask, *, spacing: tuple[float, float, float]) -> Volume:
    """Tissue pushed outwards from a lesion: by `SWELLING_MM` at its border, less with distance, not at the skull."""
    inside = image != 0
    height = ndimage.distance_transform_edt(~shape, spacing)
    signed = ndimage.gaussian_filter((height - ndimage.distance_transform_edt(shape, spacing)).astype(np.float32), 3)
    slopes = np.gradient(signed, *spacing)
    size = np.maximum(np.sqrt(sum(np.square(one) for one in slopes)), 1e-3)
    depth = np.clip(ndimage.distance_transform_edt(inside, spacing) / 20, 0, 1)
    push = SWELLING_MM * np.exp(-height / REACH_MM) * depth
    index = np.indices(image.shape, dtype=np.float32)
    at = [i - push * one / size / mm for i, one, mm in zip(index, slopes, spacing, strict=True)]
    moved = ndimage.map_coordinates(image, at, order=1)
    return np.where(inside, np.maximum(moved, np.float32(1)), np.float32(0))


# -------------------------------------------------------------------------------------------- degradation


def as_it_is(brain: Brain) -> Brain:
    """No further change."""
    return brain


def thick_slices(brain: Brain) -> Brain:
    """Slices of 5 or 6 mm, averaged."""
    step = round(5.0 / brain.geometry.spacing[2])
    n = brain.geometry.shape[2] // step
    data = brain.data[:, :, : n * step].reshape(*brain.data.shape[:2], n, step).mean(axis=3)
    affine = brain.geometry.affine @ np.diag([1, 1, step, 1.0])
    affine[:3, 3] += brain.geometry.affine[:3, 2] * (step - 1) / 2
    return Brain(data.astype(np.float32), Geometry(data.shape, affine))


def low_contrast(brain: Brain) -> Brain:
    """Grey and white matter nearly alike, with noise."""
    inside = brain.inside
    middle = np.median(brain.data[inside])
    grain = np.random.default_rng(0).normal(0, 0.06 * middle, brain.data.shape)
    flat = middle + 0.3 * (brain.data - middle) + grain
    return Brain(np.where(inside, flat, 0).astype(np.float32), brain.geometry)


def other_atlas(brain: Brain) -> Brain:
    """1 mm, 240 x 240 x 155, axes to the left, back and up, as in the BraTS challenge."""
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, 3] = brain.geometry.to_world((np.array(brain.geometry.shape) - 1) / 2) + np.array([119.5, 119.5, -77])
    matrix = np.linalg.inv(brain.geometry.affine) @ affine
    return Brain(resample(brain.data, matrix, (240, 240, 155)), Geometry((240, 240, 155), affine))


def z_scored(brain: Brain) -> Brain:
    """Scaled to mean 0 and spread 1 inside the brain; the background stays 0."""
    inside = brain.inside
    values = brain.data[inside]
    return Brain(np.where(inside, (brain.data - values.mean()) / values.std(), 0).astype(np.float32), brain.geometry)


def receive_field(brain: Brain) -> Brain:
    """Brightness that falls to a third across the head."""
    where = brain.geometry.to_world(np.moveaxis(np.indices(brain.data.shape), 0, -1))
    return Brain((brain.data * np.exp(where @ [0.003, 0.006, -0.005])).astype(np.float32), brain.geometry)


def tilted(brain: Brain) -> Brain:
    """Held 15 degrees to the side, 12 forward, and 20 mm off."""
    a, b = np.radians([12.0, 15.0])
    pitch = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    roll = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = pitch @ roll, (20, -10, 15)
    return Brain(brain.data, Geometry(brain.geometry.shape, pose @ brain.geometry.affine))


def cut_above(brain: Brain) -> Brain:
    """The upper quarter of the brain lies outside the scan."""
    return cut(brain, keep=slice(0, 0.75))


def cut_below(brain: Brain) -> Brain:
    """The lower quarter of the brain lies outside the scan."""
    return cut(brain, keep=slice(0.25, 1))


def cut(brain: Brain, *, keep: slice) -> Brain:
    """A share of the brain's height."""
    rows = np.flatnonzero(brain.inside.any(axis=(0, 1)))
    first, last = (int(rows[0] + share * (rows[-1] + 1 - rows[0])) for share in (keep.start, keep.stop))
    affine = brain.geometry.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    data = np.ascontiguousarray(brain.data[:, :, first:last])
    return Brain(data, Geometry(data.shape, affine))


def resected(brain: Brain) -> Brain:
    """A ball of 60 mm at the rim of one hemisphere is missing."""
    where = brain.geometry.to_world(np.moveaxis(np.indices(brain.data.shape), 0, -1))
    centre = where[brain.inside].mean(axis=0) + np.array([-45, 30, 25])
    hole = np.linalg.norm(where - centre, axis=-1) < 30
    return Brain(np.where(hole, np.float32(0), brain.data), brain.geometry)


DEGRADED: tuple[Callable[[Brain], Brain], ...] = (
    as_it_is,
    thick_slices,
    low_contrast,
    other_atlas,
    z_scored,
    receive_field,
    tilted,
    resected,
    cut_above,
    cut_below,
)


# ------------------------------------------------------------------------------------------- no upright head


def turned(brain: Brain, axes: tuple[int, ...]) -> Brain:
    """The voxels flipped along axes whose directions the header still gives as before."""
    return Brain(np.ascontiguousarray(np.flip(brain.data, axes)), brain.geometry)


def ball_of_noise(geometry: Geometry) -> Brain:
    """70 mm, smooth noise."""
    where = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    centre = geometry.to_world((np.array(geometry.shape) - 1) / 2)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=geometry.shape), 2)
    inside = np.linalg.norm(where - centre, axis=-1) < 70
    return Brain(np.where(inside, 100 + 20 * noise / noise.std(), 0).astype(np.float32), geometry)


def hand(geometry: Geometry) -> Brain:
    """A palm and five fingers of soft tissue around bone."""
    where = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    x, y, z = np.moveaxis(where - geometry.to_world((np.array(geometry.shape) - 1) / 2), -1, 0)
    parts = [(np.abs(x) < 40) & (np.abs(y) < 14) & (z < 10) & (z > -80)]
    parts += [(np.hypot(x - at, y) < 8) & (z >= 8) & (z < 85 - abs(at) / 2) for at in (-32, -16, 0, 16, 32)]
    bones = [(np.hypot(x - at, y) < 3.5) & (z < 80) & (z > -75) for at in (-32, -16, 0, 16, 32)]
    flesh, bone = np.any(parts, axis=0), np.any(bones, axis=0)
    grain = np.random.default_rng(0).normal(0, 4, x.shape)
    return Brain(np.where(flesh, np.where(bone, 40, 120) + grain, 0).astype(np.float32), geometry)


def no_heads(data: Path, brain: Brain) -> dict[str, tuple[Scan, Mask | None]]:
    """What must be refused, by name: scans, and the masks they are aligned with."""
    chest = read(data / "dicom" / "chest-ct" / "siemens-sensation10-8mm-whole")
    noise = np.random.default_rng(0).normal(100, 20, (60, 60, 60)).astype(np.float32)
    brains = {
        "upside down": turned(brain, (0, 2)),
        "facing back": turned(brain, (0, 1)),
        "mirrored head to foot": turned(brain, (2,)),
        "mirrored front to back": turned(brain, (1,)),
        "ball of noise": ball_of_noise(brain.geometry),
        "hand": hand(brain.geometry),
        "brain of half the size": Brain(
            brain.data, Geometry(brain.geometry.shape, np.diag([0.5, 0.5, 0.5, 1]) @ brain.geometry.affine)
        ),
    }
    cases: dict[str, tuple[Scan, Mask | None]] = {
        name: (Scan(one.data, one.geometry), one.inside) for name, one in brains.items()
    }
    cases["chest"] = (chest, None)
    cases["noise"] = (Scan(noise, Geometry((60, 60, 60), np.diag([4.0, 4, 4, 1]))), None)
    return cases


# ---------------------------------------------------------------------------------------------- measurement


def distances(found: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance between the positions of the template's brain under two matrices, mm."""
    grid = template.centred_grid((8, 8, 8), (24, 28, 24))
    points = grid.to_world(np.argwhere(template.on_grid(grid)[1]))
    apart = points @ (found - right)[:3, :3].T + (found - right)[:3, 3]
    return np.asarray(np.linalg.norm(apart, axis=1))


def align(brain: Brain) -> Alignment:
    """As `prepare` does for a stripped brain on a background of 0."""
    inside = brain.inside
    low = float(brain.data[inside].min())
    data = np.where(inside, brain.data - min(low, 0.0), 0).astype(np.float32)
    return align_to_template(Scan(data, brain.geometry), inside)


@dataclass(frozen=True, eq=False)
class Row:
    """One diseased brain: its shape, how far the template's brain moved (None: refused), and a warning or reason."""

    shape: str
    apart: NDArray[np.float64] | None
    words: str


def matrix_of(brain: Brain) -> tuple[NDArray[np.float64] | None, str]:
    """The matrix, and a warning or the reason of a refusal."""
    try:
        found = align(brain)
    except ScanError as error:
        return None, error.message
    return found.matrix, found.doubt or ""


def measure(brains: list[Brain], paths: list[Path]) -> dict[str, list[Row]]:
    """One row per shape, by degradation; every brain is aligned once without a change."""
    plain = [matrix_of(brain)[0] for brain in brains]
    rows: dict[str, list[Row]] = {}
    for number, path in enumerate(paths):
        brain, right = brains[number % len(brains)], plain[number % len(brains)]
        degrade = DEGRADED[number % len(DEGRADED)]
        found, words = matrix_of(degrade(with_lesion(brain, path, KINDS[number % len(KINDS)])))
        if degrade is tilted and right is not None:
            right = tilted(brain).geometry.affine @ np.linalg.inv(brain.geometry.affine) @ right
        apart = None if found is None or right is None else distances(found, right)
        rows.setdefault(degrade.__name__, []).append(Row(path.name, apart, words))
        print(f"{number + 1}/{len(paths)} {path.name} {degrade.__name__} {words}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="alignment of diseased and degraded brains")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1 and stroke-lesion-masks")
    parser.add_argument("--choose", action="store_true", help="the brains that thresholds were chosen on")
    options = parser.parse_args()
    splits = ("train", "calibrate") if options.choose else ("test",)
    lists = [find(Selection((options.data / "brains-t1" / "split.csv",), split=name), SETTINGS) for name in splits]
    brains = [Brain(*nifti.read_values(ref.path, SETTINGS)) for one in lists for ref in one.refs]
    paths = sorted((options.data / "stroke-lesion-masks").glob("*.nii.gz"))
    rows = measure(brains, spread_by_volume(paths, len(paths)))
    console.table(["degraded by", "aligned", "within 4 mm", "mean mm", "worst mean mm", "doubtful"], summary(rows))
    print()
    for name, (scan, mask) in no_heads(options.data, brains[0]).items():
        try:
            found = align_to_template(scan, mask)
            print(f"ACCEPTED {name}: local r = {found.likeness:.2f}")
        except ScanError as error:
            print(f"refused  {name}: {error.message}")


def summary(rows: dict[str, list[Row]]) -> list[list[str]]:
    """One line per degradation, and one for all."""
    groups = [*rows.items(), ("all", [one for group in rows.values() for one in group])]
    table = []
    for name, group in groups:
        means = [float(one.apart.mean()) for one in group if one.apart is not None]
        within = sum(mean <= ALLOWED_MM for mean in means)
        doubtful = sum(bool(one.words) and one.apart is not None for one in group)
        counts = f"{len(means)} of {len(group)}", f"{within} of {len(group)}"
        table.append([name, *counts, f"{np.mean(means):.2f}", f"{max(means):.2f}", str(doubtful)])
    return table


if __name__ == "__main__":
    main()
