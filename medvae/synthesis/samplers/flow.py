"""Codes from a rectified flow in the directions in which scans differ most, as far as held-out scans favour it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medvae.settings import Frozen
from medvae.synthesis.samplers import _shared
from medvae.synthesis.samplers._span import Span, fit_span, part
from medvae.synthesis.samplers._velocity import Choice, Points, Velocity, choose, train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.kept import Latents
    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import LatentDraw

Classes = dict[str | None, "NDArray[np.float32]"]
_FOLDS = 5
_LEAST = 10  # scans beside one per class
_LEAST_OF_CLASS = 20  # scans that a class needs for a condition of its own
_PER_DIRECTION = 5  # scans
_SEED = 0  # of weights and examples: the flow depends on the codes only


class Settings(Frozen):
    """Options of this sampler."""

    directions: int = Field(
        16, ge=1, description="most directions that the flow learns; the others are Gaussian, as in density"
    )
    spread: float = Field(1.0, gt=0, description="factor on the standard deviation; below 1 is closer to the average")


@dataclass(frozen=True, eq=False)
class Flow:
    """Points of the span from N(0, I) by a velocity field; in all other directions the Gaussian of `density`.

    Attributes:
        span: the directions that the flow has learned.
        velocity: the field.
        classes: class -> one-hot vector `(c,)`; zeros for a class of few scans, which has the flow of all classes.
        choice: directions and training steps.
    """

    span: Span = field(repr=False)
    velocity: Velocity = field(repr=False)
    classes: Classes
    choice: Choice

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes of the training scans."""
        return self.span.density.shares

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> LatentDraw:
        """One code of a class."""
        start = generator.standard_normal(len(self.span.drawn), dtype=np.float32)
        draw = self.span.draw(label, self.velocity.flow(start, self.classes[label]), generator)
        parameters = {f"flow_{name}": value for name, value in asdict(self.choice).items()}
        return replace(draw, parameters=draw.parameters | parameters)


def fit(model: Model, settings: Settings) -> Flow:
    """Train the velocity field, by cross-validation over subjects.

    Raises:
        ModelError: too few training scans or subjects.
    """
    latents = model.latents
    rows = _shared.rows(latents.labels)
    _shared.require(len(latents.ids), least=len(rows) + _LEAST, sampler="flow")
    _shared.require(len(set(latents.subjects)), least=_FOLDS, sampler="flow", what="training subjects")
    large = [label for label, members in rows.items() if len(members) >= _LEAST_OF_CLASS and len(rows) > 1]
    classes = {label: np.array([label == one for one in large], np.float32) for label in rows}
    most = min(settings.directions, len(latents.ids) // _PER_DIRECTION)
    choice = choose(_held_out(latents, classes, most), seed=_SEED)
    span = fit_span(latents, sampler="flow", spread=settings.spread, most=choice.directions)
    points = _known(span, latents, np.arange(len(latents.ids)), classes)
    return Flow(span, train(points, choice, seed=_SEED), classes, choice)


def _held_out(latents: Latents, classes: Classes, most: int) -> list[tuple[Points, Points]]:
    """Training and held-out scans in the span of the training scans, the scans of a subject on one side.

    Held-out scans are in the scale of draws, in which the flow is to end; those of a class that has no training scan
    are left out.
    """
    classes_of = dict(zip(latents.subjects, latents.labels, strict=True))
    order = {subject: i % _FOLDS for i, subject in enumerate(sorted(classes_of, key=lambda one: str(classes_of[one])))}
    fold = np.array([order[subject] for subject in latents.subjects])
    trained = [np.flatnonzero(fold != one) for one in range(_FOLDS)]
    spans = [fit_span(part(latents, rows), sampler="flow", spread=1, most=most) for rows in trained]
    count = min(len(one.drawn) for one in spans)
    pairs = []
    for i, (whole, rows) in enumerate(zip(spans, trained, strict=True)):
        span = whole.leading(count)
        out = [row for row in np.flatnonzero(fold == i).tolist() if latents.labels[row] in span.density.means]
        if out:
            held = _points(span, latents, np.array(out), classes, scale=span.drawn)
            pairs.append((_known(span, latents, rows, classes), held))
    what = "training scans of classes with several subjects"
    _shared.require(sum(len(held.mean) for _, held in pairs), least=_LEAST, sampler="flow", what=what)
    return pairs


def _known(span: Span, latents: Latents, rows: NDArray[np.intp], classes: Classes) -> Points:
    """Scans to train on: those that are not alone in their class, each as far from its mean as a new scan would be.

    The distance to a mean that a scan is a part of is too small, by √(1 − 1/n) on average for n scans.
    """
    size = np.array([len(span.density.rows[latents.labels[row]]) for row in rows], np.float32)
    points = _points(span, latents, rows[size > 1], classes, scale=span.seen)
    part_of = np.sqrt(1 - 1 / size[size > 1])[:, None]
    return replace(points, mean=np.asarray(points.mean / part_of, np.float32))


def _points(
    span: Span,
    latents: Latents,
    rows: NDArray[np.intp],
    classes: Classes,
    *,
    scale: NDArray[np.float32],
) -> Points:
    chosen = np.stack([classes[latents.labels[row]] for row in rows])
    return Points(span.points(latents, rows, scale=scale), span.noise(latents, rows, scale=scale), chosen)
