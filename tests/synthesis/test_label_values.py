"""Label values of a set: lists name all that samples hold, those of new lesions included, and none are merged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from made_layouts import nnunet_set, tree, write_set
from toy_lesion import toy_lesion

from medvae.checkpoint.lesion_codes import LESION_CODES, lesion_codes
from medvae.errors import InputError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, provenance
from medvae.synthesis.synthesize import make_layout

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model

OF_LESIONS = [("lesion", {}), ("mix", {"of": "lesion"})]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "synthetic"


def model_with(*, lesion: int, kept: tuple[int, ...] = ()) -> Model:
    """Lesions have the value `lesion`, which no kept label map has; those have `kept` at the edges, or are all 0."""
    toy = toy_lesion(known=False)
    maps = np.zeros(toy.training.masks.shape, np.int16)
    for at, value in enumerate(kept):
        maps[:, :, 4 * at : 4 * at + 4] = value
    codes = replace(lesion_codes(toy), labels=(lesion,))
    return replace(toy, training=replace(toy.training, label_maps=maps), sets={LESION_CODES: codes.to_set()})


def written(out: Path) -> set[int]:
    """The values in all label maps of a set."""
    return {int(v) for path in out.rglob("labelsTr/*") for v in np.unique(np.asarray(nib.load(path).dataobj))}


@pytest.mark.parametrize(("sampler", "options"), OF_LESIONS)
def test_lesions_have_a_name_where_no_kept_scan_has_some(sampler: str, options: dict[str, str], out: Path) -> None:
    names = {1: "lesion"}
    model = model_with(lesion=1)
    write_set(out, "nnunet", model=model, sampler=sampler, options=options, reject=False, label_names=names)
    assert tree(out / "dataset.json")["labels"] == {"background": 0, "lesion": 1}
    assert written(out) == {0, 1}


def test_lesions_are_not_merged_with_another_label(out: Path) -> None:
    """2 is in no kept label map, and lies between those that are."""
    write_set(out, "nnunet", model=model_with(lesion=2, kept=(1, 3)), sampler="lesion", reject=False)
    assert tree(out / "dataset.json")["labels"] == {"background": 0, "1": 1, "2": 2, "3": 3}
    assert written(out) == {0, 1, 2, 3}


def test_lesions_that_a_real_set_does_not_name_are_refused(out: Path, tmp_path: Path) -> None:
    real = nnunet_set(tmp_path / "real", ["a"], labels={"background": 0, "organ": 5})
    with pytest.raises(InputError, match=r"the samples have the labels \[1\], which the real set does not name"):
        write_set(out, "nnunet", model=model_with(lesion=1), sampler="lesion", merge_with=real)


def test_label_maps_are_written_where_only_the_sampler_makes_them(out: Path) -> None:
    settings = AugmentSettings(sampler="lesion", reject=False)
    synthesizer = generate.fit(toy_lesion(), settings, seed=0)
    assert synthesizer.model.training.label_maps is None
    assert synthesizer.sample(0).label_map is not None
    assert provenance.no_label_maps(synthesizer) is None
    assert make_layout(synthesizer).label_values == (0, 1)


def test_a_value_without_a_number_is_not_taken_for_another_one() -> None:
    """A sampler of another package may write values that it does not declare."""
    layout = make_layout(generate.fit(model_with(lesion=2, kept=(1, 3)), nnunet(), seed=0))
    known = np.array([[[0, 1, 2, 3]]], np.int16)
    np.testing.assert_array_equal(layout.labels(known), known)
    for value in (-1, 4, 7):
        with pytest.raises(ValueError, match=rf"\[{value}\]"):
            layout.labels(np.array([[[0, value]]], np.int16))


def nnunet() -> AugmentSettings:
    return AugmentSettings(sampler="lesion", layout="nnunet", reject=False)
