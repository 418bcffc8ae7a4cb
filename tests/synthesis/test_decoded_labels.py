"""Label maps that are decoded with the image: every sampler of codes gives them, without a donor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_deform import toy_deform
from toy_joint import toy_joint
from toy_model import SHAPE, toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import generate, plausible, provenance
from medvae.synthesis.synthesize import make_layout, synthesize

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model


def sample(model: Model, sampler: str, index: int = 0) -> generate.Sample:
    return generate.fit(model, AugmentSettings(sampler=sampler), seed=1).sample(index)


@pytest.mark.parametrize("sampler", ["density", "flow", "jitter", "prior", "interpolate"])
def test_codes_give_image_and_label_map(sampler: str) -> None:
    model = toy_joint()
    one, other = (sample(model, sampler, index) for index in range(2))
    assert one.label_map is not None
    assert other.label_map is not None
    assert one.label_map.shape == (1, *SHAPE)
    assert one.label_map.dtype == np.int16
    assert set(np.unique(one.label_map)) == {0, 1, 4}, "labels keep their values"
    assert not one.label_map[~one.mask].any(), "no label outside the scan"
    assert not np.array_equal(one.label_map, other.label_map), "labels follow the code"
    assert one.z is not None
    whole = model.decode_labels(one.z)
    assert whole is not None
    assert np.array_equal(np.where(one.mask[0], whole, 0), one.label_map[0])
    assert np.array_equal(sample(model, sampler).label_map, one.label_map)  # type: ignore[arg-type]


def test_networks_without_label_maps_decode_images_alone() -> None:
    for model in (toy_model(label_maps=True), toy_deform(label_maps=True)):
        synthesizer = generate.fit(model, AugmentSettings(sampler="density"), seed=1)
        assert synthesizer.sample(0).label_map is None
        assert "images only" in str(provenance.no_label_maps(synthesizer))
        assert model.decode_labels(model.latents.mean[0]) is None


def test_label_maps_are_written_where_the_model_keeps_no_scans(tmp_path: Path) -> None:
    """They come from the network; without training label maps there is no range to judge them by."""
    model = toy_joint(keep=0)
    assert plausible.fit(model).labels == {}
    (scan,) = synthesize(model, 1, sampler="density")
    assert scan.label_map is not None
    assert scan.sources == ()
    scan.save(tmp_path)
    assert (tmp_path / scan.places.label_map).is_file()


def test_layouts_know_the_values_of_decoded_labels() -> None:
    model = toy_joint()
    without = replace(model, training=replace(model.training, label_maps=None))
    for one in (model, without):
        synthesizer = generate.fit(one, AugmentSettings(sampler="density"), seed=1)
        assert make_layout(synthesizer).label_values == (0, 1, 4)
        assert provenance.no_label_maps(synthesizer) is None
