"""The template: where its brain lies, and what is known of its file."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest

from medvae.errors import RunError
from medvae.prepare import template
from medvae.scan import Geometry


def test_the_brain_as_nibabel_reads_it() -> None:
    data, geometry = template.brain()
    image = nib.load(template.path("t1"))
    assert data.shape == geometry.shape == image.shape == (197, 233, 189)
    np.testing.assert_array_equal(geometry.affine, image.affine)
    assert geometry.spacing == (1, 1, 1)
    litres = (data > 0).sum() / 1e6
    assert 1.5 < litres < 2.2
    assert data[0, 0, 0] == 0


def test_the_brain_lies_in_mni_space() -> None:
    """Its middle plane is x = 0, the anterior commissure at the origin is inside it."""
    data, geometry = template.brain()
    where = geometry.to_world(np.argwhere(data > 0))
    assert abs(where[:, 0].min() + where[:, 0].max()) <= 2
    assert where[:, 2].max() == pytest.approx(80, abs=6)
    assert data[tuple(np.round(geometry.to_index([0, 0, 0])).astype(int))] > 0


@pytest.mark.parametrize(
    ("spacing", "shape"), [((2, 2, 2), (96, 112, 96)), ((4, 4, 4), (48, 56, 48)), ((1, 2, 3), (160, 100, 60))]
)
def test_a_centred_grid_holds_the_brain(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    grid = template.centred_grid(spacing, shape)
    assert grid.shape == shape
    assert grid.spacing == spacing
    np.testing.assert_array_equal(grid.affine[:3, :3], np.diag(spacing))  # R, A, S
    data, geometry = template.brain()
    index = grid.to_index(geometry.to_world(np.argwhere(data > 0)))
    assert (index.min(axis=0) >= 0).all()
    assert (index.max(axis=0) <= np.array(shape) - 1).all()
    values, mask = template.on_grid(grid)
    assert values.shape == mask.shape == shape
    assert mask.sum() * np.prod(spacing) == pytest.approx((data > 0).sum(), rel=0.01)
    assert values[mask].mean() == pytest.approx(data[data > 0].mean(), rel=0.03)


def test_on_grid_is_computed_once() -> None:
    grid = template.centred_grid((4, 4, 4), (48, 56, 48))
    assert template.on_grid(grid)[0] is template.on_grid(Geometry(grid.shape, grid.affine.copy()))[0]


def test_the_hash_is_that_of_the_file() -> None:
    assert template.file_hash() == hashlib.sha256(template.path("t1").read_bytes()).hexdigest()
    assert template.path("gm").is_file()
    assert template.path("wm").is_file()


def test_without_nilearn_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="nilearn") as caught:
        template.path("t1")
    assert caught.value.hint == "pip install nilearn"
