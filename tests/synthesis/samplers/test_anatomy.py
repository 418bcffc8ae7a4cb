"""The sampler `anatomy`: one resampling of image, labels and mask through the same places, no folds, donors named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from toy_deform import toy_deform
from toy_model import SHAPE, toy_model

from medvae.errors import ModelError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.samplers import _donors, anatomy
from medvae.synthesis.samplers.anatomy import Settings
from medvae.vae.diffeomorphism import jacobian

if TYPE_CHECKING:
    from medvae.synthesis.draws import ImageDraw


def draw(label: str | None = None, *, seed: int = 0, donor: str = "random", **more: object) -> ImageDraw:
    model = toy_deform(n=8, label_maps=True, **more)  # type: ignore[arg-type]
    fitted = anatomy.fit(model, Settings.model_validate({"donor": donor}))
    return fitted.draw(label, np.random.default_rng(seed), {}, 0)


def test_a_code_that_is_the_donors_own_gives_the_donor_back() -> None:
    """φ_j⁻¹ ∘ φ_j is the identity: without a new code nothing moves."""
    model = toy_deform(n=8, label_maps=True)
    fitted = anatomy.fit(model, Settings())
    donor = _donors.load_donor(model, 3, 3, matched=False)
    (u,) = fitted._maps(model.latents.mean[3], [donor])
    (other,) = fitted._maps(model.latents.mean[5], [donor])
    inner = u[..., 2:-2, 2:-2, 2:-2]  # at the border of the grid maps lead outside
    assert inner.abs().max() < 0.15
    assert u.abs().mean() < 0.05 < 1 < other.abs().mean()
    mask = torch.from_numpy(model.training.masks[3])
    own = torch.from_numpy(model.training.images[3].astype(np.float32))
    assert (donor.image_at(u, mask) - own)[mask].abs().mean() < 0.05
    assert (donor.mask_at(u) == mask).float().mean() > 0.99


def test_fine_texture_survives_half_a_voxel() -> None:
    """A wave of four voxels keeps 97% of its height; linear interpolation would leave 71%."""
    model = toy_deform(n=8)
    donor = _donors.load_donor(model, 3, 3, matched=False)
    wave = np.cos(np.pi / 2 * np.indices(SHAPE)[0]).astype(np.float32)
    u = torch.zeros(1, 3, *SHAPE)
    u[:, 0] = 0.5
    everywhere = torch.ones(1, *SHAPE, dtype=torch.bool)
    moved = replace(donor, image=wave).image_at(u, everywhere)[0, 2:-4].numpy()
    expected = np.cos(np.pi / 2 * (np.indices(SHAPE)[0] + 0.5))[2:-4]
    assert moved == pytest.approx(expected, abs=0.03)
    assert replace(donor, image=wave).image_at(0 * u, everywhere)[0].numpy() == pytest.approx(wave, abs=1e-5)


def test_nothing_is_brighter_or_darker_than_the_donor() -> None:
    """Splines overshoot at an edge."""
    donor = _donors.load_donor(toy_deform(n=8), 3, 3, matched=False)
    edge = (np.indices(SHAPE)[0] > SHAPE[0] // 2).astype(np.float32)
    inside = torch.ones(1, *SHAPE, dtype=torch.bool)
    inside[..., 0] = False
    moved = replace(donor, image=edge).image_at(torch.full((1, 3, *SHAPE), 0.5), inside)
    assert moved[inside].min() == 0
    assert moved[inside].max() == 1
    assert not moved[~inside].any()


def test_image_labels_and_mask_move_together() -> None:
    """A donor whose labels and mask follow from its image: they still do in the sample, but for mixed voxels."""
    model = toy_deform(n=8, label_maps=True)
    training = model.training
    inside = training.masks.astype(bool)
    training.images[:] = np.where(inside, 4.0, 0.0)
    training.images[:, :, : SHAPE[0] // 2] *= -1
    assert training.label_maps is not None
    training.label_maps[:] = np.where(training.images > 0, 5, np.where(training.images < 0, 2, 0))
    found = anatomy.fit(model, Settings()).draw(None, np.random.default_rng(1), {}, 0)
    assert found.label_map is not None
    assert found.label_map.dtype == np.int16
    assert set(np.unique(found.label_map)) == {0, 2, 5}
    pure = np.abs(found.image) > 3.9
    assert (found.label_map[found.mask & pure & (found.image > 0)] == 5).mean() > 0.97
    assert (found.label_map[found.mask & pure & (found.image < 0)] == 2).mean() > 0.97
    assert (found.label_map[~found.mask] == 0).mean() > 0.97


def test_the_mask_is_the_only_border_of_the_tissue() -> None:
    """Background never mixes into the foreground: the donor is continued outwards before it is resampled."""
    model = toy_deform(n=8)
    model.training.images[:] = np.where(model.training.masks, 3.0, -10.0)
    found = anatomy.fit(model, Settings()).draw(None, np.random.default_rng(2), {}, 0)
    np.testing.assert_allclose(found.image[found.mask], 3.0, atol=1e-4)


def test_a_field_of_view_stays_a_block() -> None:
    model = toy_deform(n=8, prepare={"foreground": "whole"})
    found = anatomy.fit(model, Settings()).draw(None, np.random.default_rng(2), {}, 0)
    assert np.array_equal(found.mask, model.training.masks[0])
    assert np.isfinite(found.image).all()


def test_donors_are_named_with_their_share_and_distance() -> None:
    one, two = draw(), draw(donor="two")
    assert len(one.sources) == 1
    assert one.parameters["donor_share"] == [1.0]
    assert len(set(two.sources)) == 2
    assert sum(two.parameters["donor_share"]) == pytest.approx(1, abs=1e-4)
    assert min(two.parameters["donor_share"]) > 0.02
    assert all(0 < value < 10 for value in two.parameters["donor_distance"])
    assert one.parameters["redrawn"] == 0
    assert all(low > 0 for low, _ in two.parameters["jacobian"])


def test_the_nearest_donor_is_the_nearest() -> None:
    model = toy_deform(n=8)
    fitted = anatomy.fit(model, Settings(donor="nearest"))
    found = fitted.draw(None, np.random.default_rng(3), {}, 0)
    z = fitted.codes.draw(None, np.random.default_rng(3), {}, 0).z
    distances = [fitted._distance(z, row) for row in range(8)]
    assert found.sources == (model.training.ids[int(np.argmin(distances))],)
    assert found.parameters["donor_distance"] == [pytest.approx(min(distances))]


def test_a_map_that_folds_is_drawn_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(seed=4)
    counter = iter([-1.0, -1.0])

    def folds_twice(u: torch.Tensor, mask: torch.Tensor) -> list[float]:
        return [next(counter, float(jacobian(u).min())), 1.0]

    monkeypatch.setattr(anatomy, "_extremes", folds_twice)
    again = draw(seed=4)
    assert again.parameters["redrawn"] == 2
    assert not np.array_equal(first.image, again.image)


def test_a_model_whose_maps_all_fold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anatomy, "_extremes", lambda u, mask: [-1.0, 1.0])
    with pytest.raises(ModelError, match="all fold") as caught:
        draw()
    assert "model.options.smooth" in str(caught.value.hint)


def test_the_determinants_that_are_checked_are_those_of_the_whole_map() -> None:
    """At a velocity that is far too large the composed map folds, and that is noticed."""
    model = toy_deform(n=8, size=3000.0)
    fitted = anatomy.fit(model, Settings())
    donor = _donors.load_donor(model, 0, 0, matched=False)
    (u,) = fitted._maps(model.latents.mean[1], [donor])
    assert anatomy._extremes(u, donor.mask_at(u))[0] <= 0


def test_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match="needs a model of the network 'deform', this one's is 'spatial'") as caught:
        generate.fit(toy_model(), AugmentSettings(sampler="anatomy"), seed=0)
    assert "model.name=deform" in str(caught.value.hint)
