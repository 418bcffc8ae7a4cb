"""Sharper images: terms of the loss, a patch discriminator and a filter, by spectrum, errors and copies of the samples.

    python benchmarks/sharpness.py --scans CACHE --unseen CACHE --out FOLDER [--arms plain,gradient:1,...]
    python benchmarks/sharpness.py --scans CACHE --unseen CACHE --out FOLDER --measure [--pictures]

CACHE holds prepared scans, as `medvae train` keeps them in its folder. All arms see the same batches in the same order
and begin with the same weights. Arms, each with a weight:

- `plain`: as `medvae train`.
- `gradient`: and Σ_axes ln(mean |∂x − ∂x̂|) over the foreground.
- `amplitude`: and the mean |ln A(x) − ln A(x̂)| of the Fourier amplitudes of patches of 16³ voxels.
- `bands`: the same of the mean power in bands of frequency of each patch, which says nothing of single coefficients.
- `adversarial`: `plain` for two thirds of the steps; from then on the encoder is frozen, and a patch discriminator
  (least squares, feature matching) judges reconstructions and, in every other step, decoded codes of the sampler
  `density`. The weight is the norm of its gradient in the last convolution over that of the likelihood. A second
  number is how often the batches of the last third are gone through (1).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from medvae.checkpoint.model import build_vae
from medvae.settings import AugmentSettings, load_settings
from medvae.training.batches import Batch, ahead, training_batch
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.learner import Learner
from medvae.training.losses import Objective, Terms
from medvae.training.plan import Plan
from medvae.training.roles import held_out
from medvae.training.store import Scans, fetch
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.checkpoint.model import Model
    from medvae.settings import Settings
    from medvae.synthesis.generate import Sample, Synthesizer
    from medvae.vae.base import VAE

ARMS = (
    "plain,adversarial:1,bands:1,gradient:0.3,adversarial:0.3,bands:0.3,amplitude:0.3,adversarial:1:2,gradient:1,"
    "adversarial:3,amplitude:1"
)
UNSEEN = "oasis-1005,oasis-1010,oasis-1018,oasis-1107,oasis-1119"  # of split `calibrate`
EDGE = 16  # voxels of a patch
BANDS = 8  # of the patches' spectra
POOL = 96  # codes that the discriminator is shown decoded
START = 2 / 3  # of the training, where the discriminator begins
LEAST_POWER = 1e-2  # per voxel: what is added before a logarithm


class Roles(NamedTuple):
    """Training scans, validation scans (other subjects), further unseen scans."""

    training: Scans
    validation: Scans
    unseen: Scans


def main() -> None:
    """Train the arms, then measure them; or measure what was trained."""
    parser = argparse.ArgumentParser(description="sharper samples")
    parser.add_argument("--scans", type=Path, required=True, help="prepared training scans, a folder")
    parser.add_argument("--unseen", type=Path, help="folder of further prepared scans, none of a test; to measure")
    parser.add_argument("--ids", default=UNSEEN, help="which of them, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="brain-mri-t1")
    parser.add_argument("--arms", default=ARMS, help="names and weights, separated by commas; the first is `plain`")
    parser.add_argument("--steps", type=int, default=1447)
    parser.add_argument("--seconds", type=float, default=3600, help="no arm is begun that would end later")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, default=24, help="samples")
    parser.add_argument("--only", choices=["train", "measure"], help="without measuring, or without training")
    parser.add_argument("--pictures", action="store_true", help="write pictures, too")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = load_settings(options.config, {"train.steps": options.steps})
    roles = _roles(options, settings)
    if options.only != "measure":
        _train_all(options, settings, roles)
    if options.only != "train":
        import sharpness_measures

        sharpness_measures.measure_all(options, settings, roles)


def _roles(options: argparse.Namespace, settings: Settings) -> Roles:
    files = sorted(options.scans.glob("*.safetensors"))
    subjects = [fetch(file).subject for file in files]
    aside = held_out(subjects, share=settings.train.validation, seed=settings.seed)
    pairs = list(zip(files, subjects, strict=True))
    names = options.ids.split(",") if options.unseen else []
    further = [next(options.unseen.rglob(f"{name}.safetensors")) for name in names]
    roles = Roles(
        Scans([file for file, one in pairs if one not in aside]),
        Scans([file for file, one in pairs if one in aside]),
        Scans(further),
    )
    ids = [[file.stem for file in one.files] for one in (roles.validation, roles.unseen)]
    print(f"{len(roles.training)} training scans; validation {ids[0]}; unseen {ids[1]}", flush=True)
    return roles


# ---------------------------------------------------------------------------------------------------------- training


def _train_all(options: argparse.Namespace, settings: Settings, roles: Roles) -> None:
    begun, longest = time.perf_counter(), 0.0
    fabric = make_fabric(options.device, precision=settings.train.precision)
    bank = _bank(roles.training, settings, options.steps, fabric.device)
    print(f"{options.steps} batches on {fabric.device}: {time.perf_counter() - begun:.0f} s", flush=True)
    for arm in options.arms.split(","):
        start = time.perf_counter()
        if start - begun + longest > options.seconds:
            print(f"{arm}: left out, no time", flush=True)
            continue
        vae = _trained(arm, bank, settings, roles, fabric=fabric, out=options.out)
        _keep(vae, options.out / f"{arm.replace(':', '-')}.safetensors")
        longest = max(longest, time.perf_counter() - start)
        print(f"{arm}: {time.perf_counter() - start:.0f} s", flush=True)


def _bank(training: Scans, settings: Settings, steps: int, device: torch.device) -> list[Batch]:
    """All batches of the training, as float16 on the device: the arms share them, and random changes are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make: Callable[[int], Batch] = lambda step: training_batch(  # noqa: E731
        training, step=step, rank=0, world=1, settings=settings
    )
    batches = [_moved(one, device, torch.float16) for one in ahead(make, range(steps))]
    torch.set_num_threads(threads)
    return batches


def _moved(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    image = batch.image.to(device, dtype)
    return Batch(image, image, batch.mask.to(device))


def _full(batch: Batch) -> Batch:
    image = batch.image.float()
    return Batch(image, image, batch.mask)


def _trained(arm: str, bank: Sequence[Batch], settings: Settings, roles: Roles, *, fabric: Any, out: Path) -> VAE:
    name, *numbers = arm.split(":")
    weight = float(numbers[0]) if numbers else 0.0
    if name == "adversarial":
        own = list(bank[round(START * len(bank)) :]) * (int(numbers[1]) if len(numbers) > 1 else 1)
        return _adversarial(own, settings, roles, weight=weight, fabric=fabric, out=out)
    vae = build_vae(settings, Conditions())
    _SHIFTS.manual_seed(0)
    learner = Learner(vae, settings, fabric=fabric)
    if name != "plain":
        term = {"gradient": gradient_term, "amplitude": amplitude_term, "bands": band_term}[name]
        learner._objective = fabric.setup_module(Sharper(vae, settings.train.free_bits, term, weight))
    plan = Plan(((0, len(bank)),))
    for step, batch in enumerate(bank):
        progress, share = plan.progress(step), plan.share(step)
        numbers, _ = learner.step(_full(batch), number=step, progress=progress, share=share)
        if step % 200 == 0:
            print(f"  {arm} {step}: {numbers}", flush=True)
        if name == "plain" and step + 1 == round(START * len(bank)):
            average: VAE = learner.average.module  # type: ignore[assignment]
            _keep(average, out / "two_thirds.safetensors")
    learner.finish(roles.validation)
    return vae


class Sharper(Objective):
    """The objective and one more term of the whole decoded image."""

    def __init__(self, vae: VAE, free_bits: float, term: Callable[..., Tensor], weight: float) -> None:
        super().__init__(vae, free_bits=free_bits)
        self.term, self.weight = term, weight
        self.seen: list[Tensor] = []
        vae.decoder.register_forward_hook(lambda *args: self.seen.append(args[2]))  # type: ignore[union-attr]

    def forward(self, **arguments: Any) -> Terms:
        """As `Objective`."""
        self.seen.clear()
        terms = super().forward(**arguments)
        with torch.autocast(self.seen[0].device.type, enabled=False):
            extra = self.term(self.seen[0].float(), arguments["image"], arguments["mask"])
        self.seen.clear()
        return terms._replace(loss=terms.loss + self.weight * extra)


def gradient_term(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Σ_axes ln(mean |∂x − ∂x̂|) over neighbours that are both foreground."""
    terms = []
    for axis in (2, 3, 4):
        both = mask.narrow(axis, 1, mask.shape[axis] - 1) & mask.narrow(axis, 0, mask.shape[axis] - 1)
        difference = (image.diff(dim=axis) - output.diff(dim=axis)).abs() * both
        terms.append((difference.sum() / both.sum()).clamp(min=1e-6).log())
    return torch.stack(terms).sum()


def amplitude_term(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean |ln A(x) − ln A(x̂)| over the coefficients of patches that are foreground for the most part."""
    ours, theirs = _patch_power(output, image, mask)
    return 0.5 * ((ours + LEAST_POWER).log() - (theirs + LEAST_POWER).log())[..., _radius() > 0].abs().mean()


def band_term(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean ½|ln P(x) − ln P(x̂)| over bands of frequency of these patches."""
    which = _band_matrix(output.device)
    ours, theirs = (one.flatten(1) @ which + LEAST_POWER for one in _patch_power(output, image, mask))
    return 0.5 * (ours.log() - theirs.log()).abs().mean()


def _patch_power(output: Tensor, image: Tensor, mask: Tensor, *, inside: float = 0.8) -> tuple[Tensor, Tensor]:
    """Power per voxel of patches of both, `(N, EDGE, EDGE, EDGE // 2 + 1)`; the tiling is shifted at random.

    Only patches with more than this share of foreground: the edge of the foreground is a detail that both have.
    """
    shift = [int(n) for n in torch.randint(EDGE, (3,), generator=_SHIFTS)]
    window = torch.hann_window(EDGE, periodic=True, device=output.device)
    window = window[:, None, None] * window[:, None] * window
    tiles = [_tiles((one * mask).roll(shift, (2, 3, 4))) for one in (output, image)]
    chosen = _tiles(mask.float().roll(shift, (2, 3, 4))).mean((1, 2, 3)) > inside
    power = [torch.fft.rfftn(one[chosen] * window, dim=(1, 2, 3)).abs().square() for one in tiles]
    scale = 1 / float(window.square().sum())
    return power[0] * scale, power[1] * scale


_SHIFTS = torch.Generator().manual_seed(0)


def _tiles(x: Tensor) -> Tensor:
    b, _, *sizes = x.shape
    nx, ny, nz = (n // EDGE for n in sizes)
    return x.view(b, nx, EDGE, ny, EDGE, nz, EDGE).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, EDGE, EDGE, EDGE)


def _radius() -> Tensor:
    full, half = torch.fft.fftfreq(EDGE), torch.fft.rfftfreq(EDGE)
    return torch.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)


def _band_matrix(device: torch.device) -> Tensor:
    """Means over bands of equal width up to the Nyquist frequency, `(coefficients, BANDS)`."""
    radius = _radius().flatten()
    band = ((radius - 1e-6) / (0.5 / BANDS)).floor()
    which = torch.stack([((band == number) & (radius > 0)).float() for number in range(BANDS)], 1)
    return (which / which.sum(0)).to(device)


# ------------------------------------------------------------------------------------------------------ adversarial


def _adversarial(
    batches: Sequence[Batch], settings: Settings, roles: Roles, *, weight: float, fabric: Any, out: Path
) -> VAE:
    """The last third of the training: the decoder alone, against a patch discriminator."""
    from monai.networks.nets import PatchDiscriminator

    device = fabric.device
    vae = weights_of(out / "two_thirds.safetensors", settings).to(device)
    pool = list(_pool(vae, settings, roles.training, device))
    reals = [_plain_pair(roles.training, number, device) for number in range(len(roles.training))]
    for parameter in vae.parameters():
        parameter.requires_grad_(False)
    for parameter in vae.decoder.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        judge = PatchDiscriminator(3, channels=32, in_channels=1, num_layers_d=2, norm="INSTANCE").to(device)
    decoder = [one for one in vae.parameters() if one.requires_grad]
    ours = torch.optim.AdamW(decoder, lr=3e-4, betas=(0.5, 0.99), weight_decay=1e-4)
    theirs = torch.optim.AdamW(judge.parameters(), lr=3e-4, betas=(0.5, 0.99))
    objective, averaged = Objective(vae, free_bits=0.0), [one.detach().clone() for one in decoder]
    last, generator = vae.decoder.layers[-1].weight, np.random.default_rng(0)  # type: ignore[union-attr,index]
    seen: list[Tensor] = []
    hook = vae.decoder.register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[union-attr]
    for step, batch in enumerate(map(_full, batches)):
        rate = min(1.0, 4 * (1 - step / len(batches)))
        for group in (*ours.param_groups, *theirs.param_groups):
            group["lr"] = 3e-4 * rate
        noise = torch.randn(len(batch.image), *vae.latent_shape(tuple(batch.image.shape[2:])), device=device)
        seen.clear()
        with fabric.autocast():
            shown = {"image": batch.image, "inputs": batch.image, "mask": batch.mask}
            terms = objective(**shown, noise=noise, beta=1.0, fit_spread=True)
            paired = step % 2 == 0
            if paired:
                real, fake, mask = batch.image, seen[0], batch.mask
            else:
                z, mask = _some(pool, generator, 2)
                image, other = _some(reals, generator, 2)
                real, fake, mask = image, vae.render(z), mask & other
            real, fake = (one.float() * mask for one in (real, fake))
            if generator.random() < 0.5:
                real, fake = real.flip(2), fake.flip(2)
            found = [judge(one) for one in (real, fake.detach())]
            wrong = 0.5 * ((found[0][-1].float() - 1).square().mean() + found[1][-1].float().square().mean())
        theirs.zero_grad(set_to_none=True)
        wrong.backward()
        theirs.step()
        with fabric.autocast():
            judged = judge(fake)
            term = (judged[-1].float() - 1).square().mean()
            if paired:
                with torch.no_grad():
                    wanted = judge(real)
                pairs = zip(judged[:-1], wanted[:-1], strict=True)
                term = term + sum(F.l1_loss(one.float(), other.float()) for one, other in pairs)
        norms = [torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (terms.loss, term)]
        ours.zero_grad(set_to_none=True)
        (terms.loss + weight * (norms[0] / norms[1].clamp(min=1e-8)).clamp(max=1e4) * term).backward()
        torch.nn.utils.clip_grad_norm_(decoder, settings.train.clip)
        ours.step()
        decay = min(0.99, step / (9 + step))
        with torch.no_grad():
            for mean, one in zip(averaged, decoder, strict=True):
                mean.lerp_(one, 1 - decay)
        if step % 60 == 0:
            values = f"error {terms.error:.3f}, discriminator {wrong:.3f}, decoder {term:.3f}"
            print(f"  adversarial:{weight:g} {step}: {values}, {norms[0]:.2g} {norms[1]:.2g}", flush=True)
    hook.remove()
    with torch.no_grad():
        for mean, one in zip(averaged, decoder, strict=True):
            one.copy_(mean)
    Learner(vae.requires_grad_(True), settings, fabric=fabric).finish(roles.validation)
    return vae


def _pool(vae: VAE, settings: Settings, training: Scans, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes of the sampler `density` with their outlines."""
    synthesizer = synthesizer_of(vae, settings, training, seed=100)
    edge = synthesizer.outline
    assert edge is not None
    for index in range(POOL):
        draw = synthesizer.fitted.draw(None, np.random.default_rng([100, index]), {})
        z: NDArray[np.float32] = draw.z  # type: ignore[union-attr]
        mask = edge.mask(z, np.zeros(0, np.float32))
        yield torch.from_numpy(z).to(device), torch.from_numpy(mask).to(device)


def _plain_pair(scans: Scans, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    one = scans[number]
    return torch.from_numpy(one.image).to(device), torch.from_numpy(one.mask).to(device)


def _some(pairs: Sequence[tuple[Tensor, Tensor]], generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    chosen = [pairs[int(at)] for at in generator.choice(len(pairs), count, replace=False)]
    return torch.stack([one for one, _ in chosen]), torch.stack([one for _, one in chosen])


# ------------------------------------------------------------------------------------------------------- the models


def synthesizer_of(
    vae: VAE, settings: Settings, training: Scans, *, seed: int, model: Model | None = None, **changes: Any
) -> Synthesizer:
    """The sampler `density` of a network and its training scans."""
    from medvae.synthesis import generate

    model = model or model_of(vae, settings, training)
    return generate.fit(model, AugmentSettings(sampler="density", **changes), seed=seed)


def model_of(vae: VAE, settings: Settings, training: Scans) -> Model:
    """A model of the training scans alone: validation scans stay unseen here."""
    return to_model(vae.eval(), training, labels=[None] * len(training), settings=settings, record={})


def samples_of(synthesizer: Synthesizer, count: int) -> list[Sample]:
    """The first samples."""
    return [synthesizer.sample(index) for index in range(count)]


def weights_of(path: Path, settings: Settings) -> VAE:
    """A network with stored weights."""
    vae = build_vae(settings, Conditions())
    vae.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return vae


def _keep(vae: VAE, path: Path) -> None:
    """Write weights as float16."""
    save_file({name: value.detach().cpu().half().contiguous() for name, value in vae.state_dict().items()}, path)


def say(record: dict[str, Any], path: Path) -> None:
    """Append a line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
