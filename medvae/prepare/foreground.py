"""What of a scan counts: a stripped brain, a body in air, or all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.prepare.background import find_background, value_of_faces
from medvae.prepare.pieces import largest_piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.prepare.background import Background
    from medvae.scan import Geometry, Scan
    from medvae.settings import PrepareSettings

# A stripped adult brain with its fluid has 0.9 to 1.9 litres; a whole head cut at the nose has 3 or more.
_STRIPPED_ML = (400.0, 2300.0)
_STRIPPED_BACKGROUND = 0.25  # background fills at least this share of a stripped image
_DARK = 0.25  # of the way from air to the middle of a brain: air and bone lie below it, fluid above
_CORE_MM = 10.0  # so far inside its border a template's brain lies in that of any head aligned to it
_BODY_MM = 2.0  # a body's outline is found on voxels of about this size


def find_foreground(
    scan: Scan, settings: PrepareSettings, *, background: Background | None = None
) -> NDArray[np.bool_]:
    """Foreground on the scan's own grid, `(X, Y, Z)`, by the rule that the settings name. Filled voxels never count.

    Args:
        scan: as read.
        settings: "whole" is everything, "air" the body, "nonzero" what is not background.
        background: for "nonzero", if it was found before.
    """
    if settings.foreground == "whole":
        found = np.ones(scan.data.shape, bool)
    elif settings.foreground == "air":
        found = _body(scan, settings.air_below)
    else:
        found = ~(background or find_background(scan)).where
    return found if scan.valid is None else found & scan.valid


def is_stripped(foreground: NDArray[np.bool_], geometry: Geometry) -> bool:
    """Whether what is not background has the size of a brain, as in a stripped head scan."""
    millilitres = foreground.sum() * geometry.voxel_volume / 1000
    low, high = _STRIPPED_ML
    return bool(1 - foreground.mean() >= _STRIPPED_BACKGROUND and low <= millilitres <= high)


def without_dark_rim(
    values: NDArray[np.float32], brain: NDArray[np.bool_], *, spacing: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """A template's brain on a head aligned to it, without what is as dark as air or bone and joins the outside.

    The skull's base and the sinuses reach into the template's brain, and are not lesions. Dark places that brain
    surrounds stay.

    Args:
        values: of the head, `(X, Y, Z)`, MR of any contrast, in its own units.
        brain: bool `(X, Y, Z)`, the template's.
        spacing: of the voxels, mm.
    """
    if not brain.any():
        return brain
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), spacing)[1:-1, 1:-1, 1:-1]
    core = brain & (depth >= min(_CORE_MM, depth.max()))
    air = np.percentile(values, 1)
    dark = values < air + _DARK * (np.median(values[core]) - air)
    labels, _ = ndimage.label(np.pad(dark | ~brain, 1, constant_values=True))
    found: NDArray[np.bool_] = brain & (labels != labels[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return found


def dense_air(scan: Scan, settings: PrepareSettings) -> float | None:
    """The value around a body that was clipped or masked, denser than air; None where there is none."""
    found = value_of_faces(scan.data) if settings.foreground == "air" else None
    return float(found[0]) if found is not None and found[0] > settings.air_below else None


def _body(scan: Scan, threshold: float) -> NDArray[np.bool_]:
    """The largest thing denser than air, with what it encloses in each axial slice (lungs, bowel).

    Where the faces of the image have one value, this is air, whatever it is: the image was clipped or masked.
    """
    steps = [max(1, int(_BODY_MM / mm)) for mm in scan.geometry.spacing]
    thin = scan.data[tuple(slice(None, None, step) for step in steps)]
    faces, near = value_of_faces(scan.data) or (np.float32(-np.inf), np.float32(0))
    dense = ndimage.binary_opening((thin > threshold) & (np.abs(thin - faces) > near))  # cuts the table's contact off
    found = largest_piece(dense)
    axial = int(np.abs(scan.geometry.affine[2, :3]).argmax())  # the array axis nearest to head-foot
    slices = np.moveaxis(found, axial, 0)
    found = np.moveaxis(np.stack([ndimage.binary_fill_holes(one) for one in slices]), 0, axial)
    for axis, step in enumerate(steps):
        found = np.repeat(found, step, axis)
    x, y, z = scan.data.shape
    return found[:x, :y, :z]
