"""The power spectrum: a wave has its power in its band, and a blur takes it from the high ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medvae.evaluation.spectrum import BANDS, HIGHEST, radial_power


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wave_lies_in_its_band(axis: int) -> None:
    x = np.arange(32)
    wave = np.sin(2 * np.pi * x * 6 / 32)  # 0.1875 cycles per voxel
    image = np.broadcast_to(wave.reshape([-1 if a == axis else 1 for a in range(3)]), (32, 32, 32))[None]
    power = radial_power(image.astype(np.float32), np.ones(image.shape, bool))
    assert power.shape == (BANDS,)
    assert int(power.argmax()) == int(np.ceil(0.1875 / HIGHEST * BANDS)) - 1
    assert power.max() > 1e6 * np.sort(power)[-2]


def test_a_blur_takes_the_high_bands_and_more_background_changes_little() -> None:
    noise = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
    inside = np.zeros(noise.shape, bool)
    inside[:, 4:28, 4:28, 4:28] = True
    whole = radial_power(noise, np.ones_like(inside))
    blurred = radial_power(ndimage.gaussian_filter(noise, (0, 1, 1, 1)), np.ones_like(inside))
    assert np.isnan(radial_power(noise[:, :16, :16, :16], inside[:, :16, :16, :16])[0]), "no frequency is so low"
    assert whole[1:] == pytest.approx(np.ones(BANDS - 1), abs=0.4), "white noise of variance 1, per voxel"
    assert np.all(np.diff(blurred / whole)[3:] < 0)
    assert radial_power(noise, inside).mean() == pytest.approx(whole.mean(), rel=0.2)
