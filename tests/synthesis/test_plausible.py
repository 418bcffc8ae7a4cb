"""Draws that could not be scans are rejected, counted and drawn again, the same way each time."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from toy_model import NOISE, toy_model

from medvae.errors import ScanError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, likely, plausible
from medvae.synthesis.synthesize import synthesize, with_screen
from medvae.synthesis.synthetic import DRAWS, SyntheticSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.synthesis.generate import Sample, Synthesizer


def fitted(*, model: dict[str, Any] | None = None, **augment: Any) -> Synthesizer:
    settings = AugmentSettings.model_validate({"sampler": "classical", **augment})
    return generate.fit(toy_model(**{"label_maps": True, **(model or {})}), settings, seed=0)


def changed(sample: Sample, **arrays: Any) -> Sample:
    return replace(sample, **arrays)


def kinds(sample: Sample, *, binary: bool = False) -> list[str]:
    model = toy_model(label_maps=True, prepare={"modality": "SHAPE", "intensity": "none"} if binary else None)
    return [fault.kind for fault in plausible.fit(model).faults(sample)]


def nan(sample: Sample) -> Sample:
    image = sample.image.copy()
    image[0, 8, 8, 8] = np.nan
    return changed(sample, image=image)


def label(sample: Sample, value: int) -> np.ndarray:
    assert sample.label_map is not None
    return np.full_like(sample.label_map, value)


def scattered(sample: Sample) -> np.ndarray:
    """As many labelled voxels, no two of them neighbours."""
    labels = label(sample, 0)
    labels[:, ::2, ::2, ::2] = 1
    return labels


BROKEN: dict[str, Callable[[Sample], Sample]] = {
    "non_finite": nan,
    "empty": lambda one: changed(one, image=np.zeros_like(one.image)),
    "values": lambda one: changed(one, image=np.where(one.mask, one.image + 8, np.float32(0))),
    "volume": lambda one: changed(one, mask=np.ones_like(one.mask), image=np.where(one.mask, one.image, 0.1)),
    "label": lambda one: changed(one, label_map=label(one, 0)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_found(kind: str) -> None:
    sample = fitted().sample(0)
    assert kinds(sample) == []
    assert kind in kinds(BROKEN[kind](sample))


def test_labels_have_to_be_known_whole_and_as_large_as_real_ones() -> None:
    sample = fitted().sample(0)
    limits = plausible.fit(fitted().model)
    texts = {
        name: " ".join(fault.text for fault in limits.faults(changed(sample, label_map=labels)))
        for name, labels in (("missing", label(sample, 0)), ("huge", label(sample, 1)), ("new", label(sample, 3)))
    }
    assert "label 1 is missing" in texts["missing"]
    assert "label 1 mL" in texts["huge"]
    assert "labels [3], which no training scan has" in texts["new"]
    assert "largest piece" in " ".join(
        fault.text for fault in limits.faults(changed(sample, label_map=scattered(sample)))
    )


def test_a_real_scan_is_plausible() -> None:
    model = toy_model(label_maps=True)
    limits, sample = plausible.fit(model), fitted().sample(0)
    for image, mask, labels in zip(model.training.images, model.training.masks, model.training.label_maps, strict=True):
        real = changed(sample, image=image.astype(np.float32), mask=mask, label_map=labels)
        assert limits.faults(real) == ()


def test_what_the_model_cannot_explain_is_rejected_and_what_it_explains_too_well_is_not() -> None:
    """Values of a sample in another order: only the ELBO tells that this is no scan."""
    synthesizer = fitted(sampler="density", texture=False)
    limits, sample = plausible.fit(synthesizer.model), synthesizer.sample(0)
    assert limits.faults(sample) == (), "a mean, without the noise of scans"
    shuffled = sample.image.copy()
    shuffled[sample.mask] = np.random.default_rng(0).permutation(sample.image[sample.mask])
    found = limits.faults(changed(sample, image=shuffled))
    assert [fault.kind for fault in found] == ["elbo"]
    assert found[0].text.startswith("-ELBO per voxel")
    assert limits.faults(changed(sample, image=shuffled, z=None)) == (), "of altered scans it is not asked"
    assert likely.negative_elbo(synthesizer.model, sample.image, sample.mask, {}) < limits.highest


def test_the_elbo_is_that_of_the_voxels_of_the_foreground() -> None:
    """By hand, for a Gaussian of known variance and the posterior of the toy."""
    model = toy_model()
    image, mask = model.training.images[0].astype(np.float32), model.training.masks[0]
    with torch.inference_mode():
        posterior = model.vae.encode(torch.from_numpy(image)[None])
        mean = model.vae.decode(posterior.mean).mean.numpy()[0]
    deviation = (image - mean)[mask]
    log_density = -0.5 * np.square(deviation / NOISE) - np.log(NOISE) - 0.5 * np.log(2 * np.pi)
    m, v = posterior.mean.numpy(), np.exp(posterior.log_variance.numpy())
    kl = 0.5 * (v + m**2 - 1 - np.log(v)).sum()
    expected = (kl - log_density.sum()) / mask.sum()
    assert likely.negative_elbo(model, image, mask, {}) == pytest.approx(expected, rel=1e-4)


def test_of_a_shape_its_volume_counts() -> None:
    model = toy_model(prepare={"modality": "SHAPE", "intensity": "none"})
    limits = plausible.fit(model)
    synthesizer = generate.fit(model, AugmentSettings(sampler="jitter"), seed=0)
    sample = synthesizer.sample(0)
    assert limits.faults(sample) == ()
    everything = changed(sample, image=np.ones_like(sample.image), mask=np.ones_like(sample.mask))
    everything.image[0, 0, 0, 0] = 0
    assert [fault.kind for fault in limits.faults(everything)] == ["volume"]


def test_without_kept_scans_only_the_empty_and_the_non_finite_are_found() -> None:
    limits = plausible.fit(toy_model(keep=0))
    sample = generate.fit(toy_model(keep=0), AugmentSettings(), seed=0).sample(0)
    assert limits.faults(changed(sample, image=sample.image * 100)) == ()
    assert [fault.kind for fault in limits.faults(nan(sample))] == ["non_finite"]


# ------------------------------------------------------------------------------------------------- drawing again


class Spoiled(generate.Synthesizer):
    """The first draws of every second sample are empty."""

    spoiled = 2

    def sample(self, index: int, *, attempt: int = 0) -> Sample:
        sample = super().sample(index, attempt=attempt)
        return BROKEN["empty"](sample) if index % 2 and attempt < self.spoiled else sample


def spoiled(**augment: Any) -> SyntheticSet:
    plain = fitted(sampler="density", **augment)
    whole = with_screen(plain)
    return replace(whole, synthesizer=Spoiled(**{name: getattr(plain, name) for name in plain.__dataclass_fields__}))


def test_a_rejected_draw_is_drawn_again(caplog: pytest.LogCaptureFixture) -> None:
    whole = spoiled()
    with caplog.at_level(logging.INFO, "medvae"):
        one, other = whole.scan(1), whole.scan(1)
    assert one.sample.attempt == 2
    assert np.array_equal(one.image.data, other.image.data), "again, the same one"
    assert [fault["kind"] for fault in one.record["rejected"]] == ["empty", "empty"]
    assert (one.record["draw"], one.result().scores["draws"], one.result().facts["rejected"]) == (3, 3, "empty;empty")
    assert "synthetic-00001: draw 1 rejected: no foreground" in caplog.text
    untouched = with_screen(fitted(sampler="density"))
    assert np.array_equal(whole.scan(2).image.data, untouched.scan(2).image.data), "the others stay what they are"
    assert one.label == untouched.scan(1).label, "of the same class"


def test_a_sample_that_cannot_be_drawn_is_an_error_with_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoiled, "spoiled", DRAWS)
    with pytest.raises(ScanError, match="all 10 draws were rejected; the last one: no foreground") as caught:
        spoiled().scan(1)
    assert (caught.value.code, caught.value.status) == ("implausible", "rejected")


def test_without_rejection_it_is_written_with_a_warning() -> None:
    scan = spoiled(reject=False).scan(1)
    assert scan.sample.attempt == 0
    assert scan.warnings[-1] == "implausible: no foreground, or one value everywhere"


def test_in_python_it_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(generate, "Synthesizer", Spoiled)
    monkeypatch.setattr(Spoiled, "spoiled", DRAWS)
    assert [one.id for one in synthesize(toy_model(), 3)] == ["synthetic-00000", "synthetic-00002"]
    assert "synthetic-00001 is left out" in caplog.text


def test_near_copies_are_drawn_again_unless_the_sampler_says_whose_they_are() -> None:
    """Draws of nearly no spread around the codes of two people are near-copies."""
    options = {"reach": 0.0, "keep_variance": False}
    whole = with_screen(fitted(model={"n": 4}, sampler="interpolate", options=options))
    rejected = []
    for index in range(6):
        try:
            scan = whole.scan(index)
        except ScanError as problem:
            rejected.append(str(problem))
        else:
            assert scan.audit.copy is not True
            rejected += [fault["kind"] for fault in scan.record["rejected"]]
    assert any("near" in one for one in rejected)
    assert with_screen(fitted(options={"randomize": STILL})).scan(0).audit.copy is True


def test_an_image_of_several_named_donors_is_not_rejected_as_a_copy_of_one() -> None:
    whole = with_screen(fitted(options={"randomize": STILL}))
    sample = whole.synthesizer.sample(0)
    two = (*sample.sources, next(one for one in whole.synthesizer.model.training.ids if one not in sample.sources))
    mixed = changed(sample, sources=two, parameters={"donor_share": [0.9, 0.1]})
    assert whole.screen.check(mixed.image, mixed.mask, None).copy
    assert whole._faults(mixed)[0] == ()
    unsaid = changed(mixed, parameters={})
    assert [fault.kind for fault in whole._faults(unsaid)[0]] == ["near_copy"]


STILL = {"spatial": 0, "gamma": 0, "bias": 0, "blur": 0, "noise": 0}
