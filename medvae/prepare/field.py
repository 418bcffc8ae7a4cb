"""The receive field of an MR scan: brightness that varies smoothly with the distance from the coil, not with tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COARSE_MM = 6.0  # the field is smooth: it is estimated on voxels of about this size
_ITERATIONS = (30, 30, 30)  # at most, on each of three levels of control points


def receive_field(
    values: NDArray[np.float32], foreground: NDArray[np.bool_], *, spacing: tuple[float, float, float]
) -> NDArray[np.float32] | None:
    """The factor by which the receive field has changed each voxel, by N4 (Tustison et al., IEEE TMI 2010; SimpleITK).

    Args:
        values: `(X, Y, Z)`, in the scan's units.
        foreground: bool, the same shape: where tissue is.
        spacing: of the voxels, mm.

    Returns:
        Float32 `(X, Y, Z)`, positive, with a geometric mean of 1 over the foreground. None where more than one in a
        thousand foreground values are negative: where 0 is not the absence of signal, a factor says nothing. None also
        where 5 to 95% of the values are one: a field cannot be seen there.
    """
    lowest, p5, median, p95 = (float(v) for v in np.percentile(values[foreground], (0.1, 5, 50, 95)))
    if lowest < 0 or p5 == p95 or median == 0:
        return None
    least = np.float32(1e-3 * median)
    image = sitk.GetImageFromArray(np.where(foreground, np.maximum(values, least), np.float32(0)))
    mask = sitk.GetImageFromArray(foreground.astype(np.uint8))
    factors = [max(1, round(_COARSE_MM / mm)) for mm in reversed(spacing)]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    n4.SetNumberOfThreads(1)  # the same field whatever the number of threads
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
    field: NDArray[np.float32] = np.exp(log_field - log_field[foreground].mean()).astype(np.float32)
    return field
