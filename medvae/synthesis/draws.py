"""The contract of samplers: what a file in `samplers/` offers, and what it draws.

A sampler is one file. It offers `fit(model, settings) -> FittedSampler`, a class `Settings` if it has options, and
`SPACE = "image"` if it draws images instead of latent codes; where that depends on the options, the fitted sampler has
an attribute `space` with "image" or "latent". A fitted sampler that writes values into label maps which those of the
training scans need not have (new lesions) names them in an attribute `label_values`. The first line of its docstring is
its help text. Other packages add samplers through entry points of the group `medvae.samplers`.
`tests/test_laws_samplers.py` tests every sampler that is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from medvae.settings import RandomizeSettings

ConditionValues = dict[str, float | str]  # by column; a value that is missing is not in it
Space = Literal["latent", "image"]


@dataclass(frozen=True)
class Change:
    """A random classical change that a scan gets after it is drawn and decoded (`synthesis.changes`).

    Attributes:
        seed: repeats it.
        randomize: what may be changed, and how much.
    """

    seed: int
    randomize: RandomizeSettings

    @classmethod
    def draw(cls, generator: np.random.Generator, randomize: RandomizeSettings) -> Change:
        """A new one."""
        return cls(int(generator.integers(2**31)), randomize)


@dataclass(frozen=True, eq=False)
class LatentDraw:
    """A new latent code, still to be decoded.

    Attributes:
        z: float32, of the shape of one scan's latent.
        sources: ids of the training scans that it was derived from; empty where none had more influence than others.
        parameters: what was drawn and with which options, as plain data for the sidecar.
        conditions: of the training scan that it was derived from; None to use those given to `draw`.
        change: of the finished scan; None for none.
    """

    z: NDArray[np.float32] = field(repr=False)
    sources: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    conditions: ConditionValues | None = None
    change: Change | None = None


@dataclass(frozen=True, eq=False)
class ImageDraw:
    """A new image on the model's grid, in prepared intensities; it is not decoded.

    Attributes:
        image: float32 `(1, X, Y, Z)`.
        mask: bool `(1, X, Y, Z)`, its foreground.
        label_map: int16 `(1, X, Y, Z)`, transformed with the image; None where its source has none.
        sources: ids of the training scans that it was derived from.
        parameters: what was drawn and with which options, as plain data for the sidecar; of several sources also
            `donor_share`, the share of the image that is from each.
        conditions: of the training scan that it was derived from; None to use those given to `draw`.
        change: of the finished scan; None for none.
    """

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)
    sources: tuple[str, ...]
    parameters: dict[str, Any]
    conditions: ConditionValues | None = None
    change: Change | None = None


Draw = LatentDraw | ImageDraw


class FittedSampler(Protocol):
    """A sampler after `fit`.

    - The same label, conditions and point, and the same state of the generator, give the same draw.
    - A draw does not change the sampler.
    - A draw for a class uses no scan of another class, apart from what `fit` pooled over all classes.

    Attributes:
        shares: the classes that it can generate -> their share among the training scans; `{None: 1.0}` without classes.
    """

    @property
    def shares(self) -> Mapping[str | None, float]:
        """Class -> share."""
        ...

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> Draw:
        """One new sample.

        Args:
            label: a class in `shares`.
            generator: the only source of randomness.
            conditions: what the sample will be decoded with, by column (age, sex, ...), unless the draw has conditions
                of its own: those of a training scan of the class, and the values that the user has fixed
                (`augment.conditions`). Fixed values are used whatever the draw says.
            point: in [0, 1); those of the samples of a class are spread evenly, so that a sampler that takes its
                donors by them (`_shared.at_point`) takes each nearly as often.
        """
        ...


def space_of(module: object, fitted: FittedSampler) -> Space:
    """What a sampler draws: "latent" for codes, which are decoded, "image" for images.

    Args:
        module: of the sampler.
        fitted: what its `fit` gave; where it has an attribute `space`, that counts.
    """
    space: Space = getattr(fitted, "space", getattr(module, "SPACE", "latent"))
    return space


def new_label_values(fitted: FittedSampler) -> tuple[int, ...]:
    """The values that a sampler writes into label maps itself: its attribute `label_values`, none without one."""
    values: tuple[int, ...] = getattr(fitted, "label_values", ())
    return values
