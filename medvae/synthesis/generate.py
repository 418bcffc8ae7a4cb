"""From a draw to a synthetic scan: decode, outline, texture, and back to the units and the grid of real scans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from medvae.prepare import intensity
from medvae.prepare.preparation import Intensity
from medvae.scan import Geometry
from medvae.settings import configure
from medvae.synthesis import outline, texture
from medvae.synthesis.draws import LatentDraw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.settings import AugmentSettings
    from medvae.synthesis.draws import Fitted
    from medvae.synthesis.outline import Outline
    from medvae.synthesis.texture import Texture

_TEXTURE_SCANS = 16  # residuals of so many scans give the spectrum of all
_DRAW, _TEXTURE, _INTENSITY, _COPY = range(4)  # streams of one sample's generator: one never shifts another


@dataclass(frozen=True, eq=False)
class Sample:
    """One synthetic scan on the model's grid, in prepared intensities.

    Attributes:
        index: its number in the set; with seed, settings and model it gives the same sample again.
        label: its class, None without classes.
        image: float32 `(1, X, Y, Z)`, background outside the mask.
        mask: bool `(1, X, Y, Z)`, its foreground.
        label_map: int16 `(1, X, Y, Z)`, or None where the sampler cannot make one.
        z: the code it was decoded from; None for samplers that work on images.
        sources: ids of the training scans it was made from.
        parameters: what the sampler drew, as plain data.
        intensity: how its values become real ones.
        intensity_of: id of the training scan whose scale that is; None where it is no one's.
    """

    index: int
    label: str | None
    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)
    z: NDArray[np.float32] | None = field(repr=False)
    sources: tuple[str, ...]
    parameters: dict[str, Any] = field(repr=False)
    intensity: Intensity
    intensity_of: str | None


@dataclass(frozen=True, eq=False)
class Synthesis:
    """All that is needed to make sample number i, for any i, in any order.

    Attributes:
        model: the checkpoint.
        settings: of the samples.
        space: "latent" where draws are decoded, "image" where they are images.
        fitted: the sampler, fitted.
        weights: class -> wanted share of the samples.
        outline: foreground from a code; None where the model keeps no training scans.
        texture: residual noise; None if off, or where there is none to measure.
        seed: of the set.
    """

    model: Model = field(repr=False)
    settings: AugmentSettings
    space: Literal["latent", "image"]
    fitted: Fitted = field(repr=False)
    weights: dict[str | None, float]
    outline: Outline | None = field(repr=False)
    texture: Texture | None = field(repr=False)
    seed: int

    def sample(self, index: int) -> Sample:
        """Sample number `index` (from 0): the same whatever the number of samples and their order."""
        label = pick(self.weights, index)
        draw = self.fitted.draw(label, self._generator(index, _DRAW))
        if isinstance(draw, LatentDraw):
            values, mask = self._decoded(draw.z, index)
            z, label_map = draw.z, None
        else:
            values, mask, z, label_map = draw.image, draw.mask, None, draw.label_map
        image = finish(values, mask, self.model)
        of, intensity = self._intensity(label, draw.sources, index)
        return Sample(index, label, image, mask, label_map, z, draw.sources, draw.parameters, intensity, of)

    def copies(self) -> Iterator[NDArray[np.float32]] | None:
        """What samples would be if they were copies: draws of the kept training scans' posteriors, `(1, X, Y, Z)` each.

        In its own foreground, with texture where samples have it; None where samples are images, not decoded.
        """
        return None if self.space == "image" else self._decoded_training()

    def _decoded_training(self) -> Iterator[NDArray[np.float32]]:
        for row, at in enumerate(_rows_of_training(self.model)):
            mask, latents = self.model.training.masks[row], self.model.latents
            noise = self._generator(row, _COPY).standard_normal(latents.mean[at].shape, dtype=np.float32)
            decoded = decode(self.model, latents.mean[at] + np.exp(0.5 * latents.log_variance[at]) * noise)
            if self.texture is not None:
                decoded = decoded + self.texture.draw(decoded, mask[0], self._generator(row, _TEXTURE))
            yield finish(decoded[None], mask, self.model)

    def _decoded(self, z: NDArray[np.float32], index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        decoded = decode(self.model, z)
        mask = np.ones((1, *decoded.shape), bool) if self.outline is None else self.outline.mask(z)
        if self.texture is not None:
            decoded = decoded + self.texture.draw(decoded, mask[0], self._generator(index, _TEXTURE))
        return decoded[None], mask

    def _intensity(self, label: str | None, sources: tuple[str, ...], index: int) -> tuple[str | None, Intensity]:
        """The scale of the first source, else of a training scan of the class: real sets vary in it, so do these."""
        ids = list(self.model.training.ids)
        choices = [one for one in sources[:1] if one in ids] or self._kept_of(label) or ids
        if not choices:
            return None, typical_intensity(self.model)
        of = str(self._generator(index, _INTENSITY).choice(choices))
        return of, self.model.training.intensities[ids.index(of)]

    def _kept_of(self, label: str | None) -> list[str]:
        latents = self.model.latents
        members = {one for one, of in zip(latents.ids, latents.labels, strict=True) if of == label}
        return [one for one in self.model.training.ids if one in members]

    def _generator(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index, stream)))


@dataclass(frozen=True, eq=False)
class Voxels:
    """A synthetic scan as it is written.

    Attributes:
        data: `(X, Y, Z)`: int16 for HU, uint8 for binary shapes, else float32.
        label_map: int16 of the same shape, or None.
        geometry: a real one, the model's grid or a part of it.
    """

    data: NDArray[np.float32] | NDArray[np.integer] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)
    geometry: Geometry


def fit(model: Model, settings: AugmentSettings, *, seed: int) -> Synthesis:
    """Fit sampler, outline and texture to what the checkpoint remembers of its training scans.

    Raises:
        SettingsError: an unknown sampler or option.
        ModelError: the checkpoint remembers too little for this sampler.
    """
    module, options = configure("samplers", settings.sampler, settings.options)
    fitted: Fitted = module.fit(model, options)
    weights = {label: 1.0 if settings.classes == "balanced" else share for label, share in fitted.shares.items()}
    space: Literal["latent", "image"] = getattr(module, "SPACE", "latent")
    rows = _rows_of_training(model) if space == "latent" else []
    edge = outline.fit(model.latents.mean[rows], model.training.masks) if rows else None
    noise = _fit_texture(model, rows) if settings.texture and rows and not is_binary(model) else None
    return Synthesis(model, settings, space, fitted, weights, edge, noise, seed)


def decode(model: Model, z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of p(x|z) for one code, float32 `(X, Y, Z)`, prepared intensities (a probability for binary shapes).

    One code at a time: a batch of another size may round differently.
    """
    with torch.inference_mode():
        likelihood = model.vae.decode(torch.from_numpy(z)[None].to(model.device))
        mean: NDArray[np.float32] = likelihood.mean[0, 0].float().cpu().numpy()
    return mean


def finish(values: NDArray[np.float32], mask: NDArray[np.bool_], model: Model) -> NDArray[np.float32]:
    """What preparation does to every real scan: values in its range (0 or 1 for binary shapes), background outside."""
    limits = typical_intensity(model)
    inside = (values > 0.5).astype(np.float32) if is_binary(model) else np.clip(values, limits.low, limits.high)
    return np.where(mask, inside, np.float32(limits.background))


def typical_intensity(model: Model) -> Intensity:
    """Range and background that all scans share; offset and scale are no one's where each scan has its own."""
    settings = model.preparation.settings
    if settings.intensity == "robust_z":
        return Intensity(low=-intensity.CLIP, high=intensity.CLIP)
    return intensity.fit(np.zeros(1, np.float32), np.ones(1, bool), settings=settings)


def pick(weights: Mapping[str | None, float], position: int) -> str | None:
    """The class of the sample at a position, so that every prefix of a set has nearly the wanted shares.

    Multiples of the golden ratio, modulo 1, spread evenly over [0, 1) at every length (Weyl, 1916); unlike random picks
    they cannot leave a small class out by bad luck, and unlike quotas they do not depend on how many are asked for.
    """
    point = (position + 0.5) * 0.6180339887498949 % 1.0
    edges = np.cumsum(list(weights.values()))
    found = int(np.searchsorted(edges / edges[-1], point, side="right"))
    return list(weights)[min(found, len(weights) - 1)]


def is_binary(model: Model) -> bool:
    """Whether the model is for binary shapes."""
    return model.settings.likelihood.family == "bernoulli"


def to_voxels(sample: Sample, model: Model) -> Voxels:
    """A sample in the units of real scans.

    Background is what it is in real scans: 0 around a stripped organ, air in CT. Where scans count as a whole, they are
    blocks on the model's grid, and so is the sample: it is cut to its foreground's box.
    """
    settings = model.preparation.settings
    data = _real(sample, model)
    label_map = None if sample.label_map is None else sample.label_map[0]
    geometry = model.preparation.grid
    if settings.foreground != "whole" or not sample.mask.any():
        return Voxels(data, label_map, geometry)
    box = [np.flatnonzero(sample.mask[0].any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    part = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in box)
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world([one.start for one in part])
    shape = tuple(one.stop - one.start for one in part)
    cut = Geometry((shape[0], shape[1], shape[2]), affine)
    return Voxels(data[part], None if label_map is None else label_map[part], cut)


def _real(sample: Sample, model: Model) -> NDArray[np.float32] | NDArray[np.integer]:
    if is_binary(model):
        shape: NDArray[np.uint8] = sample.image[0].astype(np.uint8)
        return shape
    settings = model.preparation.settings
    values = sample.intensity.invert(sample.image[0])
    if settings.modality == "CT":
        hounsfield: NDArray[np.int16] = np.rint(values).astype(np.int16)
        return hounsfield
    if settings.modality in ("MR", "PT") and model.training.ids:
        values = np.maximum(values, 0)  # magnitudes and activities are not negative; noise may fall below 0
    if settings.foreground == "nonzero":
        values = np.where(sample.mask[0], values, 0)
    real: NDArray[np.float32] = values.astype(np.float32)
    return real


def _fit_texture(model: Model, rows: list[int]) -> Texture:
    chosen = np.unique(np.linspace(0, len(rows) - 1, _TEXTURE_SCANS).astype(int))
    pairs = []
    for row in chosen:
        decoded = decode(model, model.latents.mean[rows[row]])
        pairs.append((model.training.images[row, 0].astype(np.float32), decoded, model.training.masks[row, 0]))
    return texture.fit(pairs, spacing=model.preparation.grid.spacing)


def _rows_of_training(model: Model) -> list[int]:
    """Rows of `model.latents` for the training scans that are kept as images."""
    at = {one: row for row, one in enumerate(model.latents.ids)}
    return [at[one] for one in model.training.ids]
