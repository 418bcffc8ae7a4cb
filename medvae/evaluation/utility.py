"""Utility: how well a small network does on held-out scans, trained on real scans with and without synthetic ones.

Every arm takes the same number of optimiser steps with the same batch size. Draws are paired: in one draw all arms
begin with the same weights and see the same real scans in the same order, as far as they see them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medvae.evaluation.classical import IMAGE, LABEL, classical
from medvae.evaluation.tasks import MULTIPLE
from medvae.prepare.grid import box_around
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medvae.evaluation.image_set import ImageSet
    from medvae.evaluation.plan import Arm, Plan
    from medvae.evaluation.tasks import Measure, Task


_NO_RISE = 10  # steps: the learning rate of so few only falls, as it cannot rise within one step


@dataclass(frozen=True, eq=False)
class Trial:
    """One arm in one draw.

    Attributes:
        arm: name.
        draw: number, from 0.
        measures: by name, on the test scans.
    """

    arm: str
    draw: int
    measures: Mapping[str, Measure] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Experiment:
    """All arms on one training set and one test set.

    Attributes:
        task: what is learned.
        real: training scans.
        test: scans of other subjects.
        extras: what arms have besides the real scans, by name; `duplicates` and `shuffled` follow from the others.
        plan: of each training.
        device: where networks are trained; scans are augmented on the CPU.
    """

    task: Task
    real: ImageSet = field(repr=False)
    test: ImageSet = field(repr=False)
    extras: Mapping[str, ImageSet] = field(repr=False)
    plan: Plan
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    def run(
        self, arms: Sequence[Arm], *, draws: Sequence[int], on_progress: Callable[[Progress], None] = ignore
    ) -> list[Trial]:
        """Train and test each arm in each draw.

        Args:
            arms: those whose extra scans are there.
            draws: numbers of the draws: seeds of the weights, the order and the augmentation.
            on_progress: called before the first, and after each training.
        """
        box = _box([self.real, self.test, *self.extras.values()])
        cut = partial(_images, box=box)
        test, images = self.test, [one.to(self.device) for one in cut(self.test)]
        trials: list[Trial] = []
        on_progress(Progress("utility", 0, len(arms) * len(draws)))
        for draw in draws:
            for arm in arms:
                network = self._train(arm, draw, box)
                with torch.inference_mode():
                    measures = self.task.measures(network, images, _cut(test, box))
                trials.append(Trial(arm.name, draw, measures))
                on_progress(Progress("utility", len(trials), len(arms) * len(draws), arm.name))
        return trials

    def _train(self, arm: Arm, draw: int, box: Box) -> nn.Module:
        """The network of an arm, in eval mode."""
        init, order, change = np.random.SeedSequence(self.plan.seed, spawn_key=(draw,)).generate_state(3)
        real = self._pool(self.real, box)
        extra = real if arm.extra == "nothing" else self._extra(arm, box, seed=int(order))
        share = 0.0 if arm.extra == "nothing" else self.plan.share if arm.real else 1.0
        augment = classical(mirror=self.plan.mirror, binary=self.plan.binary) if arm.classical else None
        if augment is not None:
            augment.set_random_state(int(change))
        batches = _Batches(real, extra, share, augment, np.random.default_rng(int(order)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(init))
            network = self.task.network().to(self.device)
        return _fit(network, self.task.loss, batches, self.plan)

    def _extra(self, arm: Arm, box: Box, *, seed: int) -> _Pool:
        if arm.extra == "duplicates":
            return self._pool(self.real, box)
        if arm.extra != "shuffled":
            return self._pool(self.extras[arm.extra], box)
        pool = self._pool(self.extras["synthetic"], box)
        others = np.random.default_rng(seed).permutation(len(pool.images))
        return _Pool(pool.images, [pool.targets[at] for at in others], pool.weights)

    def _pool(self, scans: ImageSet, box: Box) -> _Pool:
        whole = _cut(scans, box)
        padded = [_padded(one) if self.task.pictures else one for one in self.task.targets(whole)]
        return _Pool(_images(scans, box=box), padded, self.task.weights(scans))


Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class _Pool:
    """Images `(1, X, Y, Z)` and targets to draw from, with the probability of each."""

    images: Sequence[Tensor]
    targets: Sequence[Tensor]
    weights: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Batches:
    """Random batches. All draws are made whatever the arm, so that arms of one seed share the real scans they see."""

    real: _Pool
    extra: _Pool
    share: float
    augment: Any
    rng: np.random.Generator

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images and targets of one step."""
        real = self.rng.choice(len(self.real.images), size, p=self.real.weights)
        instead = self.rng.random(size) < self.share
        places = np.searchsorted(np.cumsum(self.extra.weights), self.rng.random(size), side="right")
        extra = np.minimum(places, len(self.extra.images) - 1)
        chosen = [
            (self.extra, e) if other else (self.real, r) for r, e, other in zip(real, extra, instead, strict=True)
        ]
        pairs = [self._changed(pool.images[at], pool.targets[at]) for pool, at in chosen]
        images, targets = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(targets)

    def _changed(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.augment is None:
            return image, target
        picture = target.ndim > 0
        item = self.augment({IMAGE: image, **({LABEL: target} if picture else {})})
        plain = {key: value.as_tensor().contiguous() for key, value in item.items()}
        return plain[IMAGE].float(), plain[LABEL] if picture else target


def _fit(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: _Batches, plan: Plan) -> nn.Module:
    """AdamW with a one-cycle learning rate (Smith and Topin, 2018); it rises in the first tenth of the steps."""
    optimiser = torch.optim.AdamW(network.parameters(), plan.lr, weight_decay=1e-2)
    rise = 0.1 if plan.steps > _NO_RISE else 0.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.lr, total_steps=plan.steps, pct_start=rise)
    device = next(network.parameters()).device
    network.train()
    for _ in range(plan.steps):
        images, targets = (one.to(device) for one in batches.batch(plan.batch))
        optimiser.zero_grad()
        loss(network(images), targets).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def _box(sets: Sequence[ImageSet]) -> Box:
    """The box that holds the foreground of all scans."""
    together = np.any([one.masks.any(axis=(0, 1)) for one in sets], axis=0)
    x, y, z = box_around(together)
    return x, y, z


def _cut(scans: ImageSet, box: Box) -> ImageSet:
    at = (slice(None), slice(None), *box)
    maps = None if scans.label_maps is None else scans.label_maps[at]
    values = (scans.ids, scans.subjects, scans.classes, scans.hashes, scans.images[at], scans.masks[at], maps)
    return type(scans)(*values)


def _images(scans: ImageSet, *, box: Box) -> list[Tensor]:
    return [_padded(torch.from_numpy(one.astype(np.float32))) for one in _cut(scans, box).images]


def _padded(image: Tensor) -> Tensor:
    """With zeros at the end of each axis, up to a multiple of what the networks need."""
    pads = [amount for size in reversed(image.shape[1:]) for amount in (0, -size % MULTIPLE)]
    return torch.nn.functional.pad(image, pads)
