"""Random classical changes of a scan on the model's grid: one warp of image, mask and label map, then the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medvae.prepare.grid import box_around
from medvae.prepare.native import only_channel
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.checkpoint.model import Model
    from medvae.prepare.intensity import Intensity
    from medvae.synthesis.draws import Change

Part = tuple[slice, slice, slice, slice]
EVERYTHING: Part = (slice(None),) * 4


@dataclass(frozen=True, eq=False)
class Parts:
    """What a scan on the model's grid consists of.

    Attributes:
        image: float32 `(1, X, Y, Z)`, prepared intensities.
        mask: bool, the same shape, its foreground.
        label_map: int16, the same shape, or None.
    """

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)


def changed(parts: Parts, change: Change, *, intensity: Intensity, model: Model) -> tuple[Parts, dict[str, Any]]:
    """A scan after a change, and what was drawn, as plain data; its seed repeats the change.

    Args:
        parts: of the scan, background outside the mask.
        change: what to do.
        intensity: says at which value there is no signal: fields and gammas act on what a scanner measured.
        model: its grid, and whether scans are used as a whole: their edge is that of the field of view, which does not
            move.
    """
    whole, shape = model.preparation.settings.foreground == "whole", parts.mask.shape
    part = field_of_view(parts.mask) if whole else EVERYTHING
    chain = Randomize(change.randomize, model.preparation.grid.spacing).set_random_state(change.seed)
    example = chain(
        torch.from_numpy(parts.image[part]),
        torch.from_numpy(parts.mask[part]),
        label_map=None if parts.label_map is None else torch.from_numpy(parts.label_map[part]),
        floor=intensity.offset / intensity.scale,
    )
    after = Parts(
        _on_grid(example.image, part, shape, fill=intensity.background),
        _on_grid(example.mask, part, shape, fill=False),
        None if example.label_map is None else _on_grid(example.label_map, part, shape, fill=0),
    )
    return after, {"seed": change.seed, "randomize": change.randomize.model_dump(mode="json"), **example.record}


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
