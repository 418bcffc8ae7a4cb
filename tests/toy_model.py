"""A model that was never trained: a linear decoder over smooth patterns, for tests of samplers and the audit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.model import Model
from medvae.prepare.intensity import fit as fit_intensity
from medvae.prepare.preparation import Intensity, Preparation
from medvae.settings import LikelihoodSettings, Settings
from medvae.vae.base import VAE, Posterior
from medvae.vae.conditions import Conditions
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.scan import Units

SHAPE = (16, 18, 14)
LATENT = (2, 3)  # of two axes: a code's shape has to be kept
NOISE = 0.3  # standard deviation of what the decoder cannot know


class LinearVAE(VAE):
    """Decodes a code to smooth patterns weighted by it; conditions weight the same patterns, turned round."""

    def __init__(self, patterns: NDArray[np.float32], *, family: str) -> None:
        super().__init__()
        self.register_buffer("patterns", torch.from_numpy(patterns))
        self.observation = build_observation(LikelihoodSettings(family=family))
        self.observation.freeze(NOISE**2)

    def encode(self, x: torch.Tensor, c: torch.Tensor | None = None) -> Posterior:
        """The code that explains an image best, by least squares over its foreground; without the conditions."""
        known = cast("torch.Tensor", self.patterns).flatten(1)
        codes = [torch.linalg.lstsq(known[:, one != 0].T, one[one != 0, None]).solution for one in x.flatten(1)]
        mean = torch.stack(codes).view(-1, *LATENT)
        return Posterior(mean, torch.full_like(mean, float(np.log(0.02))))

    def render(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        known = cast("torch.Tensor", self.patterns)
        mean = torch.einsum("bk,kxyz->bxyz", z.flatten(1), known)
        if c is not None:
            mean = mean + torch.einsum("bk,kxyz->bxyz", c, known.flip(1, 2, 3)[: c.shape[1]])
        return (8 * mean - 2 if self.observation.binary else mean)[:, None]


def patterns() -> NDArray[np.float32]:
    """Six smooth patterns `(6, X, Y, Z)` of unit size."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    return np.stack([np.cos(np.pi * (k + 1) * grid[k % 3] / 2 + k) for k in range(6)]).astype(np.float32)


def toy_model(
    *,
    n: int = 24,
    labels: tuple[str | None, ...] = (None,),
    keep: int | None = None,
    label_maps: bool = False,
    prepare: dict[str, Any] | None = None,
    conditions: tuple[str, ...] = (),
) -> Model:
    """A model with `n` training scans of as many subjects, whose classes go round `labels`.

    `conditions` may be of age (missing in one scan) and sex.

    Classes differ in the first dimension of the code. The first `keep` scans are kept as images: what the decoder
    gives plus noise that it cannot know, in ellipsoids whose size goes with the second dimension of the code.
    """
    steps = {"modality": "MR", "shape": SHAPE, "spacing": (2, 2, 3), **(prepare or {})}
    family = "bernoulli" if steps["modality"] == "SHAPE" else "gaussian"
    settings = Settings.model_validate({"prepare": steps, "likelihood": {"family": family}})
    latents, vae = _latents(n, labels), LinearVAE(patterns(), family=family)
    known = Conditions.fit(conditions, latents.conditions)
    nothing = TrainingScans(np.zeros((0, 1, *SHAPE), np.float16), np.zeros((0, 1, *SHAPE), bool), None, [], [])
    model = Model({"vae": vae}, Preparation(settings.prepare), settings, latents, nothing, "toy", known)
    return replace(model, training=_training(model, keep=n if keep is None else keep, label_maps=label_maps))


def ellipsoid(code: NDArray[np.float32]) -> NDArray[np.bool_]:
    """A foreground `(1, X, Y, Z)`, larger for a larger second dimension of the code."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    inside: NDArray[np.bool_] = np.square(grid).sum(axis=0) < (0.75 + 0.05 * code[0, 1]) ** 2
    return inside[None]


def _latents(n: int, labels: tuple[str | None, ...]) -> Latents:
    mean = np.random.default_rng(0).normal(size=(n, *LATENT)).astype(np.float32)
    classes = [labels[i % len(labels)] for i in range(n)]
    mean[:, 0, 0] += [3.0 * labels.index(one) for one in classes]
    ids, subjects, hashes = ([f"{kind}-{i:02d}" for i in range(n)] for kind in ("scan", "subject", "hash"))
    people = [{"age": 20.0 + 2 * i, "sex": "FM"[i // 2 % 2]} for i in range(n)]
    people[-1].pop("age")
    return Latents(mean, np.full(mean.shape, np.log(0.02), np.float32), ids, subjects, classes, hashes, people)


def _training(model: Model, *, keep: int, label_maps: bool) -> TrainingScans:
    rng = np.random.default_rng(1)
    latents, steps = model.latents, model.settings.prepare
    scales = [_intensity(model.settings, i) for i in range(keep)]
    images, masks = np.zeros((keep, 1, *SHAPE), np.float16), np.zeros((keep, 1, *SHAPE), bool)
    for i in range(keep):
        with torch.inference_mode():
            c = model.condition(latents.conditions[i])
            decoded = model.vae.decode(torch.from_numpy(latents.mean[i : i + 1]), c).mean[0].numpy()
        noisy = decoded > 0.5 if steps.modality == "SHAPE" else decoded + NOISE * rng.normal(size=decoded.shape)
        masks[i] = block() if steps.foreground == "whole" else ellipsoid(latents.mean[i])
        images[i] = np.where(masks[i], np.clip(noisy, scales[i].low, scales[i].high), scales[i].background)
    units: Units = "HU" if steps.modality == "CT" else "a.u."
    labels = (images > 0).astype(np.int16) if label_maps else None
    return TrainingScans(images, masks, labels, scales, latents.ids[:keep], units)


def block() -> NDArray[np.bool_]:
    """A field of view that fills a part of the grid, `(1, X, Y, Z)`."""
    inside = np.zeros((1, *SHAPE), bool)
    inside[:, 2:, 1:, :-3] = True
    return inside


def _intensity(settings: Settings, index: int) -> Intensity:
    if settings.prepare.intensity != "robust_z":
        return fit_intensity(np.zeros(1, np.float32), np.ones(1, bool), settings=settings.prepare)
    return Intensity(offset=1000.0 + 10 * index, scale=100.0, low=-10, high=10)
