"""`medvae train --lesions` learns lesions with the settings of a configuration that learns them already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from medvae.cli import commands
from medvae.cli.parser import make_parser

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("config", "more", "steps", "sampler"),
    [
        ("base: brain-mri-t1", (), 600, "lesion"),
        ("base: brain-mri-t1", ("--set", "lesions.steps=3"), 3, "lesion"),
        ("base: brain-mri-lesions\nlesions: {steps: 3000}\naugment: {sampler: mix}", (), 3000, "mix"),
    ],
)
def test_its_own_settings_stay(config: str, more: tuple[str, ...], steps: int, sampler: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(config, "utf-8")
    words = ["train", str(tmp_path), "--config", str(path), "--out", "model", "--lesions", *more]
    found = commands._settings(make_parser().parse_args(words))
    assert (found.lesions.steps, found.augment.sampler) == (steps, sampler)
