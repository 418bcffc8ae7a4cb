"""Fitting the network of lesion crops: a few lesions, turned, mirrored and scaled at random.

It takes a minute or two and begins anew when a training is resumed: all that is random follows from the seed and the
number of the step, so that it ends with the same weights on the CPU.
"""

from __future__ import annotations

import logging
import math
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from medvae.checkpoint.lesion_codes import LesionCodes, lesions_in
from medvae.cohort.names import plural
from medvae.errors import InputError
from medvae.io.formats import nifti
from medvae.lesions.crops import SIDE, crops_of_mask, crops_of_scan
from medvae.lesions.network import build, squared_errors
from medvae.prepare.preparation import Preparation
from medvae.run.work import Progress, ignore
from medvae.scan import ScanRef
from medvae.training.learner import TrainingError
from medvae.training.losses import rate_at
from medvae.vae.base import log_likelihood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from medvae.lesions.crops import Crop
    from medvae.lesions.network import LesionVAE
    from medvae.settings import ReadSettings, Settings
    from medvae.training.store import Scans

log = logging.getLogger(__name__)

_MASKS = (".nii", ".nii.gz")
_STREAM = 7  # of the seed, beside those of the other networks
_SHOWN = 5  # label values in a warning
_LEAST = 2  # lesions; a density needs a variance
_TURN_DEGREES, _SCALE = 10.0, 0.1  # standard deviations of the random changes
_HIDDEN = 0.3  # how often the change is hidden, so that masks without scans have codes like the others
_WARMUP, _KL_WARMUP, _CLIP = 0.05, 0.25, 1.0
_DETAIL = 0.5  # where no lesion is large enough to measure it


def find_crops(scans: Scans, settings: Settings, *, masks: Sequence[Path] = ()) -> list[Crop]:
    """The lesions in the label maps of prepared scans, and in masks without scans; none where none are wanted.

    Args:
        scans: of the training.
        settings: of the run.
        masks: NIfTI files of other patients; every voxel above 0 counts.

    Raises:
        InputError: fewer than two lesions.
        ScanError: a mask cannot be read.
    """
    wanted = settings.lesions
    if not wanted.steps:
        return []
    grid, found, others, without = Preparation(settings.prepare).grid, [], set(), 0
    for prepared in (scans[index] for index in range(len(scans))):
        if prepared.label_map is None:
            without += 1
        else:
            others |= {int(one) for one in np.unique(prepared.label_map)} - {0, *wanted.labels}
            lesions, foreground = lesions_in(prepared.label_map[0], wanted.labels), prepared.mask[0]
            found += crops_of_scan(
                prepared.image[0],
                lesions,
                foreground=foreground,
                geometry=grid,
                source=prepared.id,
                least=wanted.least,
            )
    if wanted.labels and others and without:
        message = "%s without a label map, while others mark %s besides lesions: there, label maps of samples hold 0"
        log.warning(message, plural(without, "scan"), ", ".join(map(str, sorted(others)[:_SHOWN])))
    for number, path in enumerate(masks, start=1):
        values, geometry = nifti.read_values(path, settings.read)
        least = max(1, round(wanted.least * grid.voxel_volume / geometry.voxel_volume))
        found += crops_of_mask(values > 0, geometry=geometry, source=f"mask-{number:03d}", least=least)
    if len(found) < _LEAST:
        message = f"at least {_LEAST} lesions of {wanted.least} voxels are needed, the scans have {len(found)}"
        hint = "name label maps that mark lesions in a list (column label_map), or correct lesions.labels"
        raise InputError(message, hint=hint)
    return found


def mask_files(folder: Path, settings: ReadSettings) -> list[Path]:
    """The NIfTI files of a folder in the order of their names, or the file itself; hidden files are passed over.

    Raises:
        InputError: there are none.
        ScanError: the header of one says that it cannot be used.
    """
    visible = sorted(folder.glob("[!.]*"))
    files = [folder] if folder.is_file() else [one for one in visible if one.name.lower().endswith(_MASKS)]
    if not files:
        raise InputError("no masks (.nii, .nii.gz)", path=folder, hint="correct the path")
    for path in files:
        nifti.inspect(ScanRef("", "nifti", (path,)), settings)
    return files


def masks_hash(masks: Sequence[Path]) -> str:
    """SHA-256 of the files, in their order."""
    digest = sha256()
    for path in masks:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fit_lesions(
    crops: Sequence[Crop],
    settings: Settings,
    *,
    device: torch.device,
    on_progress: Callable[[Progress], None] = ignore,
) -> tuple[LesionVAE, LesionCodes]:
    """Train the network, and encode every lesion.

    Args:
        crops: of `find_crops`.
        settings: of the run.
        device: where it is trained.
        on_progress: called after each step, with the stage "lesions".

    Raises:
        TrainingError: the loss is not a number.
    """
    wanted = settings.lesions
    net = build(wanted.channels, wanted.latent, seed=settings.seed)
    data = _Data(crops, latent=wanted.latent, seed=settings.seed)
    net.centre_on(data.x, data.weight)
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=wanted.lr, weight_decay=1e-4)
    for step in range(wanted.steps):
        rate = wanted.lr * rate_at(step / wanted.steps, step=1 / wanted.steps, warmup=_WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, shown, weight, noise = (one.to(device) for one in data.batch(step, size=wanted.batch))
        beta = min(1.0, (step + 1) / max(1.0, _KL_WARMUP * wanted.steps))
        loss = _loss(net, x, shown, weight=weight, noise=noise, beta=beta)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), _CLIP)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError("the loss of the lesions is not a number", hint="lower lesions.lr")
        on_progress(Progress("lesions", step + 1, wanted.steps, f"loss {value:.3f}"))
    net.eval().requires_grad_(requires_grad=False)
    return net, _codes(net, data, crops, labels=wanted.labels)


def _loss(net: LesionVAE, x: Tensor, shown: Tensor, *, weight: Tensor, noise: Tensor, beta: float) -> Tensor:
    """−ELBO of a batch in nats per voxel, with the most likely σ of each channel."""
    posterior = net.encode(shown)
    likelihood = net.observation.optimal(net.render(posterior.sample(noise)), x, weight)
    bound = log_likelihood(x, weight, likelihood) - beta * posterior.kl().sum(1)
    return -bound.mean() / SIDE**3


class _Data:
    """The crops as tensors, `(n, 2, S, S, S)`, and where they count."""

    def __init__(self, crops: Sequence[Crop], *, latent: int, seed: int) -> None:
        self.seed, self.latent = seed, latent
        self.x = torch.from_numpy(np.stack([np.stack([one.profile, one.distance]) for one in crops]))
        counts = [np.stack([one.support & one.known, np.ones_like(one.support)]) for one in crops]
        self.weight = torch.from_numpy(np.stack(counts).astype(np.float32))

    def batch(self, step: int, *, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops with random changes, what the encoder is shown of them, where they count, and noise for the latent."""
        rng = np.random.default_rng([self.seed, _STREAM, step])
        rows = torch.from_numpy(rng.integers(len(self.x), size=size))
        turned, scale = _turns(rng, size)
        both = torch.cat([self.x[rows], self.weight[rows, :1]], 1)
        grid = F.affine_grid(torch.from_numpy(turned), list(both.shape), align_corners=False)
        moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
        support = moved[:, 2] > 0.5
        change = torch.where(support, moved[:, 0], 0)
        distance = (moved[:, 1] * torch.from_numpy(scale).view(-1, 1, 1, 1)).clamp(-1, 1)
        hidden = torch.from_numpy(rng.random(size) < _HIDDEN) | ~support.flatten(1).any(1)
        x = torch.stack([change, distance], 1)
        shown = torch.stack([torch.where(hidden.view(-1, 1, 1, 1), torch.nan, change), distance], 1)
        weight = torch.stack([support.float(), torch.ones_like(distance)], 1)
        noise = torch.from_numpy(rng.standard_normal((size, self.latent), np.float32))
        return x, shown, weight, noise


def _turns(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random maps of a crop's places `(B, 3, 4)`: small turns, mirrors, stretches; how much distances grow `(B,)`."""
    turn = Rotation.from_rotvec(np.radians(rng.normal(0, _TURN_DEGREES, (size, 3)))).as_matrix()
    stretch = np.exp(rng.normal(0, _SCALE, (size, 3)))
    mirror = rng.choice([-1.0, 1.0], (size, 3))
    maps = np.concatenate([turn * (mirror / stretch)[:, None, :], np.zeros((size, 3, 1))], 2)
    return maps.astype(np.float32), np.cbrt(stretch.prod(1)).astype(np.float32)


def _codes(net: LesionVAE, data: _Data, crops: Sequence[Crop], *, labels: tuple[int, ...]) -> LesionCodes:
    """Freeze σ at the posterior means, and keep what the sampler needs."""
    device = next(net.parameters()).device
    x, weight = data.x.to(device), data.weight.to(device)
    with torch.no_grad():
        nothing = weight[:, :1].amax((2, 3, 4), keepdim=True) == 0
        posterior = net.encode(torch.cat([torch.where(nothing, torch.nan, x[:, :1]), x[:, 1:]], 1))
        net.observation.freeze_at(squared_errors(net.render(posterior.mean), x, weight))
    sources = [one.source for one in crops]
    details = [one.detail for one in crops if math.isfinite(one.detail)]
    return LesionCodes(
        mean=posterior.mean.cpu().numpy(),
        log_variance=posterior.log_variance.cpu().numpy(),
        changes=np.array([one.change for one in crops]),
        sizes=np.stack([one.sizes for one in crops]),
        axes=np.stack([one.axes for one in crops]),
        places=np.stack([one.place if np.isfinite(one.level) else np.full(3, np.nan) for one in crops]),
        levels=np.array([one.level for one in crops]),
        counts=np.array([sources.count(one) for one in dict.fromkeys(sources)], np.int64),
        sources=sources,
        detail=float(np.median(details)) if details else _DETAIL,
        labels=labels,
    )
