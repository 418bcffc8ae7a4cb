"""A VAE that can be worked out by hand: a linear decoder over orthonormal patterns, its exact posterior as encoder.

x = W z + σ ε with W'W = I·w²: the posterior is diagonal, so that the ELBO is the evidence. Tests of maps, inference and
calibration share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy import ndimage

from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.reference import with_reference
from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.model import Model, weights_hash
from medvae.detector.network import Detector
from medvae.prepare.preparation import Intensity, Preparation, Prepared
from medvae.settings import LikelihoodSettings, Settings
from medvae.vae.base import VAE, Posterior
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (12, 10, 8)
UNITS = 3
SIGMA = 0.25
WEIGHT = 6.0  # length of a pattern: a code of 1 moves the image by this much in all


class Linear(VAE):
    """The network; `(B, UNITS)` latent, foreground everywhere on the grid."""

    stride: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.observation = build_observation(LikelihoodSettings())
        self.observation.log_scale.fill_(np.log(SIGMA))
        self.register_buffer("patterns", torch.from_numpy(patterns()))

    @property
    def w(self) -> torch.Tensor:
        return cast("torch.Tensor", self.patterns).flatten(1)

    def encode(self, x: torch.Tensor, c: torch.Tensor | None = None) -> Posterior:
        precision = 1 + WEIGHT**2 / SIGMA**2
        mean = (x.flatten(1) @ self.w.T) / SIGMA**2 / precision
        return Posterior(mean, torch.full_like(mean, -np.log(precision)))

    def render(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return (z @ self.w).view(-1, 1, *SHAPE)

    def latent_shape(self, grid: Any) -> tuple[int, ...]:
        return (UNITS,)


class Marks(Detector):
    """A detector that marks what is far from 0, and takes all that deviates from the mean of its part for noise."""

    def log_odds(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where(mask[0], 3 * np.abs(image[0]) - 3, np.float32(0))

    def change(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where(mask, ndimage.uniform_filter(image, (0, 3, 3, 3)) - image, np.float32(0))


def patterns() -> NDArray[np.float32]:
    """Smooth orthogonal patterns `(UNITS, *SHAPE)`, each of length WEIGHT."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    made = np.stack([np.cos(2 * grid[k] + k) for k in range(UNITS)]).reshape(UNITS, -1)
    basis = np.linalg.qr(made.T)[0].T
    return (WEIGHT * basis).reshape(UNITS, *SHAPE).astype(np.float32)


def scan(index: int, *, lesion: float = 0.0, hole: bool = True) -> Prepared:
    """A healthy scan that the model describes exactly, or one with a bright block; a corner is not foreground."""
    rng = np.random.default_rng(index)
    image = np.tensordot(rng.normal(size=UNITS).astype(np.float32), patterns(), 1)
    image = (image + SIGMA * rng.normal(size=SHAPE)).astype(np.float32)
    image[LESION] += lesion
    mask = np.ones(SHAPE, bool)
    if hole:
        mask[:3, :3] = False
    image[~mask] = 0
    preparation = Preparation(settings().prepare)
    return Prepared(
        id=f"scan-{index}",
        subject=f"subject-{index}",
        image=image[None],
        mask=mask[None],
        fov=np.ones_like(mask)[None],
        to_input=np.eye(4),
        grid=preparation.grid,
        input=preparation.grid,
        intensity=Intensity(offset=0.0, scale=1.0, low=-10.0, high=10.0),
        source_hash=f"hash-{index}",
    )


LESION = (slice(6, 9), slice(5, 8), slice(3, 6))


def settings(*, aligned: bool = True) -> Settings:
    steps = {"modality": "MR", "shape": SHAPE, "spacing": (2, 2, 3), "align": "mni152" if aligned else "none"}
    return Settings.model_validate({"prepare": steps, "detect": {"draws": 4}})


def bare_model(*, aligned: bool = True) -> Model:
    """The model without any Reference."""
    vae, chosen = Linear().eval(), settings(aligned=aligned)
    preparation = Preparation(chosen.prepare)
    networks = {"vae": vae, "detector": Marks((2, 4), preparation.grid, aligned=aligned).eval()}
    nothing = np.zeros((0, UNITS), np.float32)
    images = np.zeros((0, 1, *SHAPE), np.float16)
    return Model(
        networks=networks,
        preparation=preparation,
        settings=chosen,
        latents=Latents(nothing, nothing, [], [], [], []),
        training=TrainingScans(images, images.astype(bool), None, [], []),
        hash=weights_hash(networks),
    )


def healthy(count: int = 8, *, start: int = 100) -> list[Prepared]:
    return [scan(start + i) for i in range(count)]


def known_model(names: tuple[str, ...] | None = None, *, aligned: bool = True, **changes: Any) -> Model:
    """The model with a Reference from healthy scans, uncalibrated as after training."""
    model = bare_model(aligned=aligned)
    detect = model.settings.detect.model_copy(update=changes)
    reference = make_reference(model, healthy(), names=names, calibrated=False, detect=detect)
    return with_reference(model, reference)
