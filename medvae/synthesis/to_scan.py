"""From a sample on the model's grid to a scan with the values, the background and the voxel type of real scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.io.nifti.file import NiftiFile, described
from medvae.prepare.grid import box_around
from medvae.prepare.native import only_channel
from medvae.review.grey import Grey
from medvae.review.sample_page import nearest_place
from medvae.scan import Geometry, Scan
from medvae.synthesis.decoding import is_binary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.scan import Units
    from medvae.synthesis.generate import Sample

Part = tuple[slice, slice, slice]


def to_scan(sample: Sample, model: Model) -> tuple[Scan, NDArray[np.int16] | None]:
    """The scan and its label map `(X, Y, Z)`, None without one.

    Background is what it is in real scans: 0 around a stripped organ, air in CT. HU are whole numbers. Where training
    scans were used as a whole, they are blocks on the model's grid, and so is the sample: it is cut to its foreground.
    """
    part, geometry = _field_of_view(sample, model)
    values = np.ascontiguousarray(_values(sample, model)[part])
    label_map = None if sample.label_map is None else only_channel(sample.label_map)[part]
    return Scan(values, geometry, modality=model.preparation.settings.modality, units=units(model)), label_map


def own_mask(sample: Sample, model: Model) -> NDArray[np.bool_] | None:
    """The foreground of the scan `(X, Y, Z)`; None where preparation finds it in the scan.

    Training scans may have had masks, of the lungs or an organ, that no rule finds: then samples need theirs, too.
    """
    mask = only_channel(sample.mask)
    found = {"nonzero": True, "air": False, "whole": _is_block(mask)}[model.preparation.settings.foreground]
    return None if found else mask


def nearest_file(one: str, sample: Sample, model: Model, *, nearest: str) -> NiftiFile:
    """A training scan for the page of a synthetic one: on the part of the grid that this one covers, in 256 greys.

    Args:
        one: id of the synthetic scan.
        sample: the same on the model's grid.
        model: keeps the training scan.
        nearest: id of the training scan.
    """
    part, geometry = _field_of_view(sample, model)
    at = list(model.training.ids).index(nearest)
    mask = only_channel(model.training.masks[at])[part]
    values = only_channel(model.training.images[at].astype(np.float32))[part]
    inside = np.where(mask, values, values[mask].min() if mask.any() else np.float32(0))
    grey = Grey.of(inside, mask, units="a.u.")
    text = described("training scan of a patient", "rounded for display")
    return NiftiFile(nearest_place(one), grey.data, geometry, text, scale=grey.scale)


def stored(scan: Scan) -> NDArray[np.float32] | NDArray[np.integer]:
    """The values of a synthetic scan as a file holds them: int16 for HU, uint8 for binary shapes, else float32."""
    if scan.units == "HU":
        return scan.data.astype(np.int16)
    return scan.data.astype(np.uint8) if scan.units == "binary" else scan.data


def units(model: Model) -> Units:
    """The unit of the values, that of the training scans; arbitrary where it is not known."""
    if is_binary(model):
        return "binary"
    if model.preparation.settings.modality == "CT":
        return "HU"
    return model.training.units if has_real_scale(model) else "a.u."


def has_real_scale(model: Model) -> bool:
    """False where values are scaled per scan and the model keeps no training scan whose scale could be used."""
    return model.preparation.settings.intensity != "robust_z" or len(model.training.ids) > 0


def _field_of_view(sample: Sample, model: Model) -> tuple[Part, Geometry]:
    """The part of the model's grid that the scan covers, and where it is."""
    grid, mask = model.preparation.grid, only_channel(sample.mask)
    if model.preparation.settings.foreground != "whole" or not _is_block(mask):
        return (slice(None), slice(None), slice(None)), grid
    x, y, z = box_around(mask)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world((x.start, y.start, z.start))
    return (x, y, z), Geometry((x.stop - x.start, y.stop - y.start, z.stop - z.start), affine)


def _is_block(mask: NDArray[np.bool_]) -> bool:
    return bool(mask.any() and mask[box_around(mask)].all())


def _values(sample: Sample, model: Model) -> NDArray[np.float32]:
    """Values `(X, Y, Z)` in the unit of real scans, on the whole grid."""
    settings = model.preparation.settings
    image, mask = only_channel(sample.image), only_channel(sample.mask)
    if is_binary(model):
        return image
    values = sample.intensity.invert(image)
    if settings.modality == "CT":
        return np.rint(values)
    if settings.modality in ("MR", "PT") and model.training.ids:
        values = np.maximum(values, 0)  # magnitudes and activities are not negative; noise may fall below 0
    return np.where(mask, values, np.float32(0)) if settings.foreground == "nonzero" else values
