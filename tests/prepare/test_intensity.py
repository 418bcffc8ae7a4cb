"""Intensities: units there and back; no maximum, no lesion in the scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvae.errors import ScanError
from medvae.prepare.intensity import CLIP, Intensity, fit
from medvae.settings import PrepareSettings

TISSUE = np.random.default_rng(0).normal(800, 120, (20, 20, 20)).astype(np.float32)
ALL = np.ones(TISSUE.shape, bool)


def fitted(values: np.ndarray[Any, Any], foreground: np.ndarray[Any, Any] = ALL, **settings: Any) -> Intensity:
    return fit(values, foreground, settings=PrepareSettings(**settings))


def test_robust_z_of_a_normal_is_its_z() -> None:
    scale = fitted(TISSUE)
    assert scale.offset == pytest.approx(800, abs=5)
    assert scale.scale == pytest.approx(120, rel=0.02)
    z = scale.apply(TISSUE)
    assert z.dtype == np.float32
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.std() == pytest.approx(1, abs=0.03)


@given(gain=st.floats(1e-3, 1e4), shift=st.floats(-1e3, 1e3))
def test_robust_z_does_not_see_gain_and_offset(gain: float, shift: float) -> None:
    """File intensities differ by orders of magnitude."""
    values = (TISSUE * gain + shift).astype(np.float32)
    mine, plain = fitted(values), fitted(TISSUE)
    tolerance = 1e-3 + 1e-6 * abs(shift) / gain
    np.testing.assert_allclose(mine.apply(values), plain.apply(TISSUE), atol=tolerance)


@pytest.mark.parametrize("brightness", [3.0, 100.0, 1e6])
def test_a_bright_lesion_does_not_darken_the_tissue_around_it(brightness: float) -> None:
    lesion = np.zeros(TISSUE.shape, bool)
    lesion[:5, :6, :6] = True  # 2%
    values = np.where(lesion, TISSUE * brightness, TISSUE).astype(np.float32)
    with_lesion, without = fitted(values), fitted(TISSUE)
    moved = with_lesion.apply(values)[~lesion] - without.apply(TISSUE)[~lesion]
    assert np.abs(moved).max() < 0.4  # at 4 σ
    assert np.abs(np.median(moved)) < 0.05
    assert with_lesion.apply(values)[lesion].max() <= CLIP
    one = TISSUE.copy()
    one[0, 0, 0] = 1e9  # the maximum says nothing at all
    assert fitted(one).scale == pytest.approx(without.scale, rel=1e-3)


def test_only_the_foreground_counts() -> None:
    foreground = np.zeros(TISSUE.shape, bool)
    foreground[5:15, 5:15, 5:15] = True
    values = np.where(foreground, TISSUE, np.float32(0))
    assert fitted(values, foreground) == fitted(TISSUE, foreground)


def test_there_and_back() -> None:
    scale = fitted(TISSUE)
    np.testing.assert_allclose(scale.invert(scale.apply(TISSUE)), TISSUE, rtol=1e-5)


def test_a_window_is_in_hounsfield_units() -> None:
    scale = fitted(TISSUE, intensity="window", window=(-1000, 400))
    hu = np.array([-2000, -1000, -300, 0, 40, 400, 3000], np.float32)
    z = scale.apply(hu)
    np.testing.assert_allclose(z, [-1, -1, 0, 300 / 700, 340 / 700, 1, 1], atol=1e-6)
    np.testing.assert_allclose(scale.invert(z), [-1000, -1000, -300, 0, 40, 400, 400], atol=1e-3)
    assert scale.invert(np.array([scale.background], np.float32))[0] == -1000, "outside the body is air"


def test_none_leaves_values_alone() -> None:
    scale = fitted(TISSUE, intensity="none")
    np.testing.assert_array_equal(scale.apply(TISSUE), TISSUE)
    np.testing.assert_array_equal(scale.invert(TISSUE), TISSUE)
    assert scale.background == 0


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_a_shape_is_a_probability_whatever_its_file_holds(top: float) -> None:
    shape = np.float32(top) * (TISSUE > 900)
    scale = fit(shape, ALL, settings=PrepareSettings(intensity="none", modality="SHAPE"), highest=top)
    np.testing.assert_array_equal(scale.apply(shape), TISSUE > 900)
    np.testing.assert_array_equal(scale.invert(scale.apply(shape)), shape)
    assert scale.apply(np.array([-3.0], np.float32))[0] == 0


def test_a_shape_of_nothing_is_blank() -> None:
    with pytest.raises(ScanError, match="highest value of the shape is 0") as caught:
        fit(-TISSUE, ALL, settings=PrepareSettings(intensity="none", modality="SHAPE"), highest=0.0)
    assert caught.value.code == "blank"


def test_a_foreground_of_one_value_is_blank() -> None:
    flat = np.full((5, 5, 5), 7, np.float32)
    flat[0, 0, 0] = 9  # an outlier makes no contrast
    with pytest.raises(ScanError, match="one value, 7") as caught:
        fitted(flat, np.ones(flat.shape, bool))
    assert caught.value.code == "blank"


def test_apply_does_not_change_its_input() -> None:
    values = TISSUE.copy()
    fitted(values).apply(values)
    np.testing.assert_array_equal(values, TISSUE)
