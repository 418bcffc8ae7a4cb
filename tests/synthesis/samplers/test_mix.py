"""`mix`: a sample of another sampler, moved and changed as `classical` would, and still that one's in all it says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_deform import toy_deform
from toy_joint import toy_joint
from toy_model import toy_model

from medvae.errors import SettingsError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, plausible, provenance
from medvae.synthesis.changes import Parts, changed
from medvae.synthesis.samplers import anatomy

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample, Synthesizer

STILL = {"spatial": 0, "gamma": 0, "bias": 0, "blur": 0, "noise": 0}
WARP = {**STILL, "spatial": 1, "rotate": 15, "shift": 6}


def fitted(model: Model, sampler: str = "mix", **options: Any) -> Synthesizer:
    return generate.fit(model, AugmentSettings(sampler=sampler, options=options), seed=3)


def plain(synthesizer: Synthesizer, index: int = 0) -> Sample:
    """The sample of the other sampler, drawn as `mix` draws it."""
    inner = synthesizer.fitted.inner  # type: ignore[attr-defined]
    return replace(synthesizer, fitted=inner).sample(index)


@pytest.mark.parametrize(("make", "of"), [(toy_model, "density"), (toy_joint, "density"), (toy_deform, "anatomy")])
def test_the_other_sampler_is_the_one_that_suits_the_network(make: Any, of: str) -> None:
    synthesizer = fitted(make())
    sample = synthesizer.sample(0)
    assert sample.parameters["of"] == of
    assert synthesizer.space == {"density": "latent", "anatomy": "image"}[of]
    assert (sample.z is None) == (of == "anatomy")
    assert bool(sample.sources) == (of == "anatomy")


@pytest.mark.parametrize("make", [toy_model, toy_joint, toy_deform])
def test_without_changes_it_is_the_other_samplers_sample(make: Any) -> None:
    synthesizer = fitted(make(label_maps=True) if make is not toy_joint else make(), randomize=STILL)
    for index in range(2):
        same, sample = plain(synthesizer, index), synthesizer.sample(index)
        np.testing.assert_allclose(sample.image, same.image, atol=1e-6)
        assert np.array_equal(sample.mask, same.mask)
        assert (sample.label_map is None) == (same.label_map is None)
        if sample.label_map is not None and same.label_map is not None:
            assert np.array_equal(sample.label_map, same.label_map)
        assert sample.sources == same.sources
        assert provenance.donor_shares(sample) == provenance.donor_shares(same)
        assert provenance.is_derived(sample, synthesizer.model) == provenance.is_derived(same, synthesizer.model)


@pytest.mark.parametrize("make", [toy_joint, toy_deform])
def test_image_mask_and_labels_move_by_one_map(make: Any) -> None:
    """The change that the sidecar records, done again on the other sampler's sample, gives the sample."""
    synthesizer = fitted(make() if make is toy_joint else make(label_maps=True), randomize=WARP)
    before, sample = plain(synthesizer), synthesizer.sample(0)
    draw = synthesizer.fitted.draw(None, synthesizer._generator((0, 0), generate._DRAW), {}, 0)
    assert draw.change is not None
    assert draw.change.seed == sample.parameters["seed"]
    parts = Parts(before.image, before.mask, before.label_map)
    again, record = changed(parts, draw.change, intensity=sample.intensity, model=synthesizer.model)
    assert np.array_equal(again.mask, sample.mask)
    assert again.label_map is not None
    assert sample.label_map is not None
    assert np.array_equal(again.label_map, sample.label_map)
    assert not np.array_equal(before.label_map, sample.label_map)
    np.testing.assert_allclose(again.image, sample.image, atol=1e-6)
    assert record["inverse"] == sample.parameters["inverse"]
    assert sample.parameters.keys() > before.parameters.keys(), "what the other sampler drew is told as well"


def test_options_go_to_the_other_sampler() -> None:
    narrow = fitted(toy_model(), of="density", options={"spread": 0.01}, randomize=STILL)
    means = narrow.sample(0).z, narrow.sample(1).z
    assert means[0] is not None
    np.testing.assert_allclose(means[0], means[1], atol=0.1)
    with pytest.raises(SettingsError, match="sharpness"):
        fitted(toy_model(), of="density", options={"sharpness": 1})


def test_another_sampler_may_say_itself_what_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an attribute of the fitted sampler instead of its file, as the contract allows."""
    monkeypatch.delattr(anatomy, "SPACE")
    monkeypatch.setattr(anatomy.Anatomy, "space", "image", raising=False)
    assert fitted(toy_deform(), of="anatomy").space == "image"


@pytest.mark.parametrize("of", ["mix", "classical"])
def test_a_sampler_that_changes_its_own_draws_is_refused(of: str) -> None:
    with pytest.raises(SettingsError, match="changes its own") as caught:
        fitted(toy_model(), of=of)
    assert "augment.options.of" in str(caught.value.hint)


def test_what_was_changed_is_not_asked_for_its_likelihood() -> None:
    """As altered scans are not: a change may go beyond what the network was trained on."""
    model = toy_model()
    judge = replace(plausible.fit(model), values=plausible._EVERYTHING, median=plausible._EVERYTHING)
    sample = replace(fitted(model, randomize=STILL).sample(0), image=np.full((1, 16, 18, 14), 5, np.float32))
    sample.image[0, 0] = 4
    kinds = (
        {fault.kind for fault in judge.faults(sample)},
        {fault.kind for fault in judge.faults(replace(sample, changed=False))},
    )
    assert "elbo" not in kinds[0]
    assert "elbo" in kinds[1]
