"""The window of a synthetic series: grey runs over the values of the scan, however small they are."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_rescale, apply_voi_lut

from medvae.dicom_objects.synthetic import synthetic_series
from medvae.scan import Geometry, Scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Modality, Units

SHAPE = (8, 9, 10)


def shown(data: NDArray[np.float32], modality: Modality, units: Units) -> NDArray[np.float64]:
    """Grey values 0 to 1 as a viewer computes them (PS3.3, C.11.2.1)."""
    scan = Scan(data, Geometry(SHAPE, np.diag([-2.0, -2, 3, 1])), modality=modality, units=units)
    slices = [dcmread(BytesIO(one)) for one in synthetic_series(scan, "s", description="d", model="ab" * 32)]
    grey = [apply_voi_lut(apply_rescale(one.pixel_array, one), one) for one in slices]
    values = np.stack(grey).astype(np.float64)
    low = float(slices[0].RescaleIntercept)
    high = low + (2 ** slices[0].BitsStored - 1) * float(slices[0].RescaleSlope)
    return (values - low) / (high - low)  # pydicom's output range is that of what can be stored


@pytest.mark.parametrize("top", [1e-3, 1.0, 500.0])
@pytest.mark.parametrize(("modality", "units"), [("MR", "a.u."), ("PT", "SUV")])
def test_a_ramp_is_a_ramp_of_greys(top: float, modality: Modality, units: Units) -> None:
    ramp = np.linspace(0, top, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE, order="F")
    grey = shown(ramp, modality, units)
    low, high = np.percentile(ramp, (0.5, 99.5))
    expected = np.clip((ramp.T - low) / (high - low), 0, 1)
    np.testing.assert_allclose(grey, expected, atol=1e-3)


def test_hounsfield_units_are_shown_between_their_percentiles() -> None:
    ramp = np.rint(np.linspace(-1000, 400, int(np.prod(SHAPE)))).astype(np.float32).reshape(SHAPE, order="F")
    grey = shown(ramp, "CT", "HU")
    low, high = np.percentile(ramp, (1, 99))
    inside = np.logical_and(ramp > low, ramp < high).T
    assert len(np.unique(grey[inside])) == len(np.unique(ramp.T[inside])), "one grey per HU"
