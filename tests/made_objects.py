"""DICOM series in four planes, a map with candidates on their grid, and what is needed to read objects back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dicom_made import find_one, put, ramp, slices
from scipy.spatial.transform import Rotation

from medvae.dicom_objects.content import Content, Region
from medvae.dicom_objects.source import open_source
from medvae.scan import Geometry
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_made import Edit
    from numpy.typing import NDArray

    from medvae.dicom_objects.source import Source

SHAPE = (9, 7, 5)  # columns, rows, slices: 63 pixels a slice are no multiple of 4, nor of 8
LIMIT = 4.4
PICTURE = np.random.default_rng(3).integers(0, 256, (11, 13, 3), np.uint8)


def planes() -> dict[str, NDArray[np.float64]]:
    """Affines (RAS+) of series as scanners store them, and an oblique one."""
    columns = {  # directions of columns, rows and slices in RAS
        "axial": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        "sagittal": [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
        "coronal": [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
    }
    found = {name: _affine(np.array(axes, float).T) for name, axes in columns.items()}
    turn = Rotation.from_euler("xyz", (12, -20, 33), degrees=True).as_matrix()
    return found | {"oblique": _affine(turn @ found["coronal"][:3, :3] / (2, 3, 4))}


def _affine(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = axes * (2, 3, 4)
    affine[:3, 3] = (30, 40, -50)
    return affine


def series(folder: Path, affine: NDArray[np.float64], *edits: Edit, modality: str = "MR") -> Source:
    """The headers of a series that is written into a folder."""
    put(folder, slices(ramp(SHAPE), affine, modality=modality), *edits)
    return open_source(find_one(folder), ReadSettings())


def content(geometry: Geometry | None = None, *, candidates: bool = True) -> Content:
    """Another value in each voxel; two candidates, the second of one voxel."""
    data = np.random.default_rng(7).normal(0, 2, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint16)
    geometry = geometry or Geometry(SHAPE, np.eye(4))
    if candidates:
        labels[2:5, 2:4, 1:3], labels[7, 5, 4] = 1, 2
        data[labels == 1] += 5
        data[3, 3, 2], data[7, 5, 4] = 12.5, 5.5
    regions = [
        Region(1, _lps(geometry, (3, 3, 2)), "left", 0.288, 12.5, 6.25, 0.04),
        Region(2, _lps(geometry, (7, 5, 4)), "midline", 0.024, 5.5, 5.5, 0.5),
    ]
    found = tuple(regions) if candidates else ()
    return Content("fused", data, "z", LIMIT, "calibrated, n=25", labels, found, "ab" * 32)


def values_at(data: NDArray[Any], geometry: Geometry, lps: NDArray[np.float64]) -> NDArray[Any]:
    """What an array has at places `(..., 3)` in LPS mm, which must be centres of its voxels."""
    index = geometry.to_index(lps * (-1, -1, 1))
    nearest = np.rint(index).astype(int)
    assert np.abs(index - nearest).max() < 1e-3
    found: NDArray[Any] = data[tuple(np.moveaxis(nearest, -1, 0))]
    return found


def _lps(geometry: Geometry, index: tuple[int, int, int]) -> tuple[float, float, float]:
    x, y, z = geometry.to_world(index)
    return (float(-x), float(-y), float(z))
