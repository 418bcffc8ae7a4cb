"""The sampler `lesion`: new lesions in scans without, where the mask says, and an error for a model without lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage
from toy_lesion import CHANGE, toy_lesion
from toy_model import toy_model

from medvae.errors import ModelError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.samplers import lesion
from medvae.synthesis.samplers.lesion import Settings
from medvae.synthesis.synthesize import with_screen

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import ImageDraw


def draw(model: Model, *, seed: int = 0, label: str | None = None, **options: object) -> ImageDraw:
    fitted = lesion.fit(model, Settings.model_validate(options))
    return fitted.draw(label, np.random.default_rng(seed), {}, 0)


def change_of(found: ImageDraw, model: Model) -> np.ndarray:
    row = list(model.training.ids).index(found.sources[0])
    return found.image - model.training.images[row].astype(np.float32)


def test_the_mask_is_where_the_image_was_changed() -> None:
    model = toy_lesion(label_maps=True)
    for seed in range(6):
        found = draw(model, seed=seed)
        assert found.label_map is not None
        mask, change = found.label_map[0] == 1, change_of(found, model)[0]
        assert mask.any()
        assert set(np.unique(found.label_map)) == {0, 1}
        assert change[mask].mean() == pytest.approx(CHANGE, abs=0.3)
        assert not change[~ndimage.binary_dilation(mask)].any()
        assert np.abs(change[~mask]).mean() < 0.1 * np.abs(change[mask]).mean()
        assert (mask <= found.mask[0]).all(), "a lesion lies in tissue"


def test_donors_are_scans_without_lesions_and_are_named() -> None:
    model = toy_lesion(label_maps=True)
    free = {name for row, name in enumerate(model.training.ids) if row % 4 < 2}
    for seed in range(8):
        found = draw(model, seed=seed)
        assert len(found.sources) == 1
        assert set(found.sources) <= free
        assert found.parameters["donor_lesion_voxels"] == 0


def test_lesions_that_a_donor_has_stay_and_new_ones_do_not_touch_them() -> None:
    model = toy_lesion(label_maps=True, n=2, keep=2)
    assert model.training.label_maps is not None
    model.training.label_maps[:] = 0
    model.training.label_maps[:, 0, 7:9, 8:10, 3] = 1
    found = draw(model)
    assert found.label_map is not None
    assert (found.label_map[0, 7:9, 8:10, 3] == 1).all()
    pieces = ndimage.label(found.label_map[0], np.ones((3, 3, 3)))[1]
    assert pieces == 1 + len(found.parameters["lesions"])


def test_the_number_of_lesions_is_that_of_training_scans() -> None:
    model = toy_lesion(label_maps=True, counts=(2, 2))
    found = draw(model)
    assert len(found.parameters["lesions"]) + found.parameters["without_place"] == 2
    one = found.parameters["lesions"][0]
    assert one["ml"] == pytest.approx(4 / 3 * np.pi * 4**3 / 1000, rel=0.6)
    assert one["nearest"].startswith("scan-")


def test_aligned_lesions_lie_where_training_lesions_do() -> None:
    """Those of the toy lie around (6, 0, 0) mm and, the brain being symmetric, (−6, 0, 0)."""
    model = toy_lesion(label_maps=True, counts=(1, 1))
    fitted = lesion.fit(model, Settings())
    fitted.codes.places[:] = [6.0, 0.0, 0.0]
    aligned = type(fitted.places)(fitted.codes, fitted.places.grid, aligned=True)
    host = lesion.Host.of(
        model.training.images[0, 0].astype(np.float32), model.training.masks[0, 0], np.zeros((16, 18, 14), bool)
    )
    rng = np.random.default_rng(0)
    drawn = np.stack([aligned._draw(host, rng)[1] for _ in range(300)])
    assert np.abs(drawn[:, 0]).mean() == pytest.approx(6, abs=1)
    assert (drawn[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.1)
    assert drawn[:, 1:].std() == pytest.approx(4, rel=0.15), "the least bandwidth"


@pytest.mark.parametrize(("sign", "signs"), [("brighter", {1}), ("darker", {-1}), ("either", {-1, 1})])
def test_masks_alone_have_a_change_from_the_prior(sign: str, signs: set[int]) -> None:
    model = toy_lesion(known=False, label_maps=True)
    assert model.training.label_maps is not None
    model.training.label_maps[:] = 0
    changes = []
    for seed in range(12):
        found = draw(model, seed=seed, sign=sign, change=(1.0, 2.0))
        assert found.parameters["intensity"] == "prior"
        changes += [one["change"] for one in found.parameters["lesions"]]
    assert {int(np.sign(one)) for one in changes} == signs
    assert 0.6 < np.abs(changes).min() < np.abs(changes).max() < 2.6


def test_a_model_that_has_learned_no_lesions_says_so() -> None:
    with pytest.raises(ModelError, match="learned no lesions") as found:
        generate.fit(toy_model(), AugmentSettings(sampler="lesion"), seed=0)
    assert found.value.hint is not None
    assert "lesions.steps" in found.value.hint


def test_samples_are_plausible_and_their_donor_is_the_nearest_scan() -> None:
    """They are declared as altered scans: no draw is rejected for being near its donor."""
    model = toy_lesion(label_maps=True, counts=(1, 1))
    assert model.training.label_maps is not None
    model.training.label_maps[:] = 0  # no training scan that is kept has this label
    synthetic = with_screen(generate.fit(model, AugmentSettings(sampler="lesion"), seed=0))
    sample = synthetic.synthesizer.sample(0)
    check = synthetic.screen.check(sample.image, sample.mask, sample.z)
    assert check.image is not None
    assert check.image.id == sample.sources[0]
    assert synthetic.scan(0).sample.attempt == 0
