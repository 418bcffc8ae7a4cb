"""Another package that adds a sampler: one file, found through an entry point. Written into a folder of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "crossover"

SOURCE = '''"""Codes of two training scans of one class, crossed over: each dimension is from one of them."""

from dataclasses import dataclass

import numpy as np

from medvae.errors import ModelError
from medvae.settings import Frozen
from medvae.synthesis.draws import LatentDraw


class Settings(Frozen):
    """Options."""

    share: float = 0.5


@dataclass(frozen=True)
class Crossover:
    """Half from one scan, half from another."""

    latents: object
    share: float

    @property
    def shares(self):
        """Classes."""
        labels = list(self.latents.labels)
        return {label: labels.count(label) / len(labels) for label in dict.fromkeys(labels)}

    def draw(self, label, generator, conditions, point):
        """One code."""
        rows = [row for row, one in enumerate(self.latents.labels) if one == label]
        a, b = generator.choice(rows, 2)
        first = generator.random(self.latents.mean[a].shape) < self.share
        z = np.where(first, self.latents.mean[a], self.latents.mean[b])
        sources = (self.latents.ids[a], self.latents.ids[b])
        return LatentDraw(z.astype(np.float32), sources, {"share": self.share}, dict(self.latents.conditions[a]))


def fit(model, settings):
    """Keep the codes."""
    if len(model.latents.ids) < 2:
        raise ModelError(f"the sampler 'crossover' needs at least 2 training scans")
    return Crossover(model.latents, settings.share)
'''


def install(folder: Path, source: str = SOURCE) -> None:
    """A package as pip leaves it: the module, and metadata with an entry point."""
    (folder / "crossover_of_others.py").write_text(source, "utf-8")
    metadata = folder / "crossover_of_others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: crossover-of-others\nVersion: 1.0\n", "utf-8")
    (metadata / "entry_points.txt").write_text(f"[medvae.samplers]\n{NAME} = crossover_of_others\n", "utf-8")
