"""Residual noise: its spectrum and its size are those that were measured, in every channel on its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft, ndimage

from medvae.synthesis import texture

SHAPE = (24, 20, 18)
SPACING = (2.0, 2.0, 3.0)


def triples(*, channels: int = 1, count: int = 6) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Smooth residuals whose standard deviation grows with the decoded value."""
    rng = np.random.default_rng(0)
    mask = np.ones((channels, *SHAPE), bool)
    mask[:, :3] = False
    found = []
    for _ in range(count):
        decoded = ndimage.gaussian_filter(rng.normal(size=(channels, *SHAPE)), (0, 3, 3, 3)).astype(np.float32)
        decoded = (decoded - decoded.min()) / np.ptp(decoded) + np.float32(0.5)
        smooth = ndimage.gaussian_filter(rng.normal(size=(channels, *SHAPE)), (0, 1, 1, 1))
        found.append(((decoded + decoded * smooth / smooth.std()).astype(np.float32), decoded, mask))
    return found


def test_noise_is_as_large_as_the_residuals_at_each_value() -> None:
    known = triples()
    fitted = texture.fit(known, spacing=SPACING)
    assert fitted.spread == pytest.approx(fitted.levels, rel=0.2)
    _, decoded, mask = known[0]
    draws = np.stack([fitted.draw(decoded, mask, np.random.default_rng(seed)) for seed in range(60)])
    assert (draws[:, ~mask] == 0).all()
    assert draws.std(axis=0)[mask].mean() == pytest.approx(decoded[mask].mean(), rel=0.1)


def test_noise_is_as_smooth_as_the_residuals() -> None:
    known = triples()
    fitted = texture.fit(known, spacing=SPACING)
    image, decoded, mask = known[0]
    noise = fitted.draw(decoded, mask, np.random.default_rng(0))

    def correlation(values: np.ndarray) -> float:
        inner = (values / decoded)[0, 4:]
        return float(np.corrcoef(inner[1:].ravel(), inner[:-1].ravel())[0, 1])

    assert correlation(noise) == pytest.approx(correlation(image - decoded), abs=0.1)
    assert correlation(noise) > 0.6


def test_a_draw_in_plain_steps() -> None:
    fitted = texture.fit(triples(), spacing=SPACING)
    _, decoded, mask = triples()[1]
    white = np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    coloured = fft.irfftn(fft.rfftn(white) * fitted._transfer(SHAPE), SHAPE)
    wanted = np.where(mask[0], coloured * np.interp(decoded[0], fitted.levels, fitted.spread).astype(np.float32), 0)
    assert np.array_equal(fitted.draw(decoded, mask, np.random.default_rng(1))[0], wanted.astype(np.float32))


def test_channels_have_noise_of_their_own() -> None:
    known = triples(channels=2)
    fitted = texture.fit(known, spacing=SPACING)
    noise = fitted.draw(known[0][1], known[0][2][:1], np.random.default_rng(0))
    assert noise.shape == (2, *SHAPE)
    assert abs(np.corrcoef(noise[0, 4:].ravel(), noise[1, 4:].ravel())[0, 1]) < 0.3
