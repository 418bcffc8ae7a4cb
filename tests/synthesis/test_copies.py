"""The copy screen: exact copies have distance 0 and are flagged, scans of new people mostly are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_model import SHAPE, ellipsoid, toy_model

from medvae.settings import AugmentSettings
from medvae.synthesis import copies, generate
from medvae.synthesis.nearest import Nearest, TrainingCodes, TrainingImages, find_nearest

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model


def training_image(model: Model, row: int) -> tuple[np.ndarray, np.ndarray]:
    return model.training.images[row].astype(np.float32), model.training.masks[row]


def flagged(model: Model, name: str, *, texture: bool, count: int = 20) -> float:
    synthesizer = generate.fit(model, AugmentSettings(sampler=name, texture=texture), seed=1)
    screen = copies.fit(model, copies=synthesizer.copies())
    samples = [synthesizer.sample(index) for index in range(count)]
    return float(np.mean([screen.check(one.image, one.mask, one.z).copy for one in samples]))


@pytest.mark.parametrize("row", range(4))
def test_an_exact_copy_is_flagged(row: int) -> None:
    model = toy_model()
    image, mask = training_image(model, row)
    found = copies.fit(model).check(image, mask, model.latents.mean[row])
    assert found.copy is True
    assert found.image is not None
    assert (found.image.id, found.image.distance) == (f"scan-{row:02d}", 0.0)
    assert found.image.ratio == 0
    assert found.code is not None
    assert found.code.id == f"scan-{row:02d}"
    assert found.code.distance == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("texture", [True, False])
def test_fresh_samples_are_rarely_flagged_and_near_copies_always(*, texture: bool) -> None:
    """A blurred sample lies nearer to every scan than scans to each other: the threshold has to know.

    Strangers gain by 250 moves, too: with them a few samples of `jitter` are missed.
    """
    model = toy_model(n=40)
    assert flagged(model, "density", texture=texture) <= 0.15
    assert flagged(model, "jitter", texture=texture) >= 0.85


@pytest.mark.parametrize("move", [(0, 0), (1, 2)])
def test_the_donor_of_a_changed_copy_is_named(move: tuple[int, int]) -> None:
    model = toy_model(n=40)
    screen = copies.fit(model)
    image, mask = (np.roll(one, move, axis=(1, 2)) for one in training_image(model, 3))
    found = screen.check(image, mask, None)
    assert "image" in found.found_by
    assert found.copied == "scan-03"
    assert found.facts["copy_by"] == ";".join(found.found_by)
    assert (found.facts["registered_nearest"], found.facts["region_nearest"]) == ("scan-03", "scan-03")
    assert found.scores["registered_ratio"] == pytest.approx(0, abs=1e-3)
    assert found.scores["region_share"] == pytest.approx(0.9, abs=0.1), "in some blocks others are too alike to tell"


def test_some_scans_are_registered_to_know_how_alike_people_are() -> None:
    screen = copies.fit(toy_model(n=20))
    registered = [row for row, one in enumerate(screen.compared) if one.registered is not None]
    assert len(registered) == copies.REGISTERED
    assert (registered[0], registered[-1]) == (0, 19)
    rows = screen.real_rows()
    assert sum(row["registered_ratio"] is not None for row in rows) == copies.REGISTERED
    assert all(row["copy"] is None and row["copy_by"] is None for row in rows)


def test_distance_is_the_rms_difference_over_the_union() -> None:
    model = toy_model(n=3)
    image = np.full((1, *SHAPE), 0.5, np.float32)
    mask = ellipsoid(np.zeros((2, 3), np.float32))
    image[~mask] = 0
    comparison = copies.fit(model).comparison
    assert comparison is not None
    images = comparison.images
    for row, got in enumerate(images.distances(image, mask)):
        other, inside = training_image(model, row)
        assert got == pytest.approx(np.sqrt(np.square(image - other)[mask | inside].mean()), rel=1e-5)


def test_foreground_beyond_all_training_scans_counts_too() -> None:
    masks = np.zeros((2, 1, 4, 4, 4), bool)
    masks[:, :, :2] = True
    images = np.where(masks, np.float32(3), np.float32(-1))
    known = TrainingImages.from_scans(images, masks, ids=["a", "b"], subjects=["a", "b"], background=-1.0)
    image, mask = np.full((1, 4, 4, 4), 3, np.float32), np.ones((1, 4, 4, 4), bool)
    assert known.distances(image, mask) == pytest.approx([np.sqrt(16 * 32 / 64)] * 2)


def test_all_channels_count() -> None:
    """Two scans of two channels that differ in the second one alone."""
    images = np.zeros((2, 2, 4, 4, 4), np.float32)
    images[1, 1] = 2
    masks = np.ones((2, 1, 4, 4, 4), bool)
    known = TrainingImages.from_scans(images, masks, ids=["a", "b"], subjects=["a", "b"])
    assert known.distances(images[0], masks[0]) == pytest.approx([0, np.sqrt(2)])
    near = find_nearest(known.distances(images[1], masks[1]), known.ids, subjects=known.subjects, without="b")
    assert near is not None
    assert near.id == "a"


def test_scans_of_the_same_subject_do_not_count_as_neighbours() -> None:
    model = toy_model(n=6)
    training, latents = model.training, model.latents
    images = training.images.copy()
    images[1], training.masks[1] = images[0], training.masks[0]  # a second scan, identical
    twins = ["one", "one", *latents.subjects[2:]]
    model = replace(model, training=replace(training, images=images), latents=replace(latents, subjects=twins))
    screen = copies.fit(model)
    assert screen.real[0] is not None
    assert screen.real[0].id not in ("scan-00", "scan-01")
    assert screen.limits.distance > 0
    image, mask = training_image(model, 0)
    found = screen.check(image, mask, None)
    assert found.image is not None
    assert found.image.second > 0, "the second nearest is someone else"


def test_threshold_is_a_quantile_of_real_to_real_distances() -> None:
    screen = copies.fit(toy_model(n=40))
    distances = [one.distance for one in screen.real if one is not None]
    assert np.mean(np.array(distances) < screen.limits.distance) == pytest.approx(0.05)
    assert screen.thresholds_from == "training scans"


def test_without_images_codes_alone_are_compared() -> None:
    model = toy_model(keep=0)
    screen = copies.fit(model)
    found = screen.check(np.zeros((1, *SHAPE), np.float32), np.ones((1, *SHAPE), bool), model.latents.mean[3])
    assert found.copy is None
    assert found.image is None
    assert found.code is not None
    assert found.code.id == "scan-03"
    assert "keeps no training scans" in screen.thresholds_from
    assert found.scores["distance"] is None
    assert len(screen.real_rows()) == 24


def test_one_subject_alone_gives_no_threshold() -> None:
    model = toy_model(n=3)
    model = replace(model, latents=replace(model.latents, subjects=["same"] * 3))
    screen = copies.fit(model)
    assert not screen.known
    assert screen.real == (None, None, None)
    image, mask = training_image(model, 0)
    assert screen.check(image, mask, None).copy is None


def test_codes_count_every_dimension_alike() -> None:
    rng = np.random.default_rng(0)
    means = (rng.normal(size=(50, 2)) * [100, 1]).astype(np.float32)
    names = [str(i) for i in range(50)]
    codes = TrainingCodes.from_posteriors(means, np.full(means.shape, -20, np.float32), ids=names, subjects=names)
    assert codes.scale == pytest.approx(means.std(axis=0), rel=1e-3)
    for shift in ([1, 0], [0, 0.01]):
        near = codes.nearest(means[0] + np.array(shift, np.float32))
        assert near is not None
        assert near.id == "0"
        assert near.distance == pytest.approx(0.01 / np.sqrt(2), rel=0.3), "a hundredth of the spread in either"


def test_ratio_is_unknown_without_a_second() -> None:
    assert np.isnan(Nearest("a", 1.0, float("nan")).ratio)
    assert np.isnan(Nearest("a", 0.0, 0.0).ratio)
