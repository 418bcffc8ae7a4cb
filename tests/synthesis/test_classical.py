"""The classical sampler: altered scans have no invented voxels, and say whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_model import block, ellipsoid, toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.changes import EVERYTHING, field_of_view

if TYPE_CHECKING:
    from medvae.synthesis.generate import Synthesizer

STRONG = {"spatial": 1, "rotate": 15, "shift": 6, "elastic": 2, "gamma": 0, "bias": 0, "blur": 0, "noise": 0}


def fitted(*, foreground: str) -> Synthesizer:
    model = toy_model(label_maps=True, prepare={"foreground": foreground})
    settings = AugmentSettings(sampler="classical", options={"randomize": STRONG})
    return generate.fit(model, settings, seed=1)


def test_a_crop_stays_a_full_box() -> None:
    """No wedges: each voxel of the field of view comes from the scan, and the field of view stays where it was."""
    synthesizer = fitted(foreground="whole")
    training = synthesizer.model.training
    for index in range(5):
        sample = synthesizer.sample(index)
        row = list(training.ids).index(sample.sources[0])
        np.testing.assert_array_equal(sample.mask, training.masks[row])
        source = training.images[row][training.masks[row]].astype(np.float32)
        assert (sample.image[sample.mask] == 0).mean() < 0.01, "0 is the median grey, which fills wedges"
        assert source.min() - 1e-3 <= sample.image.min()
        assert sample.image.max() <= source.max() + 1e-3
        assert not np.array_equal(sample.image, training.images[row])


def test_no_sample_is_a_scan_as_it_was() -> None:
    """A training leaves a scan in twelve unchanged; a sample that is a patient's scan is nothing new."""
    model = toy_model()
    synthesizer = generate.fit(model, AugmentSettings(sampler="classical"), seed=1)
    training = list(model.training.images.astype(np.float32))
    samples = [synthesizer.sample(index).image for index in range(60)]
    assert not any(np.array_equal(sample, scan) for sample in samples for scan in training)


def test_classes_have_their_shares_of_all_training_scans(caplog: pytest.LogCaptureFixture) -> None:
    """Not of the kept ones, of which there are as many of each class; a class that is not kept is warned of."""
    model = toy_model(n=8, keep=3, labels=("a", "b", "b", "b"))
    weights = generate.fit(model, AugmentSettings(sampler="classical", classes="training"), seed=1).weights
    assert weights == {"a": 0.25, "b": 0.75}
    assert not caplog.records
    alone = generate.fit(toy_model(n=8, keep=1, labels=("a", "b")), AugmentSettings(sampler="classical"), seed=1)
    assert list(alone.weights) == ["a"]
    assert "no training scan of these classes, so that they get no samples: b" in caplog.text


def test_tissue_with_background_moves_with_its_outline() -> None:
    synthesizer = fitted(foreground="nonzero")
    training = synthesizer.model.training
    sample = synthesizer.sample(0)
    row = list(training.ids).index(sample.sources[0])
    assert not np.array_equal(sample.mask, training.masks[row])
    assert (sample.image[~sample.mask] == 0).all()


def test_labels_of_a_crop_move_with_its_image() -> None:
    """The toy model's labels are where the image is above 0."""
    sample = fitted(foreground="whole").sample(2)
    assert sample.label_map is not None
    agree = (sample.label_map > 0) == (sample.image > 0)
    assert agree[sample.mask].mean() > 0.85
    assert not sample.label_map[~sample.mask].any()


@pytest.mark.parametrize("mask", [ellipsoid(np.zeros((2, 3), np.float32)), np.zeros((1, 4, 4, 4), bool)])
def test_another_shape_than_a_box_is_no_field_of_view(mask: np.ndarray) -> None:
    assert field_of_view(mask) == EVERYTHING


def test_a_box_is_a_field_of_view() -> None:
    part = field_of_view(block())
    assert block()[part].all()
    assert block()[part].sum() == block().sum()
