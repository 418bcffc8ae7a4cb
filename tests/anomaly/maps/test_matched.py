"""The maps that match grey values to the scan's own, beside a plain version, and what they see and do not see."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._matched import in_greys_of
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.statistics import Moments, Normal

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = np.ndarray[Any, np.dtype[np.float32]]

NAMES = ("matched_atlas", "matched_residual")


@cache
def model() -> Model:
    return linear_model.known_model(NAMES)


def run(name: str, prepared: Prepared) -> Values:
    return anomaly_map(name, infer(model(), prepared)).values


def expected(name: str, prepared: Prepared) -> Values:
    atlas = Normal.from_arrays(reference_of(model()).maps["atlas"].arrays)
    if name == "matched_atlas":
        return atlas.mean[0]
    held = np.clip(prepared.image, atlas.mean - atlas.sd, atlas.mean + atlas.sd)
    return infer(model(), replace(prepared, image=np.where(prepared.mask, held, prepared.image))).reconstruction[0]


def plain_differences(name: str, prepared: Prepared) -> Values:
    """Voxels in the order of what is expected, in 24 parts; in each the medians of both."""
    inside, image = prepared.mask[0], prepared.image[0]
    voxels = sorted(zip(expected(name, prepared)[inside].tolist(), image[inside].tolist(), strict=True))
    parts = [voxels[round(k * len(voxels) / 24) : round((k + 1) * len(voxels) / 24)] for k in range(24)]
    centres, greys = ([float(np.median([pair[k] for pair in part])) for part in parts] for k in (0, 1))
    apart = image - np.interp(expected(name, prepared), centres, greys).astype(np.float32)
    spacing = prepared.grid.spacing
    return np.stack([smooth_inside(apart, inside, spacing=spacing, mm=mm) for mm in (0, 3, 6)])


@pytest.mark.parametrize("name", NAMES)
def test_beside_the_plain_version(name: str) -> None:
    prepared = linear_model.scan(0, lesion=2)
    moments = Moments.empty((3, *prepared.grid.shape))
    for one in linear_model.healthy():
        moments.add(plain_differences(name, one), one.mask)
    normal = moments.normal(spacing=prepared.grid.spacing)
    z = np.abs((plain_differences(name, prepared) - normal.mean) / normal.sd)
    by_hand = (z.mean(axis=0) - np.sqrt(2 / np.pi)) / reference_of(model()).maps[name].scale
    inside = prepared.mask[0]
    found = run(name, prepared)[inside]
    assert np.median(np.abs(found - by_hand[inside])) < 0.05  # a voxel at a border may be in the bin beside it
    assert np.corrcoef(found, by_hand[inside])[0, 1] > 0.99


@pytest.mark.parametrize("change", [lambda x: 2 * x + 1, lambda x: -x, lambda x: x**2], ids=["gain", "sign", "square"])
def test_another_contrast_between_tissues_is_matched(change: Any) -> None:
    rng = np.random.default_rng(0)
    tissue, inside = rng.uniform(-1, 1, (16, 16, 16)).astype(np.float32), np.ones((16, 16, 16), bool)
    matched = in_greys_of(change(tissue), tissue, inside)
    assert np.abs(matched - change(tissue)).mean() < 0.03
    assert np.abs(matched - tissue).mean() > 0.3


def test_grey_values_do_not_follow_a_lesion() -> None:
    rng = np.random.default_rng(1)
    tissue, inside = rng.uniform(-1, 1, (16, 16, 16)).astype(np.float32), np.ones((16, 16, 16), bool)
    ill = tissue.copy()
    ill[:, :, :5] = -3  # a third of all voxels
    assert np.abs(in_greys_of(ill, tissue, inside) - tissue).mean() < 0.35
    assert np.abs(in_greys_of(tissue, tissue, inside) - tissue).max() < 0.1


def test_few_and_equal_values_are_matched_and_nothing_is_added_outside() -> None:
    image = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    inside = image < 5
    assert np.isfinite(in_greys_of(image, image, inside)).all()
    assert (in_greys_of(image, image, inside)[~inside] == 0).all()
    np.testing.assert_array_equal(in_greys_of(image, np.zeros_like(image), inside)[inside], 2.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_region_of_one_sign_is_rarer_than_the_same_in_both_signs(name: str) -> None:
    """What smoothing before the size is for; an average of sizes cannot tell the two apart."""
    healthy, change = linear_model.scan(0), np.zeros(linear_model.SHAPE, np.float32)
    change[linear_model.LESION] = 1.0
    signs = np.where(np.indices(linear_model.SHAPE).sum(axis=0) % 2, 1, -1).astype(np.float32)
    one, both = (replace(healthy, image=healthy.image + sizes) for sizes in (change, change * signs))
    there = linear_model.LESION
    assert run(name, one)[there].mean() > 1.3 * run(name, both)[there].mean()
