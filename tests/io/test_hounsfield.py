"""CT values that are not Hounsfield units are noticed; those that are, are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from nifti_oracle import put, ref

from medvae.io import reading
from medvae.io.hounsfield import doubts
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

NOISE = np.random.default_rng(0).normal(0, 12, (32, 32, 24))


def body() -> np.ndarray[Any, Any]:
    """Air, a body with a rim of fat, two lungs and a spine, in HU."""
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in NOISE.shape], indexing="ij")
    hu = np.full(NOISE.shape, -1000.0)
    hu[(x / 0.85) ** 2 + (y / 0.7) ** 2 < 1] = -100
    hu[(x / 0.75) ** 2 + (y / 0.6) ** 2 < 1] = 40
    hu[((np.abs(x) - 0.4) / 0.25) ** 2 + (y / 0.4) ** 2 < 1] = -850
    hu[x**2 + (y - 0.4) ** 2 < 0.02] = 700
    return hu + NOISE


def crop() -> np.ndarray[Any, Any]:
    """Soft tissue with some fat, and no air."""
    return np.where(NOISE > 14, -90.0, 45.0) + NOISE


PADDED = [(-2000.0, 0.2), (-3024.0, 0.3), (-1024.0, 0.5)]


def padded(hu: np.ndarray[Any, Any], value: float, share: float) -> np.ndarray[Any, Any]:
    """With what lies outside the field of view."""
    out = hu.copy()
    out[: int(share * len(out))] = value
    return out


GOOD = {
    "body": body(),
    "clipped to the lung's window": body().clip(-1000, 400),
    "clipped to soft tissue's window": body().clip(-150, 250),
    "a crop without air": crop(),
    "muscle alone": 50 + NOISE,
    "bone": np.where(NOISE > 0, 700.0, -20.0) + NOISE,
    "masked to -1024": np.where(body() > -500, body(), -1024),
    **{f"padded with {value:g}": padded(body(), value, share) for value, share in PADDED},
    **{f"a crop padded with {value:g}": padded(crop(), value, share) for value, share in PADDED},
}
BAD = {
    "shifted, unsigned": (body() + 1024).clip(0),
    "shifted by 1000": body() + 1000,
    "shifted, noise below 0": body() + 1024 - 30,
    "shifted twice": body() - 1024,
    "shifted and padded": padded(body(), -2000, 0.2) + 1024,
    "0 to 1": ((body() + 1000) / 2000).clip(0, 1),
    "-1 to 1": body().clip(-1000, 1000) / 1000,
    "a byte": ((body() + 1000) / 2000 * 255).clip(0, 255),
    "z-scores": (body() - body().mean()) / body().std(),
    "16 bits": (body() + 1024).clip(0) * 16,
    "the bones left": body().clip(200),
    "a crop, shifted": crop() + 1024,
}


@pytest.mark.parametrize("name", GOOD)
def test_hounsfield_units_are_believed(name: str) -> None:
    assert doubts(GOOD[name].astype(np.float32)) == []


@pytest.mark.parametrize("name", BAD)
def test_other_values_are_not(name: str) -> None:
    (text,) = doubts(BAD[name].astype(np.float32))
    assert "do not look like Hounsfield units" in text


def test_all_padding_is_no_ct() -> None:
    assert doubts(np.full((8, 8, 8), -3024, np.float32))


def test_only_a_file_that_is_said_to_be_ct_is_doubted(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii.gz", BAD["shifted, unsigned"].astype(np.int16))
    assert "shifted, rescaled or clipped?" in reading.read(ref(path, modality="CT"), ReadSettings()).warnings[0]
    assert reading.read(ref(path), ReadSettings(modality="CT")).warnings
    assert reading.read(ref(path, modality="MR"), ReadSettings()).warnings == ()
    assert reading.read(ref(path), ReadSettings()).warnings == ()
