"""Training scans with small random warps and contrast changes (MONAI transforms), label maps included."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from medvae.settings import Frozen, RandomizeSettings
from medvae.synthesis.decoding import rows_of_training
from medvae.synthesis.draws import Change, ImageDraw
from medvae.synthesis.samplers import _shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from medvae.checkpoint.kept import TrainingScans
    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import ConditionValues


SPACE = "image"


class Settings(Frozen):
    """Options of this sampler."""

    randomize: RandomizeSettings | None = Field(
        None, description="the random changes; none: those of the training run, with a warp of every scan"
    )


@dataclass(frozen=True, eq=False)
class Classical:
    """A change of one kept training scan (`synthesis.changes`); those of the class are used nearly equally often.

    Attributes:
        training: the kept training scans.
        labels: class of each.
        conditions: of each.
        shares: the classes that are kept, with their shares of all training scans.
        randomize: the random changes.
    """

    training: TrainingScans = field(repr=False)
    labels: tuple[str | None, ...]
    conditions: tuple[ConditionValues, ...] = field(repr=False)
    shares: Mapping[str | None, float]
    randomize: RandomizeSettings

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> ImageDraw:
        """One training scan of the class, to be changed."""
        scans = self.training
        row = _shared.at_point(_shared.rows(self.labels)[label], point)
        return ImageDraw(
            scans.images[row].astype("float32"),
            scans.masks[row],
            None if scans.label_maps is None else scans.label_maps[row],
            sources=(scans.ids[row],),
            parameters={},
            conditions=self.conditions[row],
            change=Change.draw(generator, self.randomize),
        )


def fit(model: Model, settings: Settings) -> Classical:
    """Keep the training scans.

    Raises:
        ModelError: the model keeps none (`train.keep_scans` was 0).
    """
    _shared.require(len(model.training.ids), least=1, sampler="classical", what="training scans as images")
    rows = rows_of_training(model)
    labels = tuple(model.latents.labels[row] for row in rows)
    return Classical(
        training=model.training,
        labels=labels,
        conditions=tuple(_shared.conditions(model.latents, row) for row in rows),
        shares=_shared.shares_of_kept(model.latents, labels),
        randomize=settings.randomize or _always_warped(model.settings.train.randomize),
    )


def _always_warped(randomize: RandomizeSettings) -> RandomizeSettings:
    """The changes of a training, without its unchanged scans: a training sees scans again, a sample is to be a new one.

    Where the training does not warp at all, this does not either.
    """
    return randomize.model_copy(update={"spatial": 1.0 if randomize.spatial else 0.0})
