"""Codes on the line through two training scans of one class and different subjects, also slightly beyond them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.settings import Frozen
from medvae.synthesis.draws import LatentDraw
from medvae.synthesis.samplers import _shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.kept import Latents
    from medvae.checkpoint.model import Model


class Settings(Frozen):
    """Options of this sampler."""

    reach: float = Field(0.25, ge=0, le=1, description="how far beyond the two scans, as a share of their distance")
    keep_variance: bool = Field(
        True, description="rescale codes, as an average of two is nearer to the mean than either"
    )


@dataclass(frozen=True, eq=False)
class Interpolate:
    """z = m + ((1−t)·(a−m) + t·(b−m)) / c, with t even in [−reach, 1+reach] and m the mean of the class.

    c = √((1−t)² + t²) keeps the variance of independent codes; with c = 1 it would fall to a half at t = ½, and samples
    would look like the average.
    """

    latents: Latents = field(repr=False)
    rows: _shared.Rows = field(repr=False)
    means: dict[str | None, NDArray[np.float32]] = field(repr=False)
    reach: float
    keep_variance: bool

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes of the training scans."""
        return _shared.shares(self.latents.labels)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> LatentDraw:
        """One code between, or slightly beyond, two training scans of the class; conditions of the nearer one."""
        rows, subjects = self.rows[label], self.latents.subjects
        first = _shared.at_point(rows, point)
        others = [int(row) for row in rows if subjects[row] != subjects[first]]
        second = int(generator.choice(others))
        t = float(generator.uniform(-self.reach, 1 + self.reach))
        shrink = float(np.hypot(1 - t, t)) if self.keep_variance else 1.0
        middle = self.means[label]
        a, b = self.latents.mean[first] - middle, self.latents.mean[second] - middle
        z = middle + ((1 - t) * a + t * b) / shrink
        sources = (self.latents.ids[first], self.latents.ids[second])
        nearer = _shared.conditions(self.latents, first if t < 0.5 else second)
        return LatentDraw(z.astype(np.float32), sources, {"t": t, "divided_by": shrink}, nearer)


def fit(model: Model, settings: Settings) -> Interpolate:
    """Keep the codes of the training scans and the mean of each class.

    Raises:
        ModelError: a class has fewer than two subjects.
    """
    latents = model.latents
    _shared.require(len(latents.ids), least=2, sampler="interpolate")
    rows = _shared.rows(latents.labels)
    for label, members in rows.items():
        subjects = len({latents.subjects[row] for row in members})
        of_class = "subjects" if label is None else f"subjects of class {label!r}"
        _shared.require(subjects, least=2, sampler="interpolate", what=of_class)
    means = {label: latents.mean[members].mean(axis=0) for label, members in rows.items()}
    return Interpolate(latents, rows, means, settings.reach, settings.keep_variance)
