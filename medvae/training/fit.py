"""`fit`: a generator of epochs. What a caller does with them (a bar, logs, pictures) is the caller's business.

A run is a function of (settings, seed, scans): batches and noise come from counters, so that a run that was stopped and
resumed ends with the same weights on the CPU. A time budget becomes a number of steps after a timed warm-up.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvae.errors import RunError
from medvae.io.files import atomic
from medvae.training.batches import Batch, Scans, made_ahead, plain_batch, training_batch
from medvae.training.losses import Objective, Terms, active_units, beta_at, rate_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from medvae.settings import Settings, TrainSettings
    from medvae.vae.base import VAE

_WARM_STEPS, _TIMED_STEPS = 4, 12  # what a few steps cost varies: a batch may be warped or not
_LONGEST_S = 20.0  # for which steps are timed
_SAFETY = 0.95  # share of a time budget that steps and looks may use; the rest is for writing
_WATCHED = 16  # validation scans that are looked at after each epoch
_FROZEN_ON = 50  # scans that the final σ is estimated on


@dataclass(frozen=True)
class Epoch:
    """What is known after `validate_every` steps.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: training loss, nats per foreground voxel.
        reconstruction: −ln p(x|z) in training, nats a scan.
        kl: in training, nats a scan.
        beta: weight of the KL.
        error: mean squared (Laplace: absolute) error a voxel, training.
        validation: −ELBO of the validation scans under the averaged weights, β = 1, nats per voxel; None without any.
        validation_error: mean squared error a voxel there.
        active: latent units whose mean varies over the validation (else the last training) scans.
        scans_per_second: in training.
        best: whether this is the best so far.
    """

    step: int
    steps: int
    loss: float
    reconstruction: float
    kl: float
    beta: float
    error: float
    validation: float | None
    validation_error: float | None
    active: int
    scans_per_second: float
    best: bool


class TrainingError(RunError):
    """Training went wrong in a way that a setting can mend."""

    default_code = "training"


def make_fabric(device: str, *, precision: str) -> Fabric:
    """Lightning Fabric for a device: "auto", "cpu", "cuda", "cuda:N".

    `precision` "auto" takes bf16 where the hardware multiplies it: GPUs and CPUs that say so. On a CPU with such units
    a step takes 0.6 of the time; on one without it is thirty times slower than float32.
    """
    accelerator, _, index = device.partition(":")
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(accelerator) else "32"
    kind: Any = "bf16-mixed" if precision == "bf16" else "32-true"
    return Fabric(
        accelerator=accelerator,
        devices=[int(index)] if index else 1 if accelerator == "cpu" else "auto",
        precision=kind,
    )


def _multiplies_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def fit(
    vae: VAE, training: Scans, validation: Scans, settings: Settings, *, fabric: Fabric, folder: Path, resume: bool
) -> Iterator[Epoch]:
    """Train `vae` in place; afterwards it holds the best averaged weights and a frozen σ.

    Args:
        vae: fresh from `build`.
        training: scans that are learned from.
        validation: scans of other subjects; may be empty.
        settings: of the run.
        fabric: device and precision.
        folder: where `last/` and `best/` are kept.
        resume: go on from `folder/last`, if it is there.

    Raises:
        TrainingError: the loss is not a number, or the posterior has collapsed.
    """
    run = _Run(vae, settings, fabric=fabric, folder=folder)
    if resume:
        run.restore()
    yield from run.epochs(training, validation)
    run.finish(training, validation)


class _Numbers(NamedTuple):
    """The numbers of one step, or their means over an epoch; see `Terms`."""

    loss: float
    reconstruction: float
    kl: float
    error: float


def _mean(steps: list[_Numbers]) -> _Numbers:
    return _Numbers(*(sum(column) / len(steps) for column in zip(*steps, strict=True)))


class _Run:
    """The state of one training run."""

    def __init__(self, vae: VAE, settings: Settings, *, fabric: Fabric, folder: Path) -> None:
        self.settings, self.train, self.fabric, self.folder = settings, settings.train, fabric, folder
        self.net = cast("nn.Module", vae)
        self._plain = Objective(vae, free_bits=self.train.free_bits)
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.train.lr, weight_decay=self.train.weight_decay, fused=True)
        self.objective, self.optimizer = fabric.setup(self._plain, optimizer)
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.step, self.steps, self.stale = 0, 0, 0
        self.best_score = float("inf")
        self.means: deque[Tensor] = deque(maxlen=8)  # posterior means of the last batches

    # ------------------------------------------------------------------------------------------------- the loop

    def epochs(self, training: Scans, validation: Scans) -> Iterator[Epoch]:
        if not self.steps:
            self.steps = self.train.steps if self.train.minutes is None else self._count(training, validation)
        with closing(made_ahead(self._make(training), range(self.step, self.steps))) as batches:
            while self.step < self.steps and not (self.train.patience and self.stale >= self.train.patience):
                start, first = time.perf_counter(), self.step
                self.means.clear()  # an epoch must not know how the one before was reached
                until = min(self.steps, (self.step // self.train.validate_every + 1) * self.train.validate_every)
                steps = [self._step(next(batches)) for _ in range(until - self.step)]
                scans = (until - first) * self.train.batch * self.fabric.world_size
                rate = scans / (time.perf_counter() - start)
                epoch = self._look(_mean(steps), validation, scans_per_second=rate)
                yield epoch  # first: an epoch that was saved and not told would be missing from the log for good
                self._save("last")

    def _make(self, training: Scans) -> Callable[[int], Batch]:
        world, rank = self.fabric.world_size, self.fabric.global_rank
        return lambda step: training_batch(training, step=step, rank=rank, world=world, settings=self.settings)

    def _step(self, batch: Batch) -> _Numbers:
        number = self.step
        beta = beta_at(number, steps=self.steps, beta=self.train.beta, warmup=self.train.kl_warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.train.lr * rate_at(number, steps=self.steps, warmup=self.train.warmup)
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        terms: Terms = self._terms(batch, draw=(3, number, self.fabric.global_rank), beta=beta, fit_spread=True)
        self.fabric.backward(terms.loss)
        self.fabric.clip_gradients(self.objective, self.optimizer, max_norm=self.train.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self._average()
        self.step += 1
        self.means.append(terms.mean)
        numbers = _Numbers(*torch.stack([terms.loss, terms.reconstruction, terms.kl, terms.error]).tolist())
        if not math.isfinite(numbers.loss):
            raise TrainingError(
                f"the loss is not a number at step {number}",
                hint="lower train.lr, or look at the inputs with medvae info",
            )
        return numbers

    def _terms(
        self, batch: Batch, *, draw: Sequence[int], beta: float, fit_spread: bool, objective: nn.Module | None = None
    ) -> Terms:
        """The objective of a batch; `draw` are the numbers that, with the run's seed, give the noise of the latent."""
        device = self.fabric.device
        inputs, image, mask = (t.to(device, non_blocking=True) for t in (batch.inputs, batch.image, batch.mask))
        seed = np.random.SeedSequence([self.settings.seed, *draw]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        noise = torch.randn(self._latent(inputs), generator=generator).to(device)
        terms: Terms = (objective or self.objective)(
            inputs=inputs, image=image, mask=mask, noise=noise, beta=beta, fit_spread=fit_spread
        )
        return terms

    def _latent(self, inputs: Tensor) -> tuple[int, ...]:
        grid = (inputs.shape[2], inputs.shape[3], inputs.shape[4])
        return (len(inputs), *cast("VAE", self.net).latent_shape(grid))

    def _count(self, training: Scans, validation: Scans) -> int:
        """A time budget as a number of steps: the time of a few steps, which are then undone, and of a look."""
        assert self.train.minutes is not None
        before = {k: v.clone() for k, v in self.net.state_dict().items()}
        state, self.steps = self.optimizer.state_dict(), 1
        with closing(made_ahead(self._make(training), range(_WARM_STEPS + _TIMED_STEPS))) as batches:
            self._time(batches, _WARM_STEPS)
            seconds = self._time(batches, _TIMED_STEPS)
        start = time.perf_counter()
        self._validate(validation)
        seconds += (time.perf_counter() - start) / self.train.validate_every
        self.net.load_state_dict(before)
        self.optimizer.load_state_dict(state)
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.step = 0
        return int(self.fabric.broadcast(max(1, int(self.train.minutes * 60 * _SAFETY / seconds))))

    def _time(self, batches: Iterator[Batch], most: int) -> float:
        """Seconds a step, over so many steps, or fewer where they are slow; all processes take the same number."""
        start, done = time.perf_counter(), 0
        while done < most:
            self._step(next(batches))
            done += 1
            if 2 <= done < most and self.fabric.broadcast(time.perf_counter() - start > _LONGEST_S):
                break
        return (time.perf_counter() - start) / done

    # --------------------------------------------------------------------------------- averaged weights, validation

    def _average(self) -> None:
        """Exponential moving average, with the usual correction while few steps are done."""
        decay = min(self.train.ema, (1 + self.step) / (10 + self.step))
        for name, parameter in self.net.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def _look(self, mean: _Numbers, validation: Scans, *, scans_per_second: float) -> Epoch:
        score, error, means = self._validate(validation)
        if score is not None and not math.isfinite(score):
            raise TrainingError(
                f"the loss of the validation scans is not a number after step {self.step}",
                hint="lower train.lr, or look at the inputs with medvae info",
            )
        active = active_units((torch.cat(list(self.means)) if means is None or len(means) < 2 else means).cpu())
        beta = beta_at(self.step - 1, steps=self.steps, beta=self.train.beta, warmup=self.train.kl_warmup)
        if beta >= self.train.beta and mean.kl < 1.0:
            raise TrainingError(
                f"the posterior has collapsed at step {self.step}: the KL is {mean.kl:.2f} nats a scan",
                hint="warm the KL up for longer (train.kl_warmup), lower train.beta, or set train.free_bits",
            )
        best = score is None or score < self.best_score
        self.stale = 0 if best else self.stale + 1
        if best:
            self.best_score = float("inf") if score is None else score
            self._save("best")
        return Epoch(
            self.step, self.steps, mean.loss, mean.reconstruction, mean.kl, beta, mean.error,
            score, error, active, scans_per_second, best,
        )  # fmt: skip

    def _validate(self, validation: Scans) -> tuple[float | None, float | None, Tensor | None]:
        """−ELBO a voxel, error and posterior means of validation scans, as they would be scored if training ended now.

        Averaged weights, one draw a scan that is the same at every look, β = 1, σ frozen at the optimum of these scans.
        """
        watched = range(min(len(validation), _WATCHED))
        if not watched:
            return None, None, None
        with self._averaged(), torch.no_grad():
            self._freeze(validation, watched, self.objective)
            batches = (plain_batch(validation, i) for i in watched)
            terms = [self._terms(b, draw=(4, i), beta=1.0, fit_spread=False) for i, b in enumerate(batches)]
        score, error = (
            float(torch.stack(values).mean()) for values in ([t.loss for t in terms], [t.error for t in terms])
        )
        score = self.fabric.broadcast(score)  # all processes have to stop at the same step
        return score, error, torch.cat([t.mean for t in terms])

    def _freeze(self, scans: Scans, which: range, objective: nn.Module) -> None:
        """Set a shared σ to the optimum of these scans under the weights that the network has now."""
        errors = [
            self._terms(plain_batch(scans, i), draw=(4, i), beta=1.0, fit_spread=True, objective=objective).error
            for i in which
        ]
        cast("VAE", self.net).observation.freeze(float(torch.stack(errors).mean()))

    def _averaged(self) -> _Swapped:
        return _Swapped(self.net, self.average)

    # ------------------------------------------------------------------------------------------------ state on disk

    def _save(self, name: str) -> None:
        """`best/`: averaged weights. `last/`: all that a resumed run needs. Only the first process writes."""
        if not self.fabric.is_global_zero:
            return
        tensors = {f"average.{k}": v for k, v in self.average.items()}
        if name == "last":
            tensors |= {f"net.{k}": v for k, v in self.net.state_dict().items()}
            for i, state in self.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        facts = {k: repr(getattr(self, k)) for k in ("step", "steps", "stale", "best_score")}
        with atomic(self.folder / name / "state.safetensors") as partial:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata=facts)

    def restore(self) -> None:
        """Go on from `last/`; nothing to do where there is none."""
        path = self.folder / "last" / "state.safetensors"
        if not path.is_file():
            return
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
        self.step, self.steps, self.stale = int(facts["step"]), int(facts["steps"]), int(facts["stale"])
        self.best_score = float(facts["best_score"])
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        self._load_average(tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                state.setdefault(int(number), {})[name] = _like_weights(value)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _load_average(self, tensors: dict[str, Tensor]) -> None:
        device = self.fabric.device
        found = {k.removeprefix("average."): v.to(device) for k, v in tensors.items() if k.startswith("average.")}
        self.average = {name: found[name].clone(memory_format=torch.preserve_format) for name in self.average}

    def finish(self, training: Scans, validation: Scans) -> None:
        """Put the best averaged weights into the network and freeze its σ on validation (else training) scans."""
        self.fabric.barrier()  # the first process has to have written it
        self._load_average(load_file(self.folder / "best" / "state.safetensors"))
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                parameter.copy_(self.average[name])
        self.net.eval()
        judged = validation if len(validation) else training
        with torch.no_grad():  # outside Fabric's wrapper, in the float32 of scoring
            self._freeze(judged, range(min(len(judged), _FROZEN_ON)), self._plain)


class _Swapped:
    """The network with other weights for the length of a block."""

    def __init__(self, net: nn.Module, weights: dict[str, Tensor]) -> None:
        self.net, self.weights = net, weights

    def __enter__(self) -> None:
        self.net.eval()
        self.own = {name: p.data for name, p in self.net.named_parameters()}
        for name, parameter in self.net.named_parameters():
            parameter.data = self.weights[name]

    def __exit__(self, *_: object) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.data = self.own[name]


def run_settings(settings: TrainSettings, *, steps: int) -> TrainSettings:
    """The settings with a number of steps in the place of a time budget, as they are kept in a checkpoint."""
    return settings.model_copy(update={"minutes": None, "steps": steps})


def _like_weights(value: Tensor) -> Tensor:
    """A tensor of the optimiser in the memory layout of the weight it belongs to, which a file does not keep."""
    return value.contiguous(memory_format=torch.channels_last_3d) if value.ndim == 5 else value
