"""The arms of `sharpness.py`: how each is trained, on batches that all of them share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from monai.networks.nets import PatchDiscriminator
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from medvae.checkpoint.model import build_vae
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.training.batches import Batch, ahead, training_batch
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.learner import Learner
from medvae.training.losses import Objective, Terms
from medvae.training.plan import Plan
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from medvae.checkpoint.model import Model
    from medvae.settings import Settings
    from medvae.synthesis.generate import Synthesizer
    from medvae.training.store import Scans
    from medvae.vae.base import VAE

    Volume = tuple[Tensor, Tensor]  # image or code, and mask

EDGE = 16  # voxels of a patch
BANDS = 8  # of the patches' spectra, up to the Nyquist frequency
POOL = 96  # codes that the discriminator is shown decoded
START = 2 / 3  # of the training, where the discriminator begins
LEAST_POWER = 1e-2  # per voxel: what is added before a logarithm
CHANNELS = 16  # of the first layer of the discriminator
RATE = 3e-4  # learning rate of decoder and discriminator when both are trained


class Roles(NamedTuple):
    """Training scans, validation scans (other subjects), further unseen scans."""

    training: Scans
    validation: Scans
    unseen: Scans


def train_all(options: argparse.Namespace, settings: Settings, roles: Roles) -> None:
    """Train the arms that are asked for, and write the weights of each."""
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

    def make(step: int) -> Batch:
        return training_batch(training, step=step, rank=0, world=1, settings=settings)

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
        return Adversarial(out / "two_thirds.safetensors", settings, roles, weight=weight, fabric=fabric).trained(own)
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
    ours, theirs = patch_power(output, image, mask)
    return 0.5 * ((ours + LEAST_POWER).log() - (theirs + LEAST_POWER).log())[..., _radius() > 0].abs().mean()


def band_term(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean ½|ln P(x) − ln P(x̂)| over bands of frequency of these patches."""
    which = band_matrix(output.device)
    ours, theirs = (one.flatten(1) @ which + LEAST_POWER for one in patch_power(output, image, mask))
    return 0.5 * (ours.log() - theirs.log()).abs().mean()


def patch_power(output: Tensor, image: Tensor, mask: Tensor, *, inside: float = 0.8) -> tuple[Tensor, Tensor]:
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


def band_matrix(device: torch.device) -> Tensor:
    """Means over bands of equal width up to the Nyquist frequency, `(coefficients, BANDS)`."""
    radius = _radius().flatten()
    band = ((radius - 1e-6) / (0.5 / BANDS)).floor()
    which = torch.stack([((band == number) & (radius > 0)).float() for number in range(BANDS)], 1)
    return (which / which.sum(0)).to(device)


class Adversarial:
    """The last third of the training: the decoder alone, against a patch discriminator."""

    def __init__(self, start: Path, settings: Settings, roles: Roles, *, weight: float, fabric: Any) -> None:
        self.settings, self.roles, self.weight, self.fabric = settings, roles, weight, fabric
        self.device: torch.device = fabric.device
        self.vae = weights_of(start, settings).to(self.device)
        self.decoded = _pool(self.vae, settings, roles.training, self.device)
        self.reals = [_volume(roles.training, number, self.device) for number in range(len(roles.training))]
        self.vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)  # type: ignore[union-attr]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            judge = PatchDiscriminator(3, channels=CHANNELS, in_channels=1, num_layers_d=2, norm="INSTANCE")
        self.judge = judge.to(self.device)
        self.weights = [one for one in self.vae.parameters() if one.requires_grad]
        self.ours = torch.optim.AdamW(self.weights, lr=RATE, betas=(0.5, 0.99), weight_decay=1e-4)
        self.theirs = torch.optim.AdamW(self.judge.parameters(), lr=RATE, betas=(0.5, 0.99))
        self.objective, self.generator = Objective(self.vae, free_bits=0.0), np.random.default_rng(0)
        self.noise = torch.Generator().manual_seed(2)
        self.averaged = [one.detach().clone() for one in self.weights]

    def trained(self, batches: Sequence[Batch]) -> VAE:
        """The network with the averaged weights and a frozen σ."""
        for step, batch in enumerate(map(_full, batches)):
            for group in (*self.ours.param_groups, *self.theirs.param_groups):
                group["lr"] = RATE * min(1.0, 4 * (1 - step / len(batches)))
            said = self._step(batch, paired=step % 2 == 0)
            decay = min(0.99, step / (9 + step))
            with torch.no_grad():
                for mean, one in zip(self.averaged, self.weights, strict=True):
                    mean.lerp_(one, 1 - decay)
            if step % 60 == 0:
                print(f"  adversarial:{self.weight:g} {step}: {said()}", flush=True)
        with torch.no_grad():
            for mean, one in zip(self.averaged, self.weights, strict=True):
                one.copy_(mean)
        Learner(self.vae.requires_grad_(True), self.settings, fabric=self.fabric).finish(self.roles.validation)
        return self.vae

    def _step(self, batch: Batch, *, paired: bool) -> Callable[[], str]:
        terms, reconstructed = self._likelihood(batch)
        if paired:
            real, fake, mask = batch.image, reconstructed, batch.mask
        else:
            real, fake, mask = self._unpaired(len(batch.image))
        real, fake = (one.float() * mask for one in (real, fake))  # both end where both do
        if self.generator.random() < 0.5:
            real, fake = real.flip(2), fake.flip(2)
        wrong = self._judge_step(real, fake.detach())
        term = self._fooled(real, fake, paired=paired)
        last = self.vae.decoder.layers[-1].weight  # type: ignore[union-attr,index]
        norms = [torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (terms.loss, term)]
        share = (norms[0] / norms[1].clamp(min=1e-8)).clamp(max=1e4)
        self.ours.zero_grad(set_to_none=True)
        (terms.loss + self.weight * share * term).backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.train.clip)
        self.ours.step()
        return lambda: f"error {terms.error:.3f}, discriminator {wrong:.3f}, decoder {term:.3f}"

    def _likelihood(self, batch: Batch) -> tuple[Terms, Tensor]:
        """The objective of a batch, and its reconstructions."""
        seen: list[Tensor] = []
        hook = self.vae.decoder.register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[union-attr]
        size = batch.image.shape[2:]
        shape = (len(batch.image), *self.vae.latent_shape((size[0], size[1], size[2])))
        noise = torch.randn(shape, generator=self.noise).to(self.device)
        shown = {"image": batch.image, "inputs": batch.image, "mask": batch.mask}
        with self.fabric.autocast():
            terms: Terms = self.objective(**shown, noise=noise, beta=1.0, fit_spread=True)
        hook.remove()
        return terms, seen[0]

    def _unpaired(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Training scans as they are, decoded codes of `density`, and where both are foreground."""
        z, mask = self._some(self.decoded, count)
        image, other = self._some(self.reals, count)
        with self.fabric.autocast():
            return image, self.vae.render(z), mask & other

    def _some(self, volumes: Sequence[Volume], count: int) -> Volume:
        chosen = [volumes[int(at)] for at in self.generator.choice(len(volumes), count, replace=False)]
        return torch.stack([one for one, _ in chosen]), torch.stack([one for _, one in chosen])

    def _judge_step(self, real: Tensor, fake: Tensor) -> Tensor:
        """Least squares (Mao et al., ICCV 2017)."""
        with self.fabric.autocast():
            said = [self.judge(one)[-1].float() for one in (real, fake)]
        wrong: Tensor = 0.5 * ((said[0] - 1).square().mean() + said[1].square().mean())
        self.theirs.zero_grad(set_to_none=True)
        wrong.backward()
        self.theirs.step()
        return wrong.detach()

    def _fooled(self, real: Tensor, fake: Tensor, *, paired: bool) -> Tensor:
        """What the decoder gets; of pairs with feature matching (Wang et al., CVPR 2018)."""
        with self.fabric.autocast():
            said = self.judge(fake)
            term: Tensor = (said[-1].float() - 1).square().mean()
            if paired:
                with torch.no_grad():
                    wanted = self.judge(real)
                for one, other in zip(said[:-1], wanted[:-1], strict=True):
                    term = term + F.l1_loss(one.float(), other.float())
        return term


def _pool(vae: VAE, settings: Settings, training: Scans, device: torch.device) -> list[Volume]:
    """Codes of the sampler `density` with their outlines."""
    synthesizer = synthesizer_of(model_of(vae, settings, training), seed=100)
    edge, pool = synthesizer.outline, []
    assert edge is not None
    for index in range(POOL):
        draw = synthesizer.fitted.draw(None, np.random.default_rng([100, index]), {}, 0)
        z = draw.z  # type: ignore[union-attr]
        mask = edge.mask(z, np.zeros(0, np.float32))
        pool.append((torch.from_numpy(z).to(device), torch.from_numpy(mask).to(device)))
    return pool


def _volume(scans: Scans, number: int, device: torch.device) -> Volume:
    one = scans[number]
    return torch.from_numpy(one.image).to(device), torch.from_numpy(one.mask).to(device)


def synthesizer_of(model: Model, *, seed: int, **changes: Any) -> Synthesizer:
    """The sampler `density` of a model."""
    return generate.fit(model, AugmentSettings(sampler="density", **changes), seed=seed)


def model_of(vae: VAE, settings: Settings, training: Scans) -> Model:
    """A model of the training scans alone: validation scans stay unseen here."""
    return to_model(vae.eval(), training, labels=[None] * len(training), settings=settings, record={})


def weights_of(path: Path, settings: Settings) -> VAE:
    """A network with stored weights."""
    vae = build_vae(settings, Conditions())
    vae.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return vae


def _keep(vae: VAE, path: Path) -> None:
    """Write weights as float16."""
    save_file({name: value.detach().cpu().half().contiguous() for name, value in vae.state_dict().items()}, path)
