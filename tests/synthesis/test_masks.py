"""Samples of a model whose training scans had masks: read again, they have the foreground that they were made with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_layouts import write_set
from toy_model import ellipsoid, toy_model

from medvae import find, plugins
from medvae.evaluation.synthetic_run import Reader, SyntheticRun
from medvae.settings import AugmentSettings, ReadSettings
from medvae.synthesis import generate

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model


def with_masks(foreground: str) -> Model:
    """Training scans of CT in the mask of an organ."""
    prepare = {"modality": "CT", "intensity": "window", "foreground": foreground}
    model = toy_model(n=8, label_maps=True, prepare=prepare)
    masks = np.stack([ellipsoid(code - [[0, 5, 0], [0, 0, 0]]) for code in model.latents.mean])
    images = np.where(masks, model.training.images, np.float16(model.training.intensities[0].background))
    return replace(model, training=replace(model.training, images=images, masks=masks))


@pytest.mark.parametrize(
    ("layout", "foreground"), [*((layout, "air") for layout in plugins.names("layouts")), ("medvae", "whole")]
)
def test_samples_have_the_masks_of_their_model(layout: str, foreground: str, tmp_path: Path) -> None:
    """No rule finds an organ: a sample was read with the foreground of a body, or with none."""
    model = with_masks(foreground)
    rows = write_set(tmp_path, layout, model=model, reject=False)
    run = SyntheticRun(tmp_path, {}, tuple(find(tmp_path / "labels.csv")), frozenset())
    read = Reader(model.preparation, ReadSettings()).samples(run)
    synthesizer = generate.fit(model, AugmentSettings(sampler="classical"), seed=0)
    samples = [synthesizer.sample(row.index, attempt=row.attempt) for row in rows]
    assert np.array_equal(read.masks, np.stack([one.mask for one in samples]))


@pytest.mark.parametrize("layout", ["medvae", "monai"])
def test_datalists_name_masks(layout: str, tmp_path: Path) -> None:
    write_set(tmp_path, layout, model=with_masks("air"), reject=False)
    refs = find(tmp_path / "dataset.json")
    assert all(ref.mask is not None and ref.mask.is_file() for ref in refs)


@pytest.mark.parametrize("foreground", ["nonzero", "whole"])
def test_what_the_rule_finds_needs_no_mask(foreground: str, tmp_path: Path) -> None:
    write_set(tmp_path, "medvae", model=toy_model(n=8, prepare={"foreground": foreground}))
    assert not (tmp_path / "masks").exists()
    assert "mask" not in (tmp_path / "labels.csv").read_text("utf-8").partition("\n")[0].split(",")
