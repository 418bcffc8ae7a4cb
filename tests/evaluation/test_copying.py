"""Copies of training scans: authenticity, nearness and membership of copies, and of what copies nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medvae.evaluation.copying import (
    Points,
    authenticity,
    closer_to_training,
    mean_distance,
    membership,
    membership_control,
    nearest_rows,
    registered_ratio,
)
from medvae.evaluation.image_set import ImageSet


def points(seed: int, n: int = 40) -> Points:
    return Points(np.random.default_rng(seed).normal(size=(n, 8)), [f"{seed}-{i}" for i in range(n)])


def scans(seed: int, n: int = 5) -> ImageSet:
    """Textures of as many people."""
    rng = np.random.default_rng(seed)
    images = np.stack([ndimage.gaussian_filter(rng.normal(size=(16, 18, 14)), 1.5)[None] for _ in range(n)]) * 8
    names = tuple(f"{seed}-{i}" for i in range(n))
    return ImageSet(names, names, (None,) * n, names, images.astype(np.float16), np.ones(images.shape, bool), None)


TRAINING, HELD_OUT, FRESH = points(0), points(1), points(2, 200).features
COPIES = TRAINING.features + 1e-3


def test_copies_are_found_by_every_measure() -> None:
    assert authenticity(COPIES, TRAINING) == 0
    assert closer_to_training(COPIES, TRAINING, HELD_OUT).value > 0.95
    assert membership(COPIES, TRAINING, HELD_OUT).value == 1
    assert mean_distance(COPIES, TRAINING).value == pytest.approx(1e-3 * np.sqrt(8))


def test_what_copies_nobody_is_as_real_scans_are() -> None:
    assert authenticity(FRESH, TRAINING) == pytest.approx(authenticity(HELD_OUT.features, TRAINING), abs=0.15)
    nearer, auroc = closer_to_training(FRESH, TRAINING, HELD_OUT), membership(FRESH, TRAINING, HELD_OUT)
    control = membership_control(FRESH, TRAINING)
    assert control is not None
    for one in (nearer, auroc, control):
        assert one.low < 0.5 < one.high


def test_two_scans_of_one_person_do_not_make_a_copy_authentic() -> None:
    twice = Points(np.repeat(TRAINING.features, 2, axis=0) + 0.01 * np.arange(80)[:, None] % 2, TRAINING.subjects * 2)
    twice = Points(twice.features, [name for name in TRAINING.subjects for _ in range(2)])
    assert authenticity(COPIES + 0.05, twice) == 0
    alone = Points(TRAINING.features[:2], ["one", "one"])
    assert np.isnan(authenticity(COPIES, alone)), "one subject has nobody to be compared with"
    assert membership_control(COPIES, alone) is None


def test_the_nearest_come_first() -> None:
    samples = np.stack([TRAINING.features[3] + 5, TRAINING.features[7], TRAINING.features[1] + 0.1])
    rows, nearest, far = nearest_rows(samples, TRAINING.features, count=2)
    assert rows.tolist() == [1, 2]
    assert nearest.tolist() == [7, 1]
    assert far[0] == 0


def test_warped_training_scans_have_a_lower_ratio_after_registration() -> None:
    training = scans(0)
    at = np.indices(training.images.shape[2:]).astype(float)
    at[0] += 1.5 * np.sin(at[1] / 4)
    warped = np.stack([ndimage.map_coordinates(one[0].astype(float), at, order=1)[None] for one in training.images])
    samples = replace(training, images=warped.astype(np.float16))
    assert registered_ratio(training, training).value == pytest.approx(0, abs=1e-3)
    assert registered_ratio(samples, training).high < registered_ratio(scans(1), training).low - 0.1
