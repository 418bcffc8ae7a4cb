"""Synthetic scans on the model's grid: draw, decode, outline, texture. Sample number i is the same in every set."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from medvae.errors import SettingsError
from medvae.plugins import suggest
from medvae.settings import configure
from medvae.synthesis import outline, texture
from medvae.synthesis.changes import Parts, changed
from medvae.synthesis.decoding import (
    conditions_of,
    decode,
    finish,
    is_binary,
    rows_of_training,
    typical_intensity,
)
from medvae.synthesis.draws import LatentDraw, space_of
from medvae.synthesis.pieces import all_in_one_piece, without_crumbs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Intensity
    from medvae.settings import AugmentSettings
    from medvae.synthesis.draws import ConditionValues, Draw, FittedSampler, Space
    from medvae.synthesis.outline import Outline
    from medvae.synthesis.texture import Texture

log = logging.getLogger(__name__)

_TEXTURE_SCANS = 16  # residuals of this many scans give the spectrum of all
_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly
Key = tuple[int, int]  # number of a sample, and of the attempt to draw it
_DRAW, _TEXTURE, _INTENSITY, _COPY, _CONDITIONS = range(5)  # random streams of one sample: one never shifts another


@dataclass(frozen=True, eq=False)
class Sample:
    """One synthetic scan on the model's grid, in prepared intensities.

    Attributes:
        index: its number in the set; seed, settings, model, this number and `attempt` give the same sample again.
        attempt: how many draws of this number were rejected before.
        label: its class, None without classes.
        conditions: what it was decoded with, by column; a value that is missing is not in it.
        image: float32 `(1, X, Y, Z)`, background outside the mask.
        mask: bool `(1, X, Y, Z)`, its foreground.
        label_map: int16 `(1, X, Y, Z)`; None where the sampler cannot provide one.
        z: the code it was decoded from; None for samplers that draw images.
        sources: ids of the training scans that it was derived from.
        parameters: what the sampler drew, as plain data.
        intensity: maps its values to those of a scan.
        intensity_from: id of the training scan that `intensity` is from; None where it is from none.
        changed: it was changed after it was drawn and decoded.
    """

    index: int
    attempt: int
    label: str | None
    conditions: ConditionValues
    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    label_map: NDArray[np.int16] | None = field(repr=False)
    z: NDArray[np.float32] | None = field(repr=False)
    sources: tuple[str, ...]
    parameters: dict[str, Any] = field(repr=False)
    intensity: Intensity
    intensity_from: str | None
    changed: bool = False


@dataclass(frozen=True, eq=False)
class Synthesizer:
    """Everything needed to generate sample number i, for any i, in any order.

    Attributes:
        model: the checkpoint.
        settings: of the samples.
        space: "latent" where draws are decoded, "image" where they are images.
        fitted: the sampler, fitted.
        weights: class -> wanted share of the samples.
        outline: foreground from a code; None where the model keeps no training scans.
        texture: residual noise; None if off, or where it cannot be measured.
        seed: of the set.
        in_one_piece: scans are binary shapes, each in one piece: so are samples.
    """

    model: Model = field(repr=False)
    settings: AugmentSettings
    space: Space
    fitted: FittedSampler = field(repr=False)
    weights: dict[str | None, float]
    outline: Outline | None = field(repr=False)
    texture: Texture | None = field(repr=False)
    seed: int
    in_one_piece: bool = False

    def sample(self, index: int, *, attempt: int = 0) -> Sample:
        """Sample number `index` (from 0): the same whatever the number of samples and their order.

        Args:
            index: of the sample.
            attempt: another one gives another draw of the same class.
        """
        (label, point), key = pick(self.weights, index), (index, attempt)
        start = np.random.default_rng(self.seed).random()  # sets of other seeds begin with other donors
        point = (point + start + attempt * _GOLDEN) % 1.0  # and another attempt has another one
        given = self._given(label, key)
        draw = self.fitted.draw(label, self._generator(key, _DRAW), given, point)
        conditions = self._with_fixed(given if draw.conditions is None else draw.conditions)
        parts, parameters = self._on_grid(draw, conditions, key), draw.parameters
        source, intensity = self._intensity(label, draw.sources, key)
        if draw.change is not None:
            parts, record = changed(parts, draw.change, intensity=intensity, model=self.model)
            parts, parameters = self._finished(parts), {**parameters, **record}
        return Sample(
            index=index,
            attempt=attempt,
            label=label,
            conditions=conditions,
            image=parts.image,
            mask=parts.mask,
            label_map=parts.label_map,
            z=draw.z if isinstance(draw, LatentDraw) else None,
            sources=draw.sources,
            parameters=parameters,
            intensity=intensity,
            intensity_from=source,
            changed=draw.change is not None,
        )

    def copies(self) -> Iterator[NDArray[np.float32]] | None:
        """Samples as they would be if they were copies: decoded draws of the posteriors of the kept training scans.

        Each is `(1, X, Y, Z)` in the scan's own foreground, with texture where samples have it. None where samples are
        not decoded.
        """
        return None if self.space == "image" else self._decoded_training()

    def _decoded_training(self) -> Iterator[NDArray[np.float32]]:
        latents = self.model.latents
        for row, at in enumerate(rows_of_training(self.model)):
            mask, mean = self.model.training.masks[row], latents.mean[at]
            noise = self._generator((row, 0), _COPY).standard_normal(mean.shape, dtype=np.float32)
            z = mean + np.exp(0.5 * latents.log_variance[at]) * noise
            decoded = decode(self.model, z, conditions_of(self.model, at))
            yield finish(self._textured(decoded, mask, (row, 0)), mask, self.model)

    def _on_grid(self, draw: Draw, conditions: ConditionValues, key: Key) -> Parts:
        """Values, foreground and label map of a draw."""
        if not isinstance(draw, LatentDraw):
            return self._finished(Parts(draw.image, draw.mask, draw.label_map))
        decoded = decode(self.model, draw.z, conditions)
        labels = self.model.decode_labels(draw.z, conditions=conditions)
        if self.outline is None:
            mask = np.ones_like(decoded[:1], bool)
        else:
            mask = self.outline.mask(draw.z, self.model.conditions.vector(conditions))
        inside = None if labels is None else np.where(mask, labels, np.int16(0))
        return self._finished(Parts(self._textured(decoded, mask, key), mask, inside))

    def _finished(self, parts: Parts) -> Parts:
        image = finish(parts.image, parts.mask, self.model)
        if self.in_one_piece:
            image = without_crumbs(image[0] > 0.5)[None].astype(np.float32)
        return replace(parts, image=image)

    def _textured(self, decoded: NDArray[np.float32], mask: NDArray[np.bool_], key: Key) -> NDArray[np.float32]:
        if self.texture is None:
            return decoded
        return decoded + self.texture.draw(decoded, mask, self._generator(key, _TEXTURE))

    def _given(self, label: str | None, key: Key) -> ConditionValues:
        """Conditions of a training scan of the class, and the fixed ones."""
        if not self.model.conditions.columns:
            return {}
        row = int(self._generator(key, _CONDITIONS).choice(self._rows_of(label)))
        return self._with_fixed(conditions_of(self.model, row))

    def _with_fixed(self, conditions: Mapping[str, float | str]) -> ConditionValues:
        """The conditions that the model is given, fixed ones instead of others; one fixed to None is missing."""
        values = {**conditions, **self.settings.conditions}
        known = {name: values.get(name) for name in self.model.conditions.names}
        return {name: value for name, value in known.items() if _is_known(value)}

    def _intensity(self, label: str | None, sources: tuple[str, ...], key: Key) -> tuple[str | None, Intensity]:
        """The scale of the first source, else of a training scan of the class, so that samples vary as scans do."""
        ids = list(self.model.training.ids)
        choices = [one for one in sources[:1] if one in ids] or self._kept_of(label) or ids
        if not choices:
            return None, typical_intensity(self.model)
        source = str(self._generator(key, _INTENSITY).choice(choices))
        return source, self.model.training.intensities[ids.index(source)]

    def _kept_of(self, label: str | None) -> list[str]:
        latents = self.model.latents
        members = {one for one, of in zip(latents.ids, latents.labels, strict=True) if of == label}
        return [one for one in self.model.training.ids if one in members]

    def _rows_of(self, label: str | None) -> list[int]:
        """Training scans of a class; all of them where there is none, as for samplers without classes."""
        labels = self.model.latents.labels
        return [row for row, one in enumerate(labels) if one == label] or list(range(len(labels)))

    def _generator(self, key: Key, stream: int) -> np.random.Generator:
        index, attempt = key
        again = (attempt,) if attempt else ()  # first draws have the key of a set without further attempts
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index, stream, *again)))


def fit(model: Model, settings: AugmentSettings, *, seed: int) -> Synthesizer:
    """Fit sampler, outline and texture to what the checkpoint holds of its training scans.

    Raises:
        SettingsError: an unknown sampler, option or condition, or a condition that cannot be fixed.
        ModelError: the checkpoint holds too little for this sampler.
    """
    module, options = configure("samplers", settings.sampler, settings.options)
    fitted: FittedSampler = module.fit(model, options)
    space = space_of(module, fitted)
    _check_fixed(model, settings, space)
    if space == "image":
        _tell_of_missing_classes(model)
    weights = {label: 1.0 if settings.classes == "balanced" else share for label, share in fitted.shares.items()}
    rows = rows_of_training(model) if space == "latent" else []
    edge = _fit_outline(model, rows) if rows else None
    noise = _fit_texture(model, rows) if settings.texture and rows and not is_binary(model) else None
    shapes = [one[0] > 0.5 for one in model.training.images] if is_binary(model) else []
    return Synthesizer(
        model=model,
        settings=settings,
        space=space,
        fitted=fitted,
        weights=weights,
        outline=edge,
        texture=noise,
        seed=seed,
        in_one_piece=bool(shapes) and all_in_one_piece(shapes),
    )


def pick(weights: Mapping[str | None, float], position: int) -> tuple[str | None, float]:
    """The class of the sample at a position, and its point in [0, 1) among those of the class.

    Every prefix of a set has nearly the wanted shares of the classes, and points that are spread nearly evenly.

    Multiples of the golden ratio, modulo 1, spread evenly over [0, 1) at every length (Weyl, 1916); unlike random picks
    they cannot leave a small class out by bad luck, and unlike quotas they do not depend on the number of samples.
    """
    point = (position + 0.5) * _GOLDEN % 1.0
    edges = np.concatenate([[0.0], np.cumsum(list(weights.values()))])
    edges /= edges[-1]
    found = min(int(np.searchsorted(edges, point, side="right")) - 1, len(weights) - 1)
    inside = (point - edges[found]) / (edges[found + 1] - edges[found])
    return list(weights)[found], float(min(max(inside, 0.0), np.nextafter(1.0, 0.0)))


def _is_known(value: float | str | None) -> TypeGuard[float | str]:
    """Whether it is a word or a finite number."""
    return isinstance(value, str) or (value is not None and math.isfinite(value))


def _check_fixed(model: Model, settings: AugmentSettings, space: Space) -> None:
    """Raise a SettingsError for fixed conditions (`augment.conditions`) that the samples cannot have."""
    columns = {one.name: one for one in model.conditions.columns}
    for name, value in settings.conditions.items():
        if name not in columns:
            hint = suggest(name, tuple(columns)) if columns else "train one with model.conditions, or leave it out"
            raise SettingsError(f"the model has no condition {name!r} (augment.conditions)", hint=hint)
        if value is not None and not columns[name].knows(value):
            choices = ", ".join(columns[name].words) or "numbers"
            message = f"condition {name!r} is {value!r} (augment.conditions), the model was trained with {choices}"
            raise SettingsError(message, hint="correct it, or set it to null for a missing value")
    if settings.conditions and space == "image":
        message = f"the sampler {settings.sampler!r} alters real scans, whose conditions cannot be changed"
        raise SettingsError(message, hint="leave out augment.conditions, or set augment.sampler=density")


def _tell_of_missing_classes(model: Model) -> None:
    """Warn of classes without a kept training scan: samples are made of kept ones."""
    labels = model.latents.labels
    missing = set(labels) - {labels[row] for row in rows_of_training(model)}
    if missing:
        names = ", ".join(sorted("without a label" if one is None else one for one in missing))
        log.warning("the model keeps no training scan of these classes, so that they get no samples: %s", names)


def _fit_outline(model: Model, rows: list[int]) -> Outline:
    conditions = np.stack([model.conditions.vector(conditions_of(model, row)) for row in rows])
    return outline.fit(model.latents.mean[rows], model.training.masks, conditions)


def _fit_texture(model: Model, rows: list[int]) -> Texture:
    chosen = np.unique(np.linspace(0, len(rows) - 1, _TEXTURE_SCANS).astype(int))
    known = []
    for row in chosen:
        decoded = decode(model, model.latents.mean[rows[row]], conditions_of(model, rows[row]))
        image = model.training.images[row].astype(np.float32)
        known.append((image, decoded, np.broadcast_to(model.training.masks[row], image.shape)))
    return texture.fit(known, spacing=model.preparation.grid.spacing)
