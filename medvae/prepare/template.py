"""The MNI152 brain (ICBM 2009a, nonlinear, symmetric) that lies in nilearn's wheel; nilearn itself is not imported."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np

from medvae.errors import RunError
from medvae.prepare.grid import box_around, resample, resample_labels
from medvae.scan import Geometry, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["t1", "gm", "wm"]


def path(kind: Kind) -> Path:
    """The file of the stripped T1 template, or of its grey or white matter probability (all uint8, 1 mm).

    Raises:
        RunError: nilearn is not installed.
    """
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise RunError("the MNI152 template is read from nilearn, which is missing", hint="pip install nilearn")
    return Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"


def file_hash() -> str:
    """SHA-256 of the T1 template's file: a part of what a Preparation is."""
    return sha256(path("t1").read_bytes()).hexdigest()


@cache
def brain() -> tuple[NDArray[np.float32], Geometry]:
    """The stripped T1 template at 1 mm, 0 outside the brain, and its geometry in MNI space."""
    image = nib.load(path("t1"))
    return np.asarray(image.dataobj, dtype=np.float32), Geometry(image.shape, image.affine)


@cache
def on_grid(grid: Geometry) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The template and its brain mask on another grid in MNI space."""
    data, geometry = brain()
    matrix = np.linalg.inv(geometry.affine) @ grid.affine
    return resample(data, matrix, grid.shape), resample_labels(data > 0, matrix, grid.shape) > 0


@cache
def tissues(grid: Geometry) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The probabilities of grey and of white matter on another grid in MNI space; what is neither is fluid."""
    grey, white = (_probability(kind, grid) for kind in ("gm", "wm"))
    return grey, white


def _probability(kind: Kind, grid: Geometry) -> NDArray[np.float32]:
    image = nib.load(path(kind))
    data = np.asarray(image.dataobj, dtype=np.float32) / np.float32(255)
    return resample(data, np.linalg.inv(image.affine) @ grid.affine, grid.shape)


def centred_grid(spacing: tuple[float, float, float], shape: Shape) -> Geometry:
    """A grid along R, A, S in MNI space, centred on the bounding box of the template's brain."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.round(_middle() - np.array(spacing) * (np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


@cache
def wide_grid(mm: float) -> Geometry:
    """A grid of this voxel size around the template's brain, with a rim."""
    x, y, z = (int(np.ceil(length / mm)) for length in (180, 216, 190))
    return centred_grid((mm, mm, mm), (x, y, z))


@cache
def _middle() -> NDArray[np.float64]:
    """RAS+ mm of the middle of the brain's bounding box."""
    data, geometry = brain()
    return geometry.to_world([(one.start + one.stop - 1) / 2 for one in box_around(data > 0)])
