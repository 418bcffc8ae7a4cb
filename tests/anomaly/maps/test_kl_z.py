"""The KL as normative z beside a plain version, and its sign."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import linear_model
import numpy as np

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.statistics import Moments

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model


@cache
def model() -> Model:
    return linear_model.known_model(("kl_z",), options={"kl_z": {"scales_mm": [0, 3]}})


def test_beside_the_plain_version() -> None:
    prepared = linear_model.scan(0, lesion=3)
    moments = Moments.empty((1, *prepared.grid.shape))
    for one in linear_model.healthy():
        moments.add(infer(model(), one).kl[None], one.mask)
    spacing, inside = prepared.grid.spacing, prepared.mask[0]
    normal = moments.normal(spacing=spacing)
    z = (infer(model(), prepared).kl - normal.mean[0]) / normal.sd[0]
    expected = np.mean([smooth_inside(z, inside, spacing=spacing, mm=mm) for mm in (0, 3)], axis=0)
    expected /= reference_of(model()).maps["kl_z"].scale
    found = anomaly_map("kl_z", infer(model(), prepared)).values
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_a_code_nearer_to_the_prior_than_usual_is_no_anomaly() -> None:
    """Of a blank scan the code is the mean of the prior, and its KL the lowest of all."""
    prepared = linear_model.scan(0)
    prepared.image[...] = 0
    found = anomaly_map("kl_z", infer(model(), prepared)).values[prepared.mask[0]]
    assert found.max() < 0
