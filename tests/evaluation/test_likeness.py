"""Features and MS-SSIM of scans: what they see, and which scans are paired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_images import made

from medvae.evaluation.features import TOTAL, Components, Features
from medvae.evaluation.likeness import Similarity, within_class


def test_features_see_place_and_sharpness_on_one_scale() -> None:
    training = made(12)
    fitted = Features.fit(training)
    points = fitted.of(training)
    half = points.shape[1] // 2
    assert points[:, :half].var(axis=0).sum() == pytest.approx(1)
    assert points.var(axis=0).sum() == pytest.approx(TOTAL)
    blurred, others = fitted.of(made(12, blur=1)), fitted.of(made(12, seed=1))
    detail = [np.linalg.norm(one[:, half:].mean(axis=0)) for one in (blurred, others)]
    assert detail[0] > 3 * detail[1], "a blur shows, other scans of the same kind do not"


def test_components_are_those_of_the_training_scans() -> None:
    points = np.random.default_rng(0).normal(size=(30, 5)) * [5, 3, 1, 1, 1] + 10
    fitted = Components.fit(points, 2)
    scores = fitted.of(points)
    assert scores.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert abs(np.corrcoef(scores[:, 0], points[:, 0])[0, 1]) > 0.85
    assert fitted.axes.shape == (2, 5)


def test_a_scan_is_like_itself_and_blurred_scans_like_each_other() -> None:
    training = made(8)
    similarity = Similarity.fit(training)
    assert similarity.of(training.images[0], training.images[0]) == pytest.approx(1)
    sharp, blurred = (within_class(one, similarity) for one in (training, made(8, blur=2)))
    assert sharp is not None
    assert blurred is not None
    assert blurred.mean.value > sharp.mean.value
    assert sharp.mean.low < sharp.mean.value < sharp.mean.high


def test_pairs_are_of_one_class_and_two_subjects() -> None:
    scans = made(9, classes=("a", "b"))
    scans = replace(scans, subjects=("one", "x", "one", *scans.subjects[3:]))
    pairs = within_class(scans, Similarity.fit(scans))
    assert pairs is not None
    for one, other in pairs.rows:
        assert scans.classes[one] == scans.classes[other]
        assert scans.subjects[one] != scans.subjects[other]
    assert np.bincount(pairs.rows.ravel()).max() <= 2
    assert within_class(scans.take([0, 1]), Similarity.fit(scans)) is None


def test_classes_keep_their_shares_whatever_the_number_of_scans() -> None:
    """At most 100 pairs are compared; they were the first ones, so that of many scans only the first class was left."""
    scans = made(3, classes=("a", "b"))
    many = scans.take(np.tile(np.arange(len(scans)), 80))
    many = replace(many, subjects=tuple(str(at) for at in range(len(many))))
    pairs = within_class(many, Similarity.fit(scans))
    assert pairs is not None
    assert 90 <= len(pairs.rows) <= 100
    share = np.mean([many.classes[one] == "a" for one, _ in pairs.rows])
    assert share == pytest.approx(np.mean([one == "a" for one in many.classes]), abs=0.05)
