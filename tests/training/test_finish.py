"""From a fitted network to a checkpoint: posteriors of every scan, and some of the scans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_model
import torch
import toy_lesion

from medvae.anomaly.inference import infer
from medvae.checkpoint.model import Model, build_vae, weights_hash
from medvae.run.work import Progress
from medvae.training import finish as module
from medvae.training.finish import to_model
from medvae.training.store import Scans, store
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("a", None, "b", "a")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return small_model.stored(tmp_path_factory.mktemp("cache"), 4)


def made(scans: Scans, *, keep: int = 200, calls: list[Progress] | None = None) -> Model:
    settings = small_model.settings(train={"keep_scans": keep})
    vae = build_vae(settings, scans.conditions).eval()
    on_progress = (calls if calls is not None else []).append
    return to_model(vae, scans, labels=LABELS, settings=settings, record={"steps": 1}, on_progress=on_progress)


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
    assert model.hash == weights_hash(model.networks)
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


def test_few_kept_scans_are_of_every_class_with_and_without_lesions(tmp_path: Path) -> None:
    """Lists are often sorted by class: of the first scans alone, samplers would know one class and no lesions."""
    files = [tmp_path / str(i) for i in range(20)]
    for i, path in enumerate(files):
        one = small_model.scan(i)
        store(replace(one, label_map=np.full(one.mask.shape, i % 10 == 9, np.int16)), path)
    settings, lesions = small_model.settings(train={"keep_scans": 4}), toy_lesion.lesion_codes(2)
    kept = module._kept(Scans(files), ["healthy"] * 10 + ["ill"] * 10, settings, lesions=lesions)
    rows = [int(one.removeprefix("scan-")) for one in kept.ids]
    assert sorted((row >= 10, row % 10 == 9) for row in rows) == [(a, b) for a in (False, True) for b in (False, True)]
    assert rows == sorted(rows)
    np.testing.assert_allclose(kept.images[-1], small_model.scan(rows[-1]).image, atol=0.004)


def test_label_maps_are_kept_where_every_scan_has_one(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(3)]
    for i, path in enumerate(files):
        one = small_model.scan(i)
        store(replace(one, label_map=(one.image > i).astype(np.int16)), path)
    whole = module._kept(Scans(files), [None] * 3, small_model.settings(), lesions=None).label_maps
    assert whole is not None
    assert whole.shape == (3, 1, *small_model.SHAPE)
    assert np.array_equal(whole[2] > 0, small_model.scan(2).image > 2)
    store(small_model.scan(0), files[0])
    assert module._kept(Scans(files), [None] * 3, small_model.settings(), lesions=None).label_maps is None
    filled = module._kept(
        Scans(files), [None] * 3, small_model.settings(), lesions=toy_lesion.lesion_codes(2)
    ).label_maps
    assert filled is not None, "a scan without lesions is one whose label map is all 0"
    assert not filled[0].any()
    assert filled[1].any()


def test_every_scan_is_reported(scans: Scans) -> None:
    calls: list[Progress] = []
    made(scans, calls=calls)
    assert calls == [Progress("latents", i, 4) for i in range(1, 5)]


def test_conditions_go_into_posteriors_and_checkpoint(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(4)]
    for i, path in enumerate(files):
        store(replace(small_model.scan(0), conditions={"age": 20.0 + i, "site": "ab"[i % 2]}), path)
    scans = Scans(files, Conditions.fit(["age"], [{"age": 20.0}, {"age": 22.0}]))
    model = made(scans)
    assert model.conditions == scans.conditions
    assert [one["age"] for one in model.latents.conditions] == [20, 21, 22, 23]
    assert model.latents.conditions[1]["site"] == "b"
    with torch.no_grad():
        for parameter in model.vae.parameters():
            parameter += 0.05
    posterior = model.encode_prepared(scans[3])
    assert not torch.equal(posterior.mean, model.encode_prepared(scans[0]).mean), "the same image, another age"
