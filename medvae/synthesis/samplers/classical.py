"""Training scans with small random warps and contrast changes (MONAI transforms), label maps included."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from medvae.prepare.grid import box_around
from medvae.prepare.native import only_channel
from medvae.settings import Frozen, RandomizeSettings
from medvae.synthesis.draws import ImageDraw
from medvae.synthesis.samplers import _shared
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.checkpoint.kept import TrainingScans
    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import ConditionValues


SPACE = "image"
Part = tuple[slice, slice, slice, slice]
EVERYTHING: Part = (slice(None),) * 4


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
        whole: scans are used as a whole: their edge is that of the field of view, which does not move.
    """

    training: TrainingScans = field(repr=False)
    labels: tuple[str | None, ...]
    conditions: tuple[ConditionValues, ...] = field(repr=False)
    randomize: RandomizeSettings
    spacing: tuple[float, float, float]
    whole: bool

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
        part = field_of_view(scans.masks[row]) if self.whole else EVERYTHING
        chain = Randomize(self.randomize, self.spacing).set_random_state(seed)
        scale = scans.intensities[row]
        example = chain(
            torch.from_numpy(scans.images[row][part].astype("float32")),
            torch.from_numpy(scans.masks[row][part]),
            label_map=None if scans.label_maps is None else torch.from_numpy(scans.label_maps[row][part]),
            floor=scale.offset / scale.scale,
        )
        shape = scans.masks[row].shape
        return ImageDraw(
            _on_grid(example.image, part, shape, fill=scale.background),
            _on_grid(example.mask, part, shape, fill=False),
            None if example.label_map is None else _on_grid(example.label_map, part, shape, fill=0),
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
        whole=model.preparation.settings.foreground == "whole",
    )


def field_of_view(mask: NDArray[np.bool_]) -> Part:
    """The box that a mask `(1, X, Y, Z)` fills; everything where it is another shape: then it is an outline of tissue.

    A scan that is used as a whole has no background that could move into it. What would come from beyond its edge is
    taken from the edge, and the edge stays where it is: otherwise a turned box lies in wedges of a value that means
    nothing.
    """
    box = (slice(None), *box_around(only_channel(mask)))
    return box if mask[box].all() else EVERYTHING


def _on_grid(cut: Tensor, part: Part, shape: tuple[int, ...], *, fill: float) -> NDArray[Any]:
    """What was cut out of the model's grid, back in its place."""
    values = cut.numpy()
    whole = np.full(shape, fill, values.dtype)
    whole[part] = values
    return whole
