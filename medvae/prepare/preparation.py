"""From a scan to the model's grid: every spatial step is part of one matrix, applied in one resampling."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from medvae.errors import ScanError
from medvae.io import hounsfield
from medvae.prepare import intensity as _intensity
from medvae.prepare import template
from medvae.prepare.align import align_to_template
from medvae.prepare.background import darkened, find_background
from medvae.prepare.brain import extract_brain
from medvae.prepare.contrast import tissue_contrast
from medvae.prepare.field import receive_field
from medvae.prepare.foreground import dense_air, find_foreground, is_stripped, without_dark_rim
from medvae.prepare.grid import box_around, inside, nearest_ras, resample, resample_labels, straight
from medvae.prepare.intensity import Intensity
from medvae.scan import Geometry, Modality, Scan, Shape, Units, scan_hash
from medvae.settings import PrepareSettings, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.prepare.background import Background

__all__ = ["Intensity", "Preparation", "Prepared", "prepare"]

WHOLE_HEAD = "whole_head: no brain could be extracted; masked with the template's brain"

_HIGHEST = float(np.finfo(np.float16).max)  # prepared scans are kept in half precision


@dataclass(frozen=True)
class Preparation:
    """The recipe from a scan to the model's grid; a part of every checkpoint.

    Attributes:
        settings: the steps and their parameters.
    """

    settings: PrepareSettings

    @property
    def grid(self) -> Geometry:
        """The model's grid: in MNI space where scans are aligned, else centred on 0 mm; axes R, A, S."""
        spacing, shape = self.settings.spacing, self.settings.shape
        if self.settings.align == "mni152":
            return template.centred_grid(spacing, shape)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
        return Geometry(shape, affine)

    @property
    def aligned(self) -> bool:
        """Whether one voxel of the grid is one place in every scan."""
        return self.settings.align != "none"

    @property
    def hash(self) -> str:
        """SHA-256 of what decides the prepared values: the recipe and the template's file."""
        recipe = self.settings.model_dump(mode="json", exclude={"contrast"})  # it warns, and changes no value
        text = json.dumps(recipe, sort_keys=True) + (template.file_hash() if self.aligned else "")
        return sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return self.settings.model_dump(mode="json")

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Preparation:
        """The recipe from plain data.

        Raises:
            SettingsError: an unknown key or a wrong type.
        """
        return cls(validate(PrepareSettings, tree, where="preparation"))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the model's grid, and the way back.

    Attributes:
        id: of the scan.
        subject: who was scanned.
        image: float32 `(1, X, Y, Z)` on the grid, prepared intensities; background outside the mask.
        mask: bool `(1, X, Y, Z)`, the foreground that counts.
        fov: bool `(1, X, Y, Z)`, grid voxels that lie inside the scan.
        to_input: 4×4, grid voxel index -> input voxel index.
        grid: the model's grid.
        input: the scan's own grid.
        intensity: the value map and its inverse, after the receive field was divided out.
        bias_field: float32 `(1, X, Y, Z)`, the factor by which the receive field had changed each voxel; None where
            it was left as it is, and of a scan that was stored.
        foreground_ml: volume of the foreground in the scan, on the grid or not; None where only the template's brain is
            known of it, and of a scan that was stored.
        label_map: int16 `(1, X, Y, Z)` or None.
        modality: of the scan.
        units: of the scan's values; HU where the file does not say what it shows and the model is for CT.
        source_hash: SHA-256 of the scan (`scan_hash`).
        warnings: what a user should know; `whole_head` (see `WHOLE_HEAD`),
            `doubtful_alignment` and `doubtful_contrast` with their figures.
        conditions: what a list says about the scan, by column (`ScanRef.conditions`).
    """

    id: str
    subject: str
    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    fov: NDArray[np.bool_] = field(repr=False)
    to_input: NDArray[np.float64] = field(repr=False)
    grid: Geometry
    input: Geometry
    intensity: Intensity
    bias_field: NDArray[np.float32] | None = field(default=None, repr=False)
    foreground_ml: float | None = None
    label_map: NDArray[np.int16] | None = field(default=None, repr=False)
    modality: Modality | None = None
    units: Units = "a.u."
    source_hash: str = ""
    warnings: tuple[str, ...] = ()
    conditions: Mapping[str, float | str] = field(default_factory=dict)

    def in_units(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared intensities `(1, X, Y, Z)` in the units of the scan, its receive field included."""
        real = self.intensity.invert(values)
        return real if self.bias_field is None else real * self.bias_field


def prepare(
    scan: Scan,
    preparation: Preparation,
    *,
    id: str = "",  # noqa: A002
    subject: str = "",
    mask: NDArray[np.bool_] | None = None,
    label_map: NDArray[np.int16] | None = None,
    conditions: Mapping[str, float | str] | None = None,
) -> Prepared:
    """Bring a scan onto the model's grid in one resampling.

    Args:
        scan: as read.
        preparation: the recipe.
        id: of the scan, kept in the result.
        subject: who was scanned; the id if empty.
        mask: foreground on the scan's grid, bool `(X, Y, Z)`; found by the recipe's rule if None.
        label_map: labels on the scan's grid, int16 `(X, Y, Z)`; resampled by nearest neighbour.
        conditions: what is known of the scan besides, by name; kept in the result.

    Raises:
        ScanError: `wrong_modality`, `no_foreground`, `registration_failed`, `blank`, `values_too_large`;
            `mask_mismatch` for a mask or label map of another shape.
    """
    settings, grid = preparation.settings, preparation.grid
    _check(scan, settings, mask, label_map)
    background = find_background(scan) if settings.foreground == "nonzero" else None
    region = find_foreground(scan, settings, background=background) if mask is None else mask
    if not region.any():
        what, hint = ("foreground", None) if mask is None else ("mask", "give another mask, or none")
        raise ScanError(f"the {what} is empty", code="no_foreground", hint=hint)
    shown = scan if background is None else darkened(scan, background)
    if preparation.aligned:
        stripped = mask is not None or is_stripped(region, scan.geometry)
        place = _place(shown, region if stripped else None, background, grid=grid)
    else:
        place = _Place(_centred(scan, region, settings=settings), region)

    values, fov = _on_grid(shown, place.to_input, grid.shape)
    if place.region is None:
        on_grid = without_dark_rim(values, template.on_grid(grid)[1] & fov, spacing=grid.spacing)
    else:
        on_grid = _region_on_grid(place.region, place.to_input, grid.shape, fill=mask is None) & fov
    if not on_grid.any():
        raise ScanError("the foreground lies outside the model's grid", code="no_foreground")
    factor = receive_field(values, on_grid, spacing=grid.spacing) if settings.field == "n4" else None
    values = values if factor is None else values / factor
    scale = _intensity.fit(values, on_grid, settings=settings, highest=float(scan.data.max()))
    image = np.where(on_grid, scale.apply(values), np.float32(scale.background))
    if (highest := float(np.abs(image).max())) > _HIGHEST:
        message = f"its prepared values go up to {highest:.6g}; those above {_HIGHEST:.0f} cannot be kept"
        raise ScanError(message, code="values_too_large")
    labels = None if label_map is None else resample_labels(label_map, place.to_input, grid.shape)[None]
    return Prepared(
        id=id,
        subject=subject or id,
        image=np.ascontiguousarray(image[None]),
        mask=np.ascontiguousarray(on_grid[None]),
        fov=np.ascontiguousarray(fov[None]),
        to_input=place.to_input,
        grid=grid,
        input=scan.geometry,
        intensity=scale,
        bias_field=None if factor is None else factor[None],
        foreground_ml=None if place.region is None else float(place.region.sum()) * scan.geometry.voxel_volume / 1000,
        label_map=None if labels is None else np.ascontiguousarray(labels),
        modality=scan.modality or settings.modality,
        units=_units(scan, settings),
        source_hash=scan_hash(scan),
        warnings=(
            *scan.warnings,
            *place.warnings,
            *_doubts(scan, settings, background),
            *_doubts_of_contrast(values, on_grid, preparation),
        ),
        conditions=dict(conditions or {}),
    )


def _check(
    scan: Scan, settings: PrepareSettings, mask: NDArray[np.bool_] | None, label_map: NDArray[np.int16] | None
) -> None:
    if scan.modality and settings.modality and scan.modality != settings.modality:
        message = f"the scan is {scan.modality}, the model is for {settings.modality}"
        raise ScanError(message, code="wrong_modality")
    for one in (mask, label_map):
        if one is not None and one.shape != scan.data.shape:
            message = f"a mask or label map of {one.shape} does not fit the scan of {scan.data.shape}"
            raise ScanError(message, code="mask_mismatch")


def _doubts(scan: Scan, settings: PrepareSettings, background: Background | None) -> list[str]:
    """What a user should know of the scan's values, in words."""
    found = hounsfield.doubts(scan.data) if scan.modality is None and settings.modality == "CT" else []
    if (air := dense_air(scan, settings)) is not None:
        found.append(f"{air:.4g} fills the faces of the image (clipped or masked?): it is taken for air")
    if background is not None and background.odd:
        found.append(
            f"unusual background value {background.level:.4g} (z-scores inside a mask?): "
            f"treated as {background.stands_for:.3g}, the darkest tissue"
        )
    return found


def _units(scan: Scan, settings: PrepareSettings) -> Units:
    """Values of an unnamed file are taken for HU by a model for CT; else they are what the file says."""
    return "HU" if scan.modality is None and settings.modality == "CT" else scan.units


def _doubts_of_contrast(
    values: NDArray[np.float32], foreground: NDArray[np.bool_], preparation: Preparation
) -> list[str]:
    """Where tissues are known by their places: a warning that they do not have the contrast of T1."""
    settings = preparation.settings
    if not preparation.aligned or settings.modality != "MR" or settings.contrast == "any":
        return []
    found = tissue_contrast(values, foreground, grid=preparation.grid)
    return [found.doubt] if found is not None and found.doubt is not None else []


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the grid lies in a scan (grid index -> scan index), and what of the scan counts.

    `region` is `(X, Y, Z)` on the scan's grid; None where the template's brain is all that is known of it.
    """

    to_input: NDArray[np.float64]
    region: NDArray[np.bool_] | None
    warnings: tuple[str, ...] = ()


def _place(scan: Scan, region: NDArray[np.bool_] | None, background: Background | None, *, grid: Geometry) -> _Place:
    """By alignment to the template; `region` is None for a whole head.

    A whole head goes by its extracted brain. Where that is not a brain by its size, or not certainly one by its
    alignment, the head itself is aligned, and masked with the template's brain.
    """
    level = np.float32(0 if background is None else background.stands_for)
    zeroed = scan.with_data(scan.data - level) if level else scan  # a brain is aligned on a background of 0
    if region is not None:
        return _aligned(zeroed, region, grid=grid)
    brain, refused = extract_brain(scan), None
    if is_stripped(brain, scan.geometry):
        try:
            place = _aligned(zeroed, brain, grid=grid)
            if not place.warnings:
                return place
        except ScanError as problem:
            refused = problem
    try:
        return _place_by_template(scan, grid=grid)
    except ScanError as problem:
        raise refused or problem from None  # a brain without its skull shows better what is wrong


def _place_by_template(scan: Scan, *, grid: Geometry) -> _Place:
    """A whole head of which no brain is known but the template's, to which it is aligned."""
    found = _aligned(scan, None, grid=grid)
    return replace(found, warnings=(WHOLE_HEAD, *found.warnings))


def _aligned(scan: Scan, region: NDArray[np.bool_] | None, *, grid: Geometry) -> _Place:
    found = align_to_template(scan, region)
    to_input: NDArray[np.float64] = np.linalg.inv(scan.geometry.affine) @ found.matrix @ grid.affine
    return _Place(to_input, region, () if found.doubt is None else (found.doubt,))


def _on_grid(scan: Scan, to_input: NDArray[np.float64], shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values on the grid, the scan's lowest outside of it, and where the scan says something.

    Filled voxels have no weight: a value is the mean of what is valid around it (normalised convolution, Knutsson and
    Westin, CVPR 1993), and where most of it was filled the scan says nothing.
    """
    fov = inside(to_input, shape, of=scan.data.shape)
    lowest = float(scan.data.min())
    if scan.valid is None:
        return resample(scan.data, to_input, shape, outside=lowest), fov
    weight = resample(scan.valid.astype(np.float32), to_input, shape)
    above = resample(np.where(scan.valid, scan.data - np.float32(lowest), np.float32(0)), to_input, shape)
    known = weight > 0.5
    return np.where(known, above / np.where(known, weight, 1), 0) + np.float32(lowest), fov & known


def _region_on_grid(
    region: NDArray[np.bool_], to_input: NDArray[np.float64], shape: Shape, *, fill: bool
) -> NDArray[np.bool_]:
    """The foreground on the grid; holes of one that was found are filled, those of a given mask are meant."""
    found = resample_labels(region, to_input, shape) > 0
    return ndimage.binary_fill_holes(found) if fill else found


def _centred(scan: Scan, region: NDArray[np.bool_], *, settings: PrepareSettings) -> NDArray[np.float64]:
    """Grid index -> scan index without alignment: the scan's own directions nearest to R, A, S, centre on centre."""
    turn = nearest_ras(scan.geometry)
    middle = (np.array(scan.geometry.shape) - 1) / 2
    if settings.centre == "foreground":
        middle = np.array([(one.start + one.stop - 1) / 2 for one in box_around(region)])
    to_world = straight(scan.geometry, turn) @ np.diag(settings.spacing)
    linear = np.linalg.inv(scan.geometry.affine[:3, :3]) @ to_world
    corner = middle - linear @ ((np.array(settings.shape) - 1) / 2)
    matrix = np.eye(4)
    if np.abs(linear - np.rint(linear)).max() < 1e-4 and np.abs(linear).max() < 1.5:
        linear, corner = np.rint(linear), np.rint(corner)  # the same voxels: half a voxel off, but none is interpolated
    matrix[:3, :3], matrix[:3, 3] = linear, corner
    return matrix
