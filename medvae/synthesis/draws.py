"""Samplers: one file a way to make new scans out of what a model remembers of its training scans.

A sampler offers `fit(model, settings) -> Fitted`, `Settings` where it has options, and `SPACE = "image"` where it draws
images instead of codes. What is fitted draws one sample
at a time from one generator, so that a sample depends on nothing but its own seed. The first line of the file's
docstring is its help text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LatentDraw:
    """A new latent code, still to be decoded.

    Attributes:
        z: float32, of the shape of one scan's latent.
        sources: ids of the training scans it was made from; empty where it owes no more to one than to another.
        parameters: what was drawn and with which options, as plain data for the sidecar.
    """

    z: NDArray[np.float32] = field(repr=False)
    sources: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ImageDraw:
    """A new image on the model's grid, in prepared intensities; the decoder has no part in it.

    Attributes:
        image: float32 `(1, X, Y, Z)`.
        mask: bool `(1, X, Y, Z)`, its foreground.
        label_map: int16 `(1, X, Y, Z)`, moved along with the image; None where its source has none.
        sources: ids of the training scans it was made from.
        parameters: what was drawn and with which options, as plain data for the sidecar.
    """

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)
    sources: tuple[str, ...]
    parameters: dict[str, Any]


Draw = LatentDraw | ImageDraw


class Fitted(Protocol):
    """A sampler that has seen the training scans.

    - The same label and the same state of the generator give the same draw.
    - A draw changes nothing in the sampler.
    - A draw for a class uses no scan of another class, but for what `fit` pooled over all.

    Attributes:
        shares: the classes that it can make -> their share among the training scans; `{None: 1.0}` without classes.
    """

    @property
    def shares(self) -> Mapping[str | None, float]:
        """Class -> share."""
        ...

    def draw(self, label: str | None, generator: np.random.Generator) -> Draw:
        """One new sample of a class in `shares`."""
        ...
