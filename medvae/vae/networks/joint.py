"""A VAE of image and label map, decoded together from the latent alone: labelled samples without donors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from medvae.errors import SettingsError
from medvae.vae.blocks import Conv, channels_last, unfold
from medvae.vae.distances import censored_log_prob, truncated_distance, truncated_distances
from medvae.vae.label_sums import LabelSums
from medvae.vae.networks._convolutional import Convolutional, ConvolutionalSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medvae.scan import Shape
    from medvae.settings import LikelihoodSettings
    from medvae.vae.base import VAE, TrainingScan


class Settings(ConvolutionalSettings):
    """Options of the network."""

    reach: float = Field(5.0, gt=0, description="distances to the border of a structure are truncated here, mm")
    labels: tuple[int, ...] = Field(
        (), description="structures that are decoded; none: all values above 0 of the training label maps"
    )


def build(settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> VAE:
    """The network for a grid and this many conditions.

    Raises:
        SettingsError: the stride does not divide the grid.
    """
    vae = Joint(settings, likelihood, grid, conditions=conditions)
    channels_last(vae)
    return vae


class Joint(Convolutional):
    """p(x, l|z) = p(x|z) p(l|z): image and label map are independent given z, and both are decoded from it alone.

    p(l|z) is that of the signed distances to the border of each structure (`censored_log_prob`). The encoder sees the
    image alone, so that scans without a label map can be encoded. Before `begin` it decodes no labels.

    Attributes:
        shapes: from the decoder's features to signed distances; None where it decodes no labels.
        grid: that it was built for.
    """

    def __init__(self, settings: Settings, likelihood: LikelihoodSettings, grid: Shape, *, conditions: int = 0) -> None:
        super().__init__(settings, likelihood, grid, conditions=conditions)
        self.grid, self.reach, self.width = grid, settings.reach, settings.channels[0]
        self.shapes = self._shapes(settings.labels) if settings.labels else None

    @property
    def labels(self) -> tuple[int, ...]:
        """The structures."""
        return () if self.shapes is None else self.shapes.labels

    def begin(self, scans: Iterable[TrainingScan]) -> None:
        """See which structures there are, and where they lie on average.

        Raises:
            SettingsError: no training scan has a label map with such a structure, or there are too many.
        """
        wanted, spacing = self.labels, (1.0, 1.0, 1.0)
        sums = LabelSums(wanted, least=1)
        for scan in scans:
            if scan.label_map is not None:
                spacing = scan.spacing  # of the grid, so of all
                sums.add(scan.label_map, partial(self._nearness, spacing=spacing))
        self._require(sums, wanted)
        mean = torch.stack([sums.sums[value] for value in sums.labels])[None] / sums.scans - self.reach
        self.shapes = self._shapes(sums.labels)
        self.shapes.begin(mean, spacing)
        self.keep_options({"labels": list(sums.labels)})

    def distances(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Signed distance to the border of each structure, mm, positive inside, `(B, K, X, Y, Z)` float32."""
        assert self.shapes is not None
        distances: Tensor = self.shapes(self.decoder.features(self.conditioned.added(z, c)))
        return distances

    def label_loss(self, z: Tensor, label_map: Tensor, c: Tensor | None = None) -> Tensor | None:
        """−ln p(l|z) in nats, over the voxels of all scans with a label map."""
        if self.shapes is None:
            return None
        known = label_map >= 0
        target = truncated_distances(label_map, self.labels, self.shapes.spacing.tolist(), reach=self.reach)
        at, log_scale = self.distances(z, c), self.shapes.log_scale.float()
        return -(censored_log_prob(target, at, log_scale=log_scale, reach=self.reach) * known).sum()

    def decode_labels(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The structure that a voxel is deepest in, 0 where it is outside of all: int16 `(B, 1, X, Y, Z)`."""
        depth, at = self.distances(z, c).max(dim=1, keepdim=True)
        values = torch.tensor(self.labels, dtype=torch.int16, device=at.device)
        return torch.where(depth > 0, values[at], 0)

    def _nearness(self, mask: Tensor, *, spacing: Sequence[float]) -> Tensor:
        """Truncated distances from −reach on, so that a scan without the structure adds nothing to a sum."""
        return torch.from_numpy(truncated_distance(mask.numpy(), spacing, reach=self.reach) + self.reach)

    def _require(self, sums: LabelSums, wanted: Sequence[int]) -> None:
        """Raise an error where a structure is in no training scan, or there is none at all."""
        missing = [value for value in wanted if value not in sums.sums or not sums.sums[value].any()]
        if missing or not sums.sums:
            what = f"none with the labels {missing}" if missing else "no training scan has one with a value above 0"
            hint = "give a list of scans with the column `label_map`, or set model.name=spatial to decode images alone"
            raise SettingsError(f"the network 'joint' learns label maps, and there is {what}", hint=hint)

    def _shapes(self, labels: Sequence[int]) -> Shapes:
        return Shapes(self.width, labels=labels, grid=self.grid, stem=self.decoder.stem)


class Shapes(nn.Module):
    """From a decoder's features to the signed distances of K structures: those of the mean scan, and a deviation.

    Attributes:
        mean: mean of the training scans' distances, mm, `(1, K, X, Y, Z)`.
        spacing: voxel size of the grid, mm, `(3,)`.
        log_scale: ln σ of the distances, σ in mm.
    """

    mean: Tensor
    spacing: Tensor

    def __init__(self, width: int, *, labels: Sequence[int], grid: Shape, stem: int) -> None:
        super().__init__()
        self.labels, self.stem = tuple(labels), stem
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.layer = Conv(width, len(labels) * stem**3)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.zeros(1, len(labels), *grid))
        self.register_buffer("spacing", torch.ones(3))
        channels_last(self)

    def begin(self, mean: Tensor, spacing: Sequence[float]) -> None:
        """Start from the mean distances of the training scans."""
        self.mean.copy_(mean)
        self.spacing.copy_(torch.tensor(spacing))

    def forward(self, features: Tensor) -> Tensor:
        """`(B, K, X, Y, Z)`, float32."""
        return self.mean + unfold(self.layer(features), self.stem).float()
