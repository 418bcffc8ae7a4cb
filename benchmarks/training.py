"""Time per training step, and performance after equal training time: the VAE of medvae and two of MONAI.

    python benchmarks/training.py [--minutes N] [--rounds N] [--data FOLDER/brains-t1] [--net NAME ...]

All networks are trained with the same objective (σ-VAE, foreground only), batches, optimiser, schedule and averaged
weights, through `medvae.training.fit`; only the network differs. Each runs with its best known settings: bf16 if the
machine supports it, and the faster memory layout.

Table 1: time per step, medians of interleaved rounds. Table 2: after equal training time, on held-out subjects: mean
squared error of the reconstruction at the posterior mean over the foreground (prepared intensities, variance about 1),
and the ELBO in nats per scan with β = 1 and the σ frozen on validation subjects, with the mean image of the training
scans for comparison. `--minutes 0` skips table 2. Without FOLDER simulated brains at 4 mm are used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from monai.networks.nets import AutoencoderKL, VarAutoEncoder
from torch import Tensor

from medvae.checkpoint.model import build_vae
from medvae.cohort.find import find
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import Settings, load
from medvae.simulate import cohort
from medvae.training.batches import plain_batch, training_batch
from medvae.training.fabric import make_fabric
from medvae.training.fit import fit
from medvae.training.losses import Objective
from medvae.training.roles import held_out
from medvae.training.store import Scans, store
from medvae.vae.base import VAE, Posterior, elbo
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.scan import Shape

DATA = Path(__file__).parents[2] / "shared" / "data" / "brains-t1"
MADE = {"train": 12, "calibrate": 4, "test": 4}
DRAWS = 2


class Kl(VAE):
    """MONAI's AutoencoderKL as a VAE of medvae: 16-32-64-128, two residual blocks per level, no attention."""

    stride: int | None = 8

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.observation = build_observation(settings.likelihood)
        self.net = AutoencoderKL(
            spatial_dims=3,
            channels=(16, 32, 64, 128),
            num_res_blocks=2,
            attention_levels=(False,) * 4,
            norm_num_groups=16,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )  # in the default layout: with channels_last_3d a step in bf16 takes 1.2 times as long here

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x)."""
        mean, sigma = self.net.encode(x)
        return Posterior(mean.float(), 2 * sigma.float().log())

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output."""
        return cast("Tensor", self.net.decode(z))

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(3, *grid / 8)`."""
        return (3, *(n // 8 for n in grid))


class Var(VAE):
    """MONAI's VarAutoEncoder as a VAE of medvae: 16-32-64-128, strides of 2, a latent vector of length 128."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.observation = build_observation(settings.likelihood)
        self.net = VarAutoEncoder(
            spatial_dims=3,
            in_shape=(1, *settings.prepare.shape),
            out_channels=1,
            latent_size=128,
            channels=(16, 32, 64, 128),
            strides=(2, 2, 2, 2),
        )

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x)."""
        mean, log_variance = self.net.encode_forward(x)
        return Posterior.from_parameters(torch.cat([mean, log_variance], dim=1))

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The decoder's output."""
        return cast("Tensor", self.net.decode_forward(z, use_sigmoid=False))

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(128,)`."""
        return (128,)


NETS: dict[str, Callable[[Settings], Any]] = {"medvae": build_vae, "AutoencoderKL": Kl, "VarAutoEncoder": Var}


@dataclass(frozen=True)
class Cohort:
    """Prepared scans by role, and their settings."""

    settings: Settings
    training: Scans
    validation: Scans
    judged: Scans


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="training compared with the VAEs of MONAI, with the same likelihood")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time per network; 0: time per step only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with split.csv")
    parser.add_argument("--net", nargs="+", choices=list(NETS), default=list(NETS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        cohort = prepare(options.data, Path(scratch), minutes=options.minutes or 1.0)
        nets = {name: NETS[name] for name in options.net}
        shape, batch = cohort.settings.prepare.shape, cohort.settings.train.batch
        print(f"grid {'x'.join(map(str, shape))}, batch {batch}, {torch.get_num_threads()} threads")
        print(f"time per step, median of {options.rounds} interleaved rounds:")
        for name, seconds in step_seconds(nets, cohort, rounds=options.rounds).items():
            print(f"  {name:<15} {seconds:8.3f} s", flush=True)
        if options.minutes:
            report(nets, cohort, Path(scratch), minutes=options.minutes)


def report(nets: dict[str, Callable[[Settings], Any]], cohort: Cohort, scratch: Path, *, minutes: float) -> None:
    """Table 2."""
    mean = mean_image(cohort.training)
    print(f"\nafter {minutes:g} minutes, on {len(cohort.judged)} held-out subjects (mean and range over subjects):")
    print(f"  {'mean image':<15} error {spread([error(s.image, mean, s.mask) for s in scans(cohort.judged)])}")
    for name, build in nets.items():
        net, steps = trained(build, cohort, scratch / name)
        errors, bounds = judge(net, cohort)
        size = sum(p.numel() for p in net.parameters()) / 1e6
        print(f"  {name:<15} error {spread(errors)}  ELBO {fmean(bounds):10.0f} nats", end="")
        print(f"  {steps} steps, {size:.1f} M weights", flush=True)


def step_seconds(nets: dict[str, Callable[[Settings], Any]], cohort: Cohort, *, rounds: int) -> dict[str, float]:
    """Median time of forward, backward and optimiser step on one batch, seconds; a first round is not counted."""
    fabric = make_fabric("cpu", precision="auto")
    batch = training_batch(cohort.training, step=0, rank=0, world=1, settings=cohort.settings)
    steps: dict[str, Callable[[], None]] = {}
    for name, build in nets.items():
        net = build(cohort.settings)
        parameters = [p for p in net.parameters() if p.requires_grad]
        objective, optimizer = fabric.setup(
            Objective(net, free_bits=0.0), torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        )
        noise = torch.randn(len(batch.image), *net.latent_shape(cohort.settings.prepare.shape))

        def step(objective: Any = objective, optimizer: Any = optimizer, noise: Tensor = noise) -> None:
            optimizer.zero_grad(set_to_none=True)
            terms = objective(
                inputs=batch.inputs, image=batch.image, mask=batch.mask, noise=noise, beta=1.0, fit_spread=True
            )
            fabric.backward(terms.loss)
            optimizer.step()

        steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: median(values[1:]) for name, values in times.items()}


def trained(build: Callable[[Settings], Any], cohort: Cohort, folder: Path) -> tuple[VAE, int]:
    """A trained network with averaged weights and frozen σ, and the number of its steps."""
    torch.manual_seed(cohort.settings.seed)
    net = build(cohort.settings)
    fabric = make_fabric("cpu", precision="auto")
    roles = (cohort.training, cohort.validation)
    epochs = list(fit(net, *roles, cohort.settings, fabric=fabric, folder=folder, resume=False))
    return net, epochs[-1].steps


@torch.no_grad()
def judge(net: VAE, cohort: Cohort) -> tuple[list[float], list[float]]:
    """Squared error and ELBO of each held-out scan, float32."""
    errors, bounds = [], []
    for index in range(len(cohort.judged)):
        batch = plain_batch(cohort.judged, index)
        posterior = net.encode(batch.image)
        reconstruction = net.decode(posterior.mean).mean
        errors.append(error(batch.image.numpy(), reconstruction.numpy(), batch.mask.numpy()))
        generator = torch.Generator().manual_seed(index)
        draws = [posterior.sample(torch.randn(posterior.mean.shape, generator=generator)) for _ in range(DRAWS)]
        likelihoods = (net.decode(z) for z in draws)
        drawn = [elbo(batch.image, batch.mask, posterior=posterior, likelihood=one) for one in likelihoods]
        bounds.append(float(torch.stack(drawn).mean()))
    return errors, bounds


def prepare(data: Path, scratch: Path, *, minutes: float) -> Cohort:
    """Prepare all scans once; the subjects of `calibrate` and `test` are held out."""
    real = (data / "split.csv").is_file()
    coarse = () if real else ("prepare.spacing=[4,4,4]", "prepare.shape=[48,64,48]", "train.batch=4")
    settings = load("brain-mri-t1", (f"train.minutes={minutes}", *coarse))
    table = data / "split.csv" if real else made_brains(scratch / "made")
    read = ReadAndPrepare(settings.read, Preparation(settings.prepare))
    files: dict[str, list[Path]] = {"train": [], "validation": [], "judged": []}
    refs = find(Selection((table,)), settings.read).refs
    subjects = [ref.subject for ref in refs if ref.split == "train"]
    aside = held_out(subjects, share=settings.train.validation, seed=settings.seed)
    for ref in refs:
        role = "judged" if ref.split != "train" else "validation" if ref.subject in aside else "train"
        files[role].append(scratch / "prepared" / f"{ref.id}.safetensors")
        store(read(ref).prepared, files[role][-1])
    return Cohort(settings, *(Scans(files[role]) for role in ("train", "validation", "judged")))


def made_brains(folder: Path) -> Path:
    """A list of simulated brains without lesions."""
    jobs = [job for job in cohort.members(MADE, seed=0) if job.lesion == "none"]
    for job in jobs:
        for file in cohort.files(job, cohort.simulate(job)):
            file.write(folder)
    return cohort.write_list(jobs, folder)


def scans(of: Scans) -> list[Any]:
    """The prepared scans of a role."""
    return [of[index] for index in range(len(of))]


def mean_image(training: Scans) -> np.ndarray[Any, Any]:
    """The voxelwise mean of the training scans."""
    return cast("np.ndarray[Any, Any]", np.mean([one.image for one in scans(training)], axis=0))


def error(image: np.ndarray[Any, Any], other: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> float:
    """Mean squared difference over the foreground."""
    return float(np.square(image - other)[mask].mean())


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{fmean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
