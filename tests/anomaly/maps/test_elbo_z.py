"""The ELBO and the KL as normative z beside a plain version, and their sign."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.statistics import Moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared


@cache
def model() -> Model:
    scales = {"scales_mm": [0, 3]}
    return linear_model.known_model(("elbo_z", "kl_z"), options={"elbo_z": scales, "kl_z": scales})


def logarithm(prepared: Prepared) -> np.ndarray[Any, np.dtype[np.float32]]:
    """ln (e − min e + ½) in the foreground; e is −ELBO in nats per voxel."""
    nats, inside = infer(model(), prepared).draw_means.negative_elbo, prepared.mask[0]
    result = np.zeros_like(nats)
    result[inside] = np.log(nats[inside] - nats[inside].min() + 0.5)
    return result


def kl(prepared: Prepared) -> np.ndarray[Any, np.dtype[np.float32]]:
    return infer(model(), prepared).kl


@pytest.mark.parametrize(("name", "plain"), [("elbo_z", logarithm), ("kl_z", kl)])
def test_beside_the_plain_version(name: str, plain: Callable[[Prepared], np.ndarray[Any, Any]]) -> None:
    prepared = linear_model.scan(0, lesion=3)
    moments = Moments.empty((1, *prepared.grid.shape))
    for one in linear_model.healthy():
        moments.add(plain(one)[None], one.mask)
    spacing, inside = prepared.grid.spacing, prepared.mask[0]
    normal = moments.normal(spacing=spacing)
    z = (plain(prepared) - normal.mean[0]) / normal.sd[0]
    expected = np.mean([smooth_inside(z, inside, spacing=spacing, mm=mm) for mm in (0, 3)], axis=0)
    expected /= reference_of(model()).maps[name].scale
    found = anomaly_map(name, infer(model(), prepared)).values
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_a_voxel_that_is_more_likely_than_usual_is_no_anomaly() -> None:
    """The image that the model expects has the lowest −ELBO of all: below its healthy mean nearly everywhere."""
    prepared = linear_model.scan(0)
    inference = infer(model(), prepared)
    image = np.where(prepared.mask, inference.reconstruction, 0).astype(np.float32)
    perfect = replace(prepared, image=image)
    found = anomaly_map("elbo_z", infer(model(), perfect)).values[prepared.mask[0]]
    assert found.mean() < 0
    assert np.percentile(found, 90) < 0.2


def test_a_code_nearer_to_the_prior_than_usual_is_no_anomaly() -> None:
    """Of a blank scan the code is the mean of the prior, and its KL the lowest of all."""
    prepared = linear_model.scan(0)
    prepared.image[...] = 0
    found = anomaly_map("kl_z", infer(model(), prepared)).values[prepared.mask[0]]
    assert found.max() < 0
