"""Generative, then classical: samples of another sampler with random warps and contrast changes, labels included."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from medvae.errors import SettingsError
from medvae.settings import Frozen, RandomizeSettings, configure
from medvae.synthesis.draws import Change, new_label_values, space_of
from medvae.vae.networks.deform import Deform

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import Draw, FittedSampler, Space

_CHANGES = ("classical", "mix")  # samplers whose draws are changed already


class Settings(Frozen):
    """Options of this sampler."""

    of: str | None = Field(
        None, description="the other sampler; none: `anatomy` for the network `deform`, else `density`"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the other sampler")
    randomize: RandomizeSettings | None = Field(None, description="the random changes; none: those of the training run")


@dataclass(frozen=True, eq=False)
class Mix:
    """Draws of another sampler, to be changed as those of `classical` are (`synthesis.changes`).

    Sources, conditions and code are those of the draw: nothing of anyone else is added to it.

    Attributes:
        of: name of the other sampler.
        inner: the other sampler, fitted.
        space: whether that one's draws are codes or images.
        randomize: the random changes.
    """

    of: str
    inner: FittedSampler = field(repr=False)
    space: Space
    randomize: RandomizeSettings

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The shares of the other sampler."""
        return self.inner.shares

    @property
    def label_values(self) -> tuple[int, ...]:
        """Those of the other sampler."""
        return new_label_values(self.inner)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> Draw:
        """One draw of the other sampler, to be changed."""
        draw = self.inner.draw(label, generator, conditions, point)
        parameters = {"of": self.of, **draw.parameters}
        return replace(draw, parameters=parameters, change=Change.draw(generator, self.randomize))


def fit(model: Model, settings: Settings) -> Mix:
    """Fit the other sampler.

    Raises:
        SettingsError: there is no such sampler, it has other options, or it changes scans itself.
        ModelError: the model holds too little for it.
    """
    of = settings.of or ("anatomy" if isinstance(model.vae, Deform) else "density")
    if of in _CHANGES:
        message = f"the sampler 'mix' changes the draws of another one, and {of!r} changes its own"
        raise SettingsError(message, hint="set augment.options.of to one that does not, e.g. density or anatomy")
    module, options = configure("samplers", of, settings.options)
    inner: FittedSampler = module.fit(model, options)
    return Mix(of, inner, space_of(module, inner), settings.randomize or model.settings.train.randomize)
