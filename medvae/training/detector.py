"""Fitting a detector: the scans of the training with simulated anomalies, and where these are; and with coarse noise.

As in `fit`, all that is random follows from the seed and counters, so that a training that was stopped and resumed ends
with the same weights on the CPU. A time budget is turned into a plan of steps, as for the VAE (`plan`).
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from medvae.detector.corruption import corrupt
from medvae.detector.features import Usual, features
from medvae.detector.network import build
from medvae.detector.noise import coarse_noise
from medvae.detector.tasks import TASKS
from medvae.prepare import intensity
from medvae.prepare.preparation import Preparation
from medvae.run.work import Progress, ignore
from medvae.settings import PrepareSettings, RandomizeSettings
from medvae.training import state
from medvae.training.batches import ahead
from medvae.training.learner import TrainingError
from medvae.training.losses import rate_at
from medvae.training.plan import Budget, Plan
from medvae.training.randomize import Randomize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.detector.corruption import Corrupted
    from medvae.detector.network import Detector
    from medvae.detector.shapes import Box
    from medvae.prepare.preparation import Prepared
    from medvae.scan import Geometry
    from medvae.settings import Settings
    from medvae.training.store import Scans

_STREAM = 6  # of the seed, beside those of the VAE
_ANOMALIES = (2, 8)  # per scan, the second one not reached
_ON_ANOMALY = 0.85  # how often a patch is put over an anomaly
_OVER = 0.3  # target of the voxels that it is put over
_SCALED_AGAIN = 0.5  # how often intensities are fitted to the scan with its anomalies, as preparation would
_WEIGHT = 2.0  # of what is anomalous in the loss: most voxels are usual
_WARMUP, _CLIP = 0.1, 1.0
_TIMED = 4  # steps that are timed before a time budget is turned into a plan
_EVERY = 100  # steps between two states on disk
_OF = 200  # training scans that the features compare with
# Stronger than for the VAE: other scanners have other contrasts, fields, noise and slices.
_RANDOMIZE = RandomizeSettings(spatial=1.0, rotate=6, scale=0.06, shift=3, gamma=0.5, bias=0.6, blur=0.3, noise=0.3)
_THICK, _THICK_VOXELS = 0.25, (0.8, 1.5)  # how often slices are thick, and the σ across them


@dataclass(frozen=True, eq=False)
class Patches:
    """A batch for the detector.

    Attributes:
        shown: features, float32 `(B, F, x, y, z)`.
        target: 0 to 1, `(B, 1, x, y, z)`.
        emphasis: how much a voxel of an anomaly counts, the same shape; 0 where there is none.
        mask: bool, the foreground.
        noisy: the same patches of the scan without anomalies, with coarse noise; the same shape, 0 outside the
            foreground.
        noise: the coarse noise, also outside the foreground.
    """

    shown: Tensor = field(repr=False)
    target: Tensor = field(repr=False)
    emphasis: Tensor = field(repr=False)
    mask: Tensor = field(repr=False)
    noisy: Tensor = field(repr=False)
    noise: Tensor = field(repr=False)


def fit_detector(
    training: Scans,
    settings: Settings,
    *,
    fabric: Fabric,
    folder: Path,
    resume: bool,
    on_progress: Callable[[Progress], None] = ignore,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Detector | None, Plan | None]:
    """Train a detector, and say which plan of steps it followed; None where the settings want none.

    Args:
        training: healthy scans; a VAE may learn from them as well.
        settings: of the run.
        fabric: device and precision.
        folder: where its state is kept, in `last/`.
        resume: go on from there.
        on_progress: called after each step, with the stage "detector".
        clock: seconds; what a time budget is measured with.

    Raises:
        TrainingError: the loss is not a number.
        SettingsError: fewer steps than are done, or another plan than the one that was followed.
    """
    begun = clock()
    preparation, wanted = Preparation(settings.prepare), settings.detector
    if not wanted.steps:
        return None, None
    grid = preparation.grid
    net = build(wanted.channels, grid, aligned=preparation.aligned, seed=settings.seed)
    usual = _usual(training, grid) if preparation.aligned else None
    if usual is not None:
        net.compare_with(usual)
    optimizer = torch.optim.AdamW(net.parameters(), lr=wanted.lr, weight_decay=1e-4)
    wrapped, wrapped_optimizer = fabric.setup(net, optimizer)
    before = state.load_detector(folder, net, optimizer) if resume else None  # now that the weights are on the device
    source = _Source(training, settings, grid, usual)
    run = _Run(wrapped, wrapped_optimizer, (net.finder, net.denoiser), source, settings, fabric=fabric)
    step, spent = (0, 0.0) if before is None else (before.step, before.seconds)
    plan, budget = _begin(run, before, settings, clock=clock, begun=begun)
    with closing(ahead(run.batch, range(step, plan.total if budget is None else sys.maxsize))) as batches:
        while step < plan.total:
            loss = run.step(next(batches), progress=plan.progress(step), share=plan.share(step))
            step += 1
            if budget is not None:
                plan = budget.corrected(plan, step, agreed=fabric.broadcast)
            on_progress(Progress("detector", step, plan.total, f"loss {loss:.3f}"))
            if step % _EVERY and step < plan.total:
                continue
            if fabric.is_global_zero:
                seconds = spent if budget is None else budget.spent
                facts = state.DetectorFacts(step, plan.changes, seconds, settings.train.minutes)
                state.save_detector(folder, net, optimizer, facts)
            if budget is not None:
                budget.validation_done()
    return net.eval().requires_grad_(requires_grad=False), plan


def for_vae(settings: Settings) -> Settings:
    """The settings with the share of the time budget that is left for the VAE."""
    minutes, detector = settings.train.minutes, settings.detector
    if minutes is None or not detector.steps:
        return settings
    left = settings.train.model_copy(update={"minutes": minutes * (1 - detector.share)})
    return settings.model_copy(update={"train": left})


def _usual(training: Scans, grid: Geometry) -> Usual:
    seen = (training[index] for index in range(min(len(training), _OF)))
    return Usual.of_scans(((one.image[0], one.mask[0]) for one in seen), grid)


def _begin(
    run: _Run, before: state.DetectorFacts | None, settings: Settings, *, clock: Callable[[], float], begun: float
) -> tuple[Plan, Budget | None]:
    """The plan to begin or to go on with, and the time budget that corrects it, if there is one."""
    minutes, wanted = settings.train.minutes, settings.detector
    known = None if before is None else Plan(before.plan)
    step, seconds, earlier = (0, 0.0, None) if before is None else (before.step, before.seconds, before.minutes)
    if wanted.plan or minutes is None:
        return Plan.given(wanted, section="detector", known=known, step=step), None
    if known is not None and step >= known.total and earlier is not None and minutes <= earlier:
        return known, None
    budget = Budget(60 * minutes * wanted.share, clock=clock, validate_every=_EVERY, spent=seconds + clock() - begun)
    budget.begin(run.seconds_per_step(clock), batch=wanted.batch, validated=0, at_end=0)
    return budget.plan(known, step, agreed=run.fabric.broadcast), budget


class _Run:
    """The network that is trained, its parts, and what it is trained with."""

    def __init__(
        self,
        net: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        parts: Sequence[torch.nn.Module],
        source: _Source,
        settings: Settings,
        *,
        fabric: Fabric,
    ) -> None:
        self.net, self.optimizer, self.parts, self.source = net, optimizer, parts, source
        self.wanted, self.fabric = settings.detector, fabric

    def batch(self, step: int) -> Patches:
        """The batch of a step for this process."""
        return self.source.patches(step * self.fabric.world_size + self.fabric.global_rank)

    def step(self, patches: Patches, *, progress: float, share: float) -> float:
        """One step of the optimiser; returns the loss.

        Raises:
            TrainingError: it is not a number.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.wanted.lr * rate_at(progress, step=share, warmup=_WARMUP)
        loss = self.gradients(patches)
        for part in self.parts:  # separately: large gradients of one must not shrink those of the other
            torch.nn.utils.clip_grad_norm_(part.parameters(), _CLIP)
        self.optimizer.step()
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError("the loss of the detector is not a number", hint="lower detector.lr")
        return value

    def gradients(self, patches: Patches) -> Tensor:
        """Forward and backward pass; no weight changes."""
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        shown, target, emphasis, mask, noisy, noise = (
            one.to(self.fabric.device, non_blocking=True)
            for one in (patches.shown, patches.target, patches.emphasis, patches.mask, patches.noisy, patches.noise)
        )
        odds, change = (output[mask].float() for output in self.net(shown, noisy))
        target = target[mask]
        weight = 1 + _WEIGHT * target * emphasis[mask]
        loss = F.binary_cross_entropy_with_logits(odds, target, weight=weight) + F.mse_loss(change, -noise[mask])
        self.fabric.backward(loss)
        return loss.detach()

    def seconds_per_step(self, clock: Callable[[], float]) -> float:
        """Measured on a few passes that change nothing; the first one does not count."""
        buffers = {name: value.clone() for name, value in self.net.named_buffers()}
        marks = []
        with closing(ahead(self.batch, range(_TIMED + 1))) as batches:
            for patches in batches:
                self.gradients(patches).item()
                marks.append(clock())
        self.optimizer.zero_grad(set_to_none=True)
        for name, value in self.net.named_buffers():
            value.copy_(buffers[name])
        return max(1e-9, (marks[-1] - marks[0]) / _TIMED)


@dataclass(frozen=True, eq=False)
class _Source:
    """Where patches come from."""

    scans: Scans
    settings: Settings
    grid: Geometry
    usual: Usual | None

    def patches(self, number: int) -> Patches:
        """Patches of one scan with anomalies, and with noise; all that is random follows from seed and number."""
        rng = np.random.default_rng([self.settings.seed, _STREAM, number])
        mine, other = (int(i) for i in rng.choice(len(self.scans), 2, replace=len(self.scans) < 2))
        clean, mask = self._randomized(self.scans[mine], rng)
        donor = self.scans[other]
        made = corrupt(
            clean,
            mask,
            donor=np.where(donor.mask[0], donor.image[0], np.percentile(donor.image[donor.mask], 0.5)),
            tasks=list(TASKS),
            count=int(rng.integers(*_ANOMALIES)),
            spacing=self.grid.spacing,
            rng=rng,
        )
        again = rng.random() < _SCALED_AGAIN and self.settings.prepare.intensity == "robust_z"
        image = _scaled(made.image, mask) if again else made.image
        boxes = [self._box(made, mask, rng) for _ in range(self.settings.detector.batch)]
        shown = [features(image, mask, grid=self.grid, usual=self.usual, box=box) for box in boxes]
        noise = coarse_noise(clean, mask, spacing=self.grid.spacing, rng=rng)
        noisy = np.where(mask, clean + noise, np.float32(0))
        target, emphasis, inside, noisy_part, noise_part = (
            torch.from_numpy(np.stack([whole[box][None] for box in boxes]))
            for whole in (made.target, made.emphasis, mask, noisy, noise)
        )
        return Patches(torch.from_numpy(np.stack(shown)), target, emphasis, inside, noisy_part, noise_part)

    def _randomized(
        self, prepared: Prepared, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A scan as another scanner might have made it, `(X, Y, Z)`, and its foreground."""
        randomize = Randomize(_RANDOMIZE, self.grid.spacing)
        randomize.set_random_state(int(rng.integers(2**31)))
        floor = prepared.intensity.offset / prepared.intensity.scale
        example = randomize(torch.from_numpy(prepared.image), torch.from_numpy(prepared.mask), floor=floor)
        image, mask = example.image[0].numpy(), example.mask[0].numpy()
        if rng.random() < _THICK:
            sigma = [0.4, 0.4, 0.4]
            sigma[int(rng.integers(3))] = rng.uniform(*_THICK_VOXELS)
            image = np.where(mask, ndimage.gaussian_filter(image, sigma), image)
        return (_scaled(image, mask) if self.settings.prepare.intensity == "robust_z" else image), mask

    def _box(self, made: Corrupted, mask: NDArray[np.bool_], rng: np.random.Generator) -> Box:
        """Where a patch is cut out: mostly with an anomaly near its middle, small ones as often as large ones."""
        marked = made.target > _OVER
        if rng.random() < _ON_ANOMALY and marked.any():
            places, share = np.flatnonzero(marked), made.emphasis[marked] ** 2
            place = int(rng.choice(places, p=share / share.sum()))
        else:
            place = int(rng.choice(np.flatnonzero(mask)))
        centre = np.unravel_index(place, mask.shape)
        sizes = [min(size, n) for size, n in zip(self.settings.detector.patch, mask.shape, strict=True)]
        starts = [
            int(np.clip(c + rng.integers(-size // 3, size // 3 + 1) - size // 2, 0, n - size))
            for c, size, n in zip(centre, sizes, mask.shape, strict=True)
        ]
        x, y, z = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        return x, y, z


def _scaled(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intensities fitted again, as preparation does."""
    scale = intensity.fit(image, mask, settings=PrepareSettings(intensity="robust_z"))
    return np.where(mask, scale.apply(image), np.float32(scale.background))
