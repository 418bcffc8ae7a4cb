"""From a fitted network to a checkpoint: posteriors of every scan, some images, a first Reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import small_model

from medvae import plugins
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.model import Model, build_vae, weights_hash
from medvae.training import finish as module
from medvae.training.batches import Scans, store
from medvae.training.finish import passes, remember

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

LABELS = ("a", None, "b", "a")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 4)


def made(scans: Scans, *, keep: int = 200, calls: list[int] | None = None) -> Model:
    settings = small_model.settings(train={"keep_scans": keep})
    vae = build_vae(settings)
    cast("nn.Module", vae).eval()
    counted = calls if calls is not None else []
    return remember(
        vae, scans, labels=LABELS, settings=settings, record={"steps": 1}, on_scan=lambda: counted.append(1)
    )


def test_posteriors_of_every_scan(scans: Scans) -> None:
    model = made(scans)
    assert model.latents.ids == [f"scan-{i}" for i in range(4)]
    assert model.latents.subjects == [f"subject-{i}" for i in range(4)]
    assert model.latents.hashes == [f"hash-{i}" for i in range(4)]
    assert model.latents.labels == list(LABELS)
    assert model.latents.mean.shape == (4, 2, 4, 4, 4)
    posterior = infer(model, scans[2]).posterior
    assert np.array_equal(model.latents.mean[2], posterior.mean[0].numpy())
    assert np.array_equal(model.latents.log_variance[2], posterior.log_variance[0].numpy())
    assert model.hash == weights_hash(cast("nn.Module", model.vae))
    assert model.record == {"steps": 1}


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_so_many_scans_are_kept_as_images(scans: Scans, keep: int) -> None:
    training = made(scans, keep=keep).training
    count = min(keep, 4)
    assert training.images.shape == training.masks.shape == (count, 1, *small_model.SHAPE)
    assert (training.images.dtype, training.masks.dtype) == (np.float16, bool)
    assert training.ids == [f"scan-{i}" for i in range(count)]
    assert training.units == "a.u."
    assert training.label_maps is None
    for i in range(count):
        np.testing.assert_allclose(training.images[i], scans[i].image, atol=0.004)
        assert training.intensities[i] == scans[i].intensity


def test_label_maps_are_kept_where_every_scan_has_one(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(3)]
    for i, path in enumerate(files):
        one = small_model.scan(i)
        store(replace(one, label_map=(one.image > i).astype(np.int16)), path)
    whole = module._kept(Scans(files), small_model.settings()).label_maps
    assert whole is not None
    assert whole.shape == (3, 1, *small_model.SHAPE)
    assert np.array_equal(whole[2] > 0, small_model.scan(2).image > 2)
    store(small_model.scan(0), files[0])
    assert module._kept(Scans(files), small_model.settings()).label_maps is None


def test_the_first_reference_is_of_the_training_scans_and_says_so(scans: Scans) -> None:
    reference = reference_of(made(scans))
    assert reference.status == "uncalibrated, n=4"
    assert reference.scan_hashes == tuple(f"hash-{i}" for i in range(4))
    assert set(reference.limits) == {
        name for name in plugins.names("maps") if not getattr(plugins.load("maps", name), "NEEDS_ALIGNMENT", False)
    }
    reference.check(model_hash=made(scans).hash, preparation_hash=made(scans).preparation.hash)


def test_a_few_scans_are_enough_for_the_reference(scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFERENCE_SCANS", 2)
    calls: list[int] = []
    model = made(scans, calls=calls)
    assert reference_of(model).n == 2
    assert len(model.latents.ids) == 4
    assert len(calls) == passes(4) == 8
