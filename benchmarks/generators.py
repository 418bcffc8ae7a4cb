"""Generators of the synthetic cases of `utility.py`: networks and samplers of medvae, and other packages.

Each is given only the real cases of one draw, and returns cases with label maps on the same grid. Other packages:

- `torchio`: random affine and elastic transforms of the cases (TorchIO, Pérez-García et al. 2021), with its defaults;
- `autoencoderkl`: MONAI's AutoencoderKL on image and signed distances of the labels, with a Gaussian (shrunk as
  `density` is) over its codes;
- `rhvae`: the RHVAE of pyraug (Chadebec et al. 2022), its own networks and defaults, on the same channels. Needs
  `pip install --no-deps pyraug dill`.

The last two are trained for as many seconds as they are given. Labels come from the decoded distances: the structure
whose distance is largest, where it is positive.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvae.errors import ScanError
from medvae.evaluation.image_set import ImageSet
from medvae.prepare.grid import box_around
from medvae.settings import load_settings
from medvae.synthesis.samplers._density import ledoit_wolf
from medvae.synthesis.synthesize import whole_set
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.networks import fit_networks
from medvae.training.roles import Roles
from medvae.training.store import Scans, store
from medvae.vae.distances import truncated_distance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

REACH = 4.0  # mm, of signed distances
HELD = 10.0  # of prepared intensities, which the RHVAE is given as 0 to 1


@dataclass(frozen=True)
class How:
    """How synthetic cases are made.

    Attributes:
        count: of cases.
        steps: of the networks of medvae.
        seconds: that the networks of other packages are trained for.
        device: of all networks.
        seed: of everything random.
    """

    count: int
    steps: int
    seconds: float
    device: str
    seed: int = 0


def of_medvae(config: str, cases: Sequence[Prepared], how: How, *, labels: Sequence[str | None] | None = None) -> Model:
    """A model of a preset, trained on these cases; none are set aside, and no maps are calibrated."""
    changes = {"train.minutes": None, "train.steps": how.steps, "train.validation": 0, "detector.steps": 0}
    settings = load_settings(config, {**changes, "seed": how.seed})
    fabric = make_fabric(how.device, precision=settings.train.precision)
    with TemporaryDirectory() as place:
        files = [Path(place) / f"{number}.safetensors" for number in range(len(cases))]
        for one, file in zip(cases, files, strict=True):
            store(one, file)
        every, classes = Scans(files), tuple(labels or [None] * len(cases))
        roles = Roles(every, classes, Scans(files), Scans([]))
        torch.manual_seed(settings.seed)
        fitted = fit_networks(roles, settings, fabric=fabric, folder=Path(place) / "model", resume=False)
        return to_model(fitted.vae, every, labels=classes, settings=fitted.settings, record=fitted.record)


def sampled(model: Model, sampler: str, how: How) -> ImageSet:
    """Samples of a model, as `medvae augment` gives them: implausible draws and near-copies are drawn again."""
    whole = whole_set(model, {"sampler": sampler}, seed=how.seed, device=how.device)
    samples = []
    for index in range(how.count):
        try:
            samples.append(whole.accepted(index).sample)
        except ScanError as problem:  # all of its draws were rejected
            print(f"sample {index}: {problem}", flush=True)
    return ImageSet.from_samples(samples) if samples else ImageSet.from_reconstructions(model).take([])


def torchio(cases: Sequence[Prepared], how: How) -> ImageSet:
    """Random affine and elastic transforms; TorchIO fills what comes from beyond the grid."""
    import torchio as tio  # type: ignore[import-not-found]

    change = tio.Compose([tio.RandomAffine(), tio.RandomElasticDeformation()])
    rng = np.random.default_rng(how.seed)
    torch.manual_seed(how.seed)
    made = []
    for index in range(how.count):
        one = cases[int(rng.integers(len(cases)))]
        affine, maps = one.grid.affine, _labels(one)
        subject = tio.Subject(
            image=tio.ScalarImage(tensor=torch.from_numpy(one.image), affine=affine),
            labels=tio.LabelMap(tensor=torch.from_numpy(maps.astype(np.int32)), affine=affine),
        )
        new = change(subject)
        image, labels = new["image"].data.numpy(), new["labels"].data.numpy().astype(np.int16)
        made.append(replace(one, id=f"torchio-{index}", image=image, label_map=labels))
    return ImageSet.from_prepared(made, classes=[None] * len(made))


def autoencoderkl(cases: Sequence[Prepared], how: How) -> ImageSet:
    """Samples of a Gaussian over the codes of MONAI's AutoencoderKL."""
    from monai.networks.nets import AutoencoderKL

    data, values = _channels(cases)
    x = _padded(torch.from_numpy(data), 8).to(how.device)
    torch.manual_seed(how.seed)
    net = AutoencoderKL(
        spatial_dims=3,
        in_channels=x.shape[1],
        out_channels=x.shape[1],
        channels=(16, 32, 64),
        latent_channels=4,
        num_res_blocks=1,
        attention_levels=(False,) * 3,
        norm_num_groups=16,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    ).to(how.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def loss(batch: Tensor) -> Tensor:
        decoded, mean, sigma = net(batch)
        kl: Tensor = 0.5 * (mean**2 + sigma**2 - 2 * sigma.log() - 1).mean()
        return F.l1_loss(decoded, batch) + 1e-4 * kl

    steps = _train(loss, optimizer, x, how)
    with torch.no_grad():
        means, sigmas = zip(*(net.encode(one[None]) for one in x), strict=True)
        codes, variance = torch.cat(means).cpu().numpy(), torch.cat(sigmas).cpu().numpy() ** 2
        drawn = _gaussian(codes.reshape(len(codes), -1), variance.reshape(len(codes), -1), how)
        z = torch.from_numpy(drawn.reshape(-1, *codes.shape[1:])).to(how.device)
        made = torch.cat([net.decode(one[None]) for one in z]).cpu().numpy()
    print(f"autoencoderkl: {steps} steps", flush=True)
    return _cases(made[(..., *(slice(n) for n in data.shape[2:]))], cases, values, name="autoencoderkl")


def rhvae(cases: Sequence[Prepared], how: How) -> ImageSet:
    """Samples of pyraug's RHVAE by its own sampler; values from 0 to 1, as its networks need."""
    from pyraug.models import RHVAE  # type: ignore[import-not-found]
    from pyraug.models.rhvae import RHVAEConfig, RHVAESamplerConfig  # type: ignore[import-not-found]
    from pyraug.models.rhvae.rhvae_sampler import RHVAESampler  # type: ignore[import-not-found]

    data, values = _channels(cases)
    low = np.array([-HELD, *[-REACH] * len(values)], np.float32)[:, None, None, None]
    x = torch.from_numpy(np.clip((data - low) / (-2 * low), 0, 1)).flatten(1).to(how.device)
    torch.manual_seed(how.seed)
    net = RHVAE(RHVAEConfig(input_dim=x.shape[1], eps_lf=1e-4)).to(how.device)  # the step of its own demonstration
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net.train()

    def loss(batch: Tensor) -> Tensor:
        result: Tensor = net({"data": batch}).loss
        net.M, net.centroids = net.M[-len(x) :], net.centroids[-len(x) :]
        return result

    steps = _train(loss, optimizer, x, how)
    net.M, net.centroids = [], []
    for one in x.split(10):  # its metric at the end of training
        net({"data": one})
    net.update()
    net.eval()
    with TemporaryDirectory() as place:
        sampler = RHVAESampler(net, RHVAESamplerConfig(output_dir=place, batch_size=how.count))
        with torch.no_grad():
            made = net.decoder(sampler.hmc_sampling(how.count)).reshape(how.count, *data.shape[1:]).cpu().numpy()
    print(f"rhvae: {steps} steps", flush=True)
    return _cases(made * (-2 * low) + low, cases, values, name="rhvae")


OTHERS: dict[str, Callable[[Sequence[Prepared], How], ImageSet]] = {
    "torchio": torchio,
    "autoencoderkl": autoencoderkl,
    "rhvae": rhvae,
}


def _train(loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, how: How) -> int:
    """Steps of batches of up to four cases, until the time is up; returns their number."""
    generator, begun, steps = torch.Generator().manual_seed(how.seed), time.monotonic(), 0
    while time.monotonic() - begun < how.seconds:
        batch = x[torch.randperm(len(x), generator=generator)[:4]]
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), 10.0)
        optimizer.step()
        steps += 1
        value.item()  # the device has done it
    return steps


def _labels(one: Prepared) -> NDArray[np.int16]:
    assert one.label_map is not None
    return one.label_map


def _channels(cases: Sequence[Prepared]) -> tuple[NDArray[np.float32], list[int]]:
    """Image and signed distances, `(n, 1 + K, X, Y, Z)`, in the box that holds all foregrounds; the label values."""
    values = sorted({int(v) for one in cases for v in np.unique(_labels(one))} - {0})
    box = _box(cases)
    found = []
    for one in cases:
        spacing, maps = one.grid.spacing, _labels(one)[0]
        distances = [truncated_distance(maps == value, spacing, reach=REACH) for value in values]
        found.append(np.stack([one.image[0], *distances])[(slice(None), *box)])
    return np.stack(found).astype(np.float32), values


def _box(cases: Sequence[Prepared]) -> tuple[slice, slice, slice]:
    x, y, z = box_around(np.any([one.mask[0] for one in cases], axis=0))
    return x, y, z


def _cases(made: NDArray[np.float32], cases: Sequence[Prepared], values: Sequence[int], *, name: str) -> ImageSet:
    """Decoded channels as cases, each with the field of view of one of the real ones in turn."""
    box, scans = _box(cases), []
    for index, channels in enumerate(made):
        like = cases[index % len(cases)]
        image, labels = np.zeros_like(like.image), np.zeros(like.image.shape, np.int16)
        best = channels[1:].argmax(axis=0)
        image[(0, *box)] = channels[0]
        labels[(0, *box)] = np.where(channels[1:].max(axis=0) > 0, np.array(values)[best], 0)
        image, labels = np.where(like.mask, image, 0), np.where(like.mask, labels, 0)
        scans.append(replace(like, id=f"{name}-{index}", image=image, label_map=labels.astype(np.int16)))
    return ImageSet.from_prepared(scans, classes=[None] * len(scans))


def _gaussian(codes: NDArray[np.float32], variance: NDArray[np.float32], how: How) -> NDArray[np.float32]:
    """New codes by the formula of `density`, `(count, D)`."""
    n, size = codes.shape
    centred = codes - codes.mean(axis=0)
    share = ledoit_wolf(centred)
    isotropic = np.square(centred).sum() / size / (n - 1)
    rng = np.random.default_rng(how.seed)
    weights = rng.standard_normal((how.count, n)) / np.sqrt(n - 1)
    noise = rng.standard_normal((how.count, size)) * np.sqrt(share * isotropic + variance.mean(axis=0))
    result: Any = codes.mean(axis=0) + np.sqrt(1 - share) * (weights @ centred) + noise
    return np.asarray(result, np.float32)


def _padded(x: Tensor, multiple: int) -> Tensor:
    pads = [amount for size in reversed(x.shape[2:]) for amount in (0, -size % multiple)]
    return F.pad(x, pads)
