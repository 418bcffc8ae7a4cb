"""Training scans with small random warps and contrast changes (MONAI transforms), label maps included."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from medvae.settings import Frozen, RandomizeSettings
from medvae.synthesis.draws import ImageDraw
from medvae.synthesis.samplers import _shared
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from medvae.checkpoint.kept import TrainingScans
    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import ConditionValues


SPACE = "image"


class Settings(Frozen):
    """Options of this sampler."""

    randomize: RandomizeSettings | None = Field(None, description="the random changes; none: those of the training run")


@dataclass(frozen=True, eq=False)
class Classical:
    """The chain of `medvae.training.randomize` on one kept training scan, drawn uniformly among those of the class.

    Attributes:
        training: the kept training scans.
        labels: class of each.
        conditions: of each.
        randomize: the random changes.
        spacing: voxel size of the model's grid, mm.
    """

    training: TrainingScans = field(repr=False)
    labels: tuple[str | None, ...]
    conditions: tuple[ConditionValues, ...] = field(repr=False)
    randomize: RandomizeSettings
    spacing: tuple[float, float, float]

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes of the training scans that are kept."""
        return _shared.shares(self.labels)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str]
    ) -> ImageDraw:
        """One altered training scan of the class; the seed in its parameters repeats the change."""
        scans = self.training
        row = int(generator.choice(_shared.rows(self.labels)[label]))
        seed = int(generator.integers(2**31))
        chain = Randomize(self.randomize, self.spacing).set_random_state(seed)
        scale = scans.intensities[row]
        example = chain(
            torch.from_numpy(scans.images[row].astype("float32")),
            torch.from_numpy(scans.masks[row]),
            label_map=None if scans.label_maps is None else torch.from_numpy(scans.label_maps[row]),
            floor=scale.offset / scale.scale,
        )
        return ImageDraw(
            example.image.numpy(),
            example.mask.numpy(),
            None if example.label_map is None else example.label_map.numpy(),
            sources=(scans.ids[row],),
            parameters={"seed": seed, "randomize": self.randomize.model_dump(mode="json"), **example.record},
            conditions=self.conditions[row],
        )


def fit(model: Model, settings: Settings) -> Classical:
    """Keep the training scans.

    Raises:
        ModelError: the model keeps none (`train.keep_scans` was 0).
    """
    training, latents = model.training, model.latents
    _shared.require(len(training.ids), least=1, sampler="classical", what="training scans as images")
    row_of = {one: row for row, one in enumerate(latents.ids)}
    rows = [row_of[one] for one in training.ids]
    return Classical(
        training=training,
        labels=tuple(latents.labels[row] for row in rows),
        conditions=tuple(_shared.conditions(latents, row) for row in rows),
        randomize=settings.randomize or model.settings.train.randomize,
        spacing=model.preparation.grid.spacing,
    )
