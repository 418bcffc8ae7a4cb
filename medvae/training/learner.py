"""A network with its optimiser and its averaged weights: one training step, one validation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medvae.errors import RunError
from medvae.training.batches import Batch, plain_batch
from medvae.training.losses import Objective, Terms, beta_at, rate_at

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from lightning_fabric import Fabric
    from torch import nn

    from medvae.settings import Settings
    from medvae.training.store import Scans
    from medvae.vae.base import VAE

WATCHED = 16  # validation scans of each epoch
FROZEN_ON = 50  # scans that the final σ is estimated on
_MEAN_OF = 50  # training scans whose mean is the image to beat
_NOISE, _VALIDATION_NOISE = 3, 4  # streams of the seed, beside those of the batches


class TrainingError(RunError):
    """Training went wrong in a way that a setting can correct."""

    default_code = "training"


class Numbers(NamedTuple):
    """The numbers of one step, or their means over an epoch; see `Terms`."""

    loss: float
    reconstruction: float
    kl: float
    error: float

    @classmethod
    def mean(cls, steps: Sequence[Numbers]) -> Numbers:
        """The mean over several steps."""
        return cls(*(sum(column) / len(steps) for column in zip(*steps, strict=True)))


class Validation(NamedTuple):
    """What the validation scans gave; None where there are none.

    Attributes:
        loss: −ELBO, nats per foreground voxel.
        error: mean error per foreground voxel.
        means: posterior means, `(N, C, *latent)`.
    """

    loss: float | None = None
    error: float | None = None
    means: Tensor | None = None


class Learner:
    """The network, its optimiser and its averaged weights.

    Args:
        vae: is trained in place.
        settings: of the run.
        fabric: device and precision.
    """

    def __init__(self, vae: VAE, settings: Settings, *, fabric: Fabric) -> None:
        self.vae, self.settings, self.train, self.fabric = vae, settings, settings.train, fabric
        self._plain = Objective(vae, free_bits=self.train.free_bits)
        parameters = [p for p in vae.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.train.lr, weight_decay=self.train.weight_decay, fused=True)
        self._objective, self.optimizer = fabric.setup(self._plain, optimizer)
        self.average = AveragedModel(vae, multi_avg_fn=_warmed_up_average(self.train.ema))
        self.average.update_parameters(vae)  # the first one copies; from then on they are averaged
        averaged: VAE = self.average.module  # type: ignore[assignment]
        self._averaged = Objective(averaged, free_bits=self.train.free_bits).eval()

    def step(self, batch: Batch, *, number: int, progress: float, share: float) -> tuple[Numbers, Tensor]:
        """One step; gives its numbers and the posterior means.

        Args:
            batch: of this step.
            number: of the step, from 0.
            progress: share of the training that is done, 0..1.
            share: what this step adds to it.

        Raises:
            TrainingError: the loss is not a number.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.train.lr * rate_at(progress, step=share, warmup=self.train.warmup)
        terms = self.gradients(batch, number=number, beta=self.beta(progress))
        self.fabric.clip_gradients(self._objective, self.optimizer, max_norm=self.train.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.average.update_parameters(self.vae)
        numbers = Numbers(*torch.stack([terms.loss, terms.reconstruction, terms.kl, terms.error]).tolist())
        if not math.isfinite(numbers.loss):
            hint = "lower train.lr, or look at the inputs with `medvae info`"
            raise TrainingError(f"the loss is not a number at step {number}", hint=hint)
        return numbers, terms.mean

    def gradients(self, batch: Batch, *, number: int, beta: float) -> Terms:
        """Forward and backward pass of a step; no weight changes."""
        self.vae.train()
        self.optimizer.zero_grad(set_to_none=True)
        draw = (_NOISE, number, self.fabric.global_rank)
        terms = self._terms(self._objective, batch, draw=draw, beta=beta, fit_spread=True)
        self.fabric.backward(terms.loss)
        return terms

    def seconds_per_step(self, batches: Iterator[Batch], *, clock: Callable[[], float], warm: int) -> Generator[float]:
        """Seconds of a step, measured on passes that change nothing: the latest estimate after each batch.

        The first `warm` passes count only until there are others.
        """
        buffers = {name: value.clone() for name, value in self.vae.named_buffers()}
        marks = [clock()]
        try:
            for batch in batches:
                self.gradients(batch, number=0, beta=0.0).loss.item()
                marks.append(clock())
                first = min(warm, len(marks) - 2)
                yield (marks[-1] - marks[first]) / (len(marks) - 1 - first)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            for name, value in self.vae.named_buffers():
                value.copy_(buffers[name])

    def beta(self, progress: float) -> float:
        """Weight of the KL."""
        return beta_at(progress, beta=self.train.beta, warmup=self.train.kl_warmup)

    def validate(self, scans: Scans) -> Validation:
        """−ELBO per voxel, error and posterior means of validation scans, as if training ended now.

        Averaged weights, one draw per scan that is the same at every validation, β = 1, σ frozen at the optimum of
        these scans.
        """
        watched = range(min(len(scans), WATCHED))
        if not watched:
            return Validation()
        with torch.no_grad(), self.fabric.autocast():
            self._freeze(self._averaged, scans, watched)
            terms = [self._scored(self._averaged, scans, i, fit_spread=False) for i in watched]
        loss, error = (float(torch.stack(list(v)).mean()) for v in ((t.loss for t in terms), (t.error for t in terms)))
        loss = self.fabric.broadcast(loss)  # all processes have to stop at the same step
        return Validation(loss, error, torch.cat([t.mean for t in terms]))

    def mean_image_error(self, training: Scans, validation: Scans) -> float | None:
        """The error of the training scans' mean on the validation scans: what a network has to beat."""
        if not len(validation):
            return None
        seen = [training[i] for i in range(min(len(training), _MEAN_OF))]
        count = np.maximum(sum(one.mask.astype(np.float32) for one in seen), 1)
        mean = torch.from_numpy(np.asarray(sum(one.image * one.mask for one in seen) / count, np.float32))
        errors = []
        for i in range(min(len(validation), WATCHED)):
            image, mask = (torch.from_numpy(values) for values in (validation[i].image, validation[i].mask))
            errors.append(float(self.vae.observation.error(image[mask], mean[mask])))
        return float(np.mean(errors))

    def finish(self, scans: Scans) -> None:
        """Put the averaged weights into the network, and freeze its σ at the optimum of these scans."""
        with torch.no_grad():
            for own, average in zip(self.vae.parameters(), self.average.module.parameters(), strict=True):
                own.copy_(average)
        self.vae.eval()
        with torch.no_grad():  # in the float32 of scoring
            self._freeze(self._plain, scans, range(min(len(scans), FROZEN_ON)))

    def _freeze(self, objective: Objective, scans: Scans, which: range) -> None:
        """Set a shared σ to the optimum of these scans under the weights of an objective's network."""
        errors = [self._scored(objective, scans, i, fit_spread=True).error for i in which]
        objective.vae.observation.freeze(float(torch.stack(errors).mean()))

    def _scored(self, objective: Objective, scans: Scans, index: int, *, fit_spread: bool) -> Terms:
        draw = (_VALIDATION_NOISE, index)
        return self._terms(objective, plain_batch(scans, index), draw=draw, beta=1.0, fit_spread=fit_spread)

    def _terms(
        self, objective: nn.Module, batch: Batch, *, draw: Sequence[int], beta: float, fit_spread: bool
    ) -> Terms:
        """The objective of a batch; `draw` are the numbers that, with the run's seed, give the noise of the latent."""
        device = self.fabric.device
        tensors = {
            name: value.to(device, non_blocking=True)
            for name in ("inputs", "image", "mask", "c", "label_map")
            if (value := getattr(batch, name)) is not None
        }
        seed = np.random.SeedSequence([self.settings.seed, *draw]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        x, y, z = batch.inputs.shape[2:]
        noise = torch.randn((len(batch.inputs), *self.vae.latent_shape((x, y, z))), generator=generator).to(device)
        terms: Terms = objective(**tensors, noise=noise, beta=beta, fit_spread=fit_spread)
        return terms


def _warmed_up_average(decay: float) -> Callable[..., None]:
    """Exponential moving average whose decay rises from 0.1, so that the first weights are soon forgotten."""

    def update(averaged: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        step = int(count)
        get_ema_multi_avg_fn(min(decay, step / (9 + step)))(averaged, weights, count)

    return update
