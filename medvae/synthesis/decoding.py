"""From a latent code to an image on the model's grid, with the values and the background of prepared scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from medvae.prepare import intensity
from medvae.prepare.preparation import Intensity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model


def is_binary(model: Model) -> bool:
    """Whether the model is for binary shapes."""
    return model.vae.observation.binary


def decode(model: Model, z: NDArray[np.float32], conditions: Mapping[str, float | str]) -> NDArray[np.float32]:
    """Mean of p(x|z, c) for one code, float32 `(1, X, Y, Z)`, prepared intensities (a probability for binary shapes).

    One code at a time: a batch of another size may round differently.
    """
    with torch.inference_mode():
        likelihood = model.vae.decode(torch.from_numpy(z)[None].to(model.device), model.condition(conditions))
        mean: NDArray[np.float32] = likelihood.mean.squeeze(0).float().cpu().numpy()
    return mean


def finish(values: NDArray[np.float32], mask: NDArray[np.bool_], model: Model) -> NDArray[np.float32]:
    """What preparation does to every real scan: values in its range (0 or 1 for binary shapes), background outside."""
    limits = typical_intensity(model)
    inside = (values > 0.5).astype(np.float32) if is_binary(model) else np.clip(values, limits.low, limits.high)
    return np.where(mask, inside, np.float32(limits.background))


def typical_intensity(model: Model) -> Intensity:
    """Range and background, the same for all scans; offset and scale are 0 and 1 where each scan has its own."""
    settings = model.preparation.settings
    if settings.intensity == "robust_z":
        return Intensity(low=-intensity.CLIP, high=intensity.CLIP)
    return intensity.fit(np.zeros(1, np.float32), np.ones(1, bool), settings=settings)


def rows_of_training(model: Model) -> list[int]:
    """Rows of `model.latents` for the training scans that are kept as images."""
    row_of = {one: row for row, one in enumerate(model.latents.ids)}
    return [row_of[one] for one in model.training.ids]


def conditions_of(model: Model, row: int) -> Mapping[str, float | str]:
    """Conditions of the training scan in a row of `model.latents`, as far as the model knows such values."""
    return model.conditions.known(model.latents.conditions[row]) if model.latents.conditions else {}
