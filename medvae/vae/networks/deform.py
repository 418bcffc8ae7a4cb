"""A VAE over smooth invertible deformations of a learned template: sharp shapes, label maps, no folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medvae.errors import SettingsError
from medvae.settings import Frozen, LikelihoodSettings
from medvae.vae.base import VAE, Posterior
from medvae.vae.blocks import Conditioned, Conv, Decoder, Encoder, cells, channels_last, require_grid
from medvae.vae.diffeomorphism import exponential, force, refine, warp
from medvae.vae.observation import build_observation
from medvae.vae.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medvae.scan import Shape
    from medvae.vae.base import TrainingScan


_LOG_VARIANCE = -4.0  # of the posterior at first: a decoder that is given noise learns to ignore its latent
_FORCE = 8.0  # of the means of forces, so that they are about as large as images
_STEP = 0.3  # of a latent cell's mean force, that its coarse velocity moves by before anything is learned
_COARSE = 2.0  # voxels that a coarse velocity of 1 moves: those of N(0, I) are about as large as in brains at 2 mm


class Settings(Frozen):
    """Options of the network."""

    stem: int = Field(4, ge=1, description="voxels per axis folded into channels before the first convolution")
    channels: tuple[int, ...] = Field((32, 64), min_length=1, description="channels per level, each half as fine")
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    latent: int = Field(4, ge=3, description="channels of the latent; the first three are a coarse velocity")
    velocity: int = Field(2, ge=1, description="voxels that a cell of the velocity field spans; it divides stem")
    smooth: int = Field(1, ge=0, description="how often the velocity is averaged over 3x3x3 of its cells")
    passes: int = Field(
        2, ge=1, description="passes of the encoder; each corrects the reconstruction of the one before"
    )
    labels: tuple[int, ...] = Field(
        (), description="labels that the template carries; none: those of the training label maps"
    )


def build(settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> VAE:
    """The network for a grid and this many conditions.

    Raises:
        SettingsError: the stride does not divide the grid, or the velocity's not the stem.
    """
    vae = Deform(settings, likelihood, grid, conditions=conditions)
    channels_last(vae)
    return vae


class Deform(VAE):
    """The scan at x is the template at φ(x), times 1 + g(x), plus o(x) (Dalca et al., MICCAI 2018; Krebs et al., 2019).

    φ = exp(v) with the stationary velocity v that the decoder gives on a coarse grid; g and o are smooth changes of
    contrast, on a grid twice as coarse as the latent. All three are functions of z, and 0 where nothing is learned.

    The first three channels of z are a coarse velocity, to which the decoder adds detail. The encoder is iterative
    (Marino et al., ICML 2018): it compares the scan with the template, then with its own reconstruction. Both matter: a
    network that has to find out by itself that differences of images mean motion, learns a change of contrast instead.

    Averaging v over neighbouring cells is a part of the decoder: p(v) is N(0, I) pushed through it. Rough maps are
    improbable without a term in addition to the KL, so that the ELBO is what it is for every other network.

    Attributes:
        template: the image that is deformed, with log-odds of labels where training scans have label maps.
        grid: that it was built for.
    """

    def __init__(self, settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> None:
        super().__init__()
        if settings.stem % settings.velocity:
            message = f"model.options.velocity {settings.velocity} does not divide model.options.stem {settings.stem}"
            raise SettingsError(message, hint="set model.options.velocity=1")
        levels = {"channels": settings.channels, "blocks": settings.blocks}
        self.stride: int | None = settings.stem * 2 ** (len(settings.channels) - 1)
        self.latent, self.smooth, self.passes, self.grid = settings.latent, settings.smooth, settings.passes, grid
        shape = self.latent_shape(grid)
        self.observation = build_observation(likelihood)
        self.template = Template(grid, channels=self.observation.channels, labels=settings.labels)
        self.encoder = Encoder(stem=settings.stem, **levels, out=2 * settings.latent, into=2, beside=3)  # type: ignore[arg-type]
        unfolded = settings.stem // settings.velocity
        self.motion = Decoder(stem=unfolded, **levels, into=settings.latent, out=3)  # type: ignore[arg-type]
        self.contrast = Contrast(settings.latent, width=settings.channels[-1])
        _start(self.encoder.layers[-1], spread=None, bias=(0.0, _LOG_VARIANCE))
        _start(self.motion.layers[-1], spread=1e-3, bias=(0.0,))
        self.conditioned = Conditioned(conditions, shape)

    def begin(self, scans: Iterable[TrainingScan]) -> None:
        """Start from the mean of the training scans, and the frequency of each label there."""
        self.template.begin(scans, binary=self.observation.binary)
        self.keep_options({"labels": list(self.template.values)})

    def encode(self, x: Tensor, c: Tensor | None = None) -> Posterior:
        """q(z|x, c) of prepared images `(B, 1, X, Y, Z)`, seen with the template, then with what they become."""
        self.latent_shape((x.shape[2], x.shape[3], x.shape[4]))
        code, log_variance = self._look(x, self.template.image.detach())
        for _ in range(1, self.passes):
            with torch.no_grad():
                rebuilt = self._image(code)
            change, log_variance = self._look(x, rebuilt)
            code = code + change
        return self.conditioned.removed(Posterior.from_parameters(torch.cat([code, log_variance], 1)), c)

    def render(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The deformed template, its first channel with the contrast of the scan, `(B, channels, X, Y, Z)`."""
        return self._image(self.conditioned.added(z, c))

    def displacement(self, z: Tensor, c: Tensor | None = None, *, inverse: bool = False) -> Tensor:
        """u of φ(x) = x + u(x), `(B, 3, X, Y, Z)` in voxels: where in the template a voxel of the scan lies.

        Args:
            z: of the scan.
            c: conditions.
            inverse: of φ⁻¹ instead, from the template to the scan.
        """
        return self._displacement(self.conditioned.added(z, c), sign=-1.0 if inverse else 1.0)

    def change(self, z: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gain g and offset o of the contrast, both `(B, 1, X, Y, Z)` on the scan's grid."""
        return self._change(self.conditioned.added(z, c))

    def label_loss(self, z: Tensor, label_map: Tensor, c: Tensor | None = None) -> Tensor | None:
        """−ln p(labels|z) in nats: softmax of the deformed log-odds, at each voxel whose label the template carries."""
        if not self.template.values:
            return None
        classes = self.template.classes(label_map)
        loss: Tensor = F.cross_entropy(self._odds(z, c), classes, ignore_index=-1, reduction="sum")
        return loss

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the template."""
        return tuple(value for value in self.template.values if value != 0)

    def decode_labels(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The label with the greatest deformed log-odds, int16 `(B, 1, X, Y, Z)`."""
        values = torch.tensor(self.template.values, dtype=torch.int16, device=z.device)
        return values[self._odds(z, c).argmax(dim=1, keepdim=True)]

    def latent_shape(self, grid: Shape) -> tuple[int, ...]:
        """`(C, *latent)` of the grid that the network was built for."""
        assert self.stride is not None
        require_grid(grid, self.grid)
        return (self.latent, *cells(grid, self.stride))

    def _odds(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Log-odds of the labels, `(B, K, X, Y, Z)`."""
        return warp(self.template.odds, self.displacement(z, c), self.grid)

    def _look(self, x: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        """Change of the code and ln σ², from x and a decoder's output that should be like it."""
        image = self.observation(beside).mean.to(x.dtype)
        pull = _FORCE * F.avg_pool3d(force(x, image), self.encoder.stem)
        change, log_variance = self.encoder(torch.cat([x, image.expand_as(x)], 1), pull).chunk(2, dim=1)
        coarse = _STEP * F.adaptive_avg_pool3d(pull, change.shape[2:])
        return torch.cat([change[:, :3] + coarse, change[:, 3:]], 1), log_variance

    def _image(self, code: Tensor) -> Tensor:
        image = warp(self.template.image, self._displacement(code), self.grid)
        gain, offset = self._change(code)
        return torch.cat([(1 + gain) * image[:, :1] + offset, image[:, 1:]], 1)

    def _change(self, code: Tensor) -> tuple[Tensor, Tensor]:
        gain, offset = self.contrast(code, self.grid).chunk(2, dim=1)
        return gain, offset

    def _displacement(self, code: Tensor, *, sign: float = 1.0) -> Tensor:
        detail = self.motion(code).float()
        velocity = sign * (detail + _COARSE * F.interpolate(code[:, :3].float(), detail.shape[2:], mode="trilinear"))
        for _ in range(self.smooth):
            velocity = F.avg_pool3d(velocity, 3, stride=1, padding=1, count_include_pad=False)
        return refine(exponential(velocity, self.grid), self.grid)


class Contrast(nn.Module):
    """From a latent to gain and offset `(B, 2, X, Y, Z)`, smooth: one value per 2×2×2 latent cells."""

    def __init__(self, latent: int, *, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv(latent, width), nn.SiLU(), nn.Conv3d(width, 2, 1))
        _start(self.layers[-1], spread=1e-3, bias=(0.0,))

    def forward(self, code: Tensor, size: Shape) -> Tensor:
        """Linearly interpolated to a grid of `size`."""
        coarse = F.avg_pool3d(self.layers(code), 2, ceil_mode=True, count_include_pad=False)
        return refine(coarse, size)


def _start(layer: nn.Module, *, spread: float | None, bias: Sequence[float]) -> None:
    """First values of a layer's weights (as they are if None) and of its bias, in equal parts one after the other."""
    assert isinstance(layer, nn.Conv3d)
    assert layer.bias is not None
    if spread is not None:
        nn.init.normal_(layer.weight, std=spread)
    values = torch.tensor(bias).repeat_interleave(len(layer.bias) // len(bias))
    with torch.no_grad():
        layer.bias.copy_(values)
