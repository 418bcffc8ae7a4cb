"""The contrast map beside a plain version, and what it sees that a difference does not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.statistics import Moments

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

    Values = np.ndarray[Any, np.dtype[np.float32]]

WINDOW = 4.0


@cache
def model() -> Model:
    return linear_model.known_model(("contrast",), options={"contrast": {"window_mm": WINDOW, "scales_mm": [0, 3]}})


def run(prepared: Prepared) -> Values:
    return anomaly_map("contrast", infer(model(), prepared)).values


def plain_contrast(image: Values, prepared: Prepared) -> Values:
    """The SD of each voxel's neighbours in the foreground, weighted one by one; the window ends after 3 σ."""
    spacing = np.array(prepared.grid.spacing)
    reach = (3 * WINDOW / spacing + 0.5).astype(int)
    wide = [(int(n), int(n)) for n in reach]
    inside, values = np.pad(prepared.mask[0], wide), np.pad(image, wide)
    steps = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1)
    weight = np.exp(-0.5 * ((steps * spacing / WINDOW) ** 2).sum(axis=-1))
    result = np.zeros(image.shape)
    for at in np.ndindex(image.shape):
        box = tuple(slice(i, i + 2 * n + 1) for i, n in zip(at, reach, strict=True))
        if prepared.mask[0][at]:
            there, counts = values[box].astype(np.float64), weight * inside[box]
            mean = np.average(there, weights=counts)
            result[at] = np.sqrt(np.average((there - mean) ** 2, weights=counts))
    return result


def plain_log_ratio(prepared: Prepared) -> Values:
    inside, other = prepared.mask[0], infer(model(), prepared).reconstruction[0]
    own, theirs = plain_contrast(prepared.image[0], prepared), plain_contrast(other, prepared)
    ratio = np.log((own + 0.1) / (theirs + 0.1))
    return np.where(inside, ratio - np.median(ratio[inside]), 0)


def test_beside_the_plain_version() -> None:
    prepared = linear_model.scan(0, lesion=3, hole=False)
    mask = prepared.mask.copy()
    mask[0, :, 4:, :3] = False
    prepared = replace(prepared, mask=mask, image=np.where(mask, prepared.image, 0).astype(np.float32))
    moments = Moments.empty((1, *mask.shape[1:]))
    for one in linear_model.healthy():
        moments.add(plain_log_ratio(one)[None], one.mask)
    spacing, inside = prepared.grid.spacing, mask[0]
    normal = moments.normal(spacing=spacing)
    z = np.abs((plain_log_ratio(prepared) - normal.mean[0]) / normal.sd[0]).astype(np.float32)
    parts = [smooth_inside(z, inside, spacing=spacing, mm=mm) for mm in (0, 3)]
    expected = (np.mean(parts, axis=0) - np.sqrt(2 / np.pi)) / reference_of(model()).maps["contrast"].scale
    np.testing.assert_allclose(run(prepared)[inside], expected[inside], rtol=2e-3, atol=2e-3)


def test_lost_texture_is_found_where_no_value_is_unusual() -> None:
    """A block of its own mean: no brighter, no darker, but even."""
    prepared = linear_model.scan(0)
    image, block = prepared.image.copy(), (slice(5, 11), slice(3, 9), slice(1, 7))
    image[0][block] = image[0][block].mean()
    before, after = (run(one)[block].mean() for one in (prepared, replace(prepared, image=image)))
    assert after > before + 1


def test_a_scan_that_is_noisier_throughout_is_not_unusual() -> None:
    """As of another scanner: the level of the contrast is the scan's own."""
    prepared = linear_model.scan(0)
    noise = np.random.default_rng(5).normal(size=prepared.image.shape).astype(np.float32)
    more = replace(prepared, image=np.where(prepared.mask, prepared.image + 0.3 * noise, 0).astype(np.float32))
    score = [np.abs(run(one)[one.mask[0]]).mean() for one in (prepared, more)]
    assert score[1] < 1.5 * score[0]
