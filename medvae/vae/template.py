"""The image that a network deforms, learned with it: it starts from the mean of the training scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from medvae.vae.label_sums import LabelSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medvae.scan import Shape
    from medvae.vae.base import TrainingScan

_GAIN = 8.0  # a voxel of the template is a mean over scans, and bears larger steps of the optimiser than a network does
_EDGE = 0.02  # a mean of binary scans is kept this far from 0 and 1, where its logit is finite


class Template(nn.Module):
    """An image on the grid, with log-odds of each label beside it where training scans have label maps.

    Attributes:
        values: the labels in the order of `odds`, ascending.
    """

    def __init__(self, grid: Shape, *, channels: int, labels: Sequence[int]) -> None:
        super().__init__()
        self.image_weights = nn.Parameter(torch.zeros(1, channels, *grid))
        self.values = tuple(labels)
        if labels:
            self.odds_weights = nn.Parameter(torch.zeros(1, len(labels), *grid))

    @property
    def image(self) -> Tensor:
        """What the decoder deforms, `(1, channels, X, Y, Z)`: the parameters of p(x|z), means (or logits) first."""
        return _GAIN * self.image_weights

    @property
    def odds(self) -> Tensor:
        """Log-odds of the labels, `(1, K, X, Y, Z)`; only where there are labels."""
        return _GAIN * self.odds_weights

    def begin(self, scans: Iterable[TrainingScan], *, binary: bool) -> None:
        """Start from the mean of training scans; where none has foreground, from the mean of their background.

        Labels start from ln(n_k + ½), n_k the number of scans with label k at a voxel.

        Args:
            scans: at least one.
            binary: whether images are 0 or 1 and the template holds logits.

        Raises:
            SettingsError: more labels than a template can carry.
        """
        total, count, everywhere = (torch.zeros_like(self.image_weights[0, :1]) for _ in range(3))
        frequency = LabelSums(self.values, least=0)
        scans_seen = 0
        for scan in scans:
            total += scan.image * scan.mask
            count += scan.mask
            everywhere += scan.image
            scans_seen += 1
            if scan.label_map is not None:
                frequency.add(scan.label_map, Tensor.float)
        mean = torch.where(count > 0, total / count.clamp(min=1), everywhere / max(1, scans_seen))
        with torch.no_grad():
            self.image_weights[0, :1] = (torch.logit(mean, eps=_EDGE) if binary else mean) / _GAIN
        if frequency.sums:
            self.values = frequency.labels
            counts = torch.stack([frequency.sums[value] for value in self.values])
            odds = torch.log(counts + 0.5)[None].to(self.image_weights) / _GAIN
            self.odds_weights = nn.Parameter(odds.contiguous(memory_format=torch.channels_last_3d))

    def classes(self, label_map: Tensor) -> Tensor:
        """Labels `(B, 1, X, Y, Z)` as positions in `values`, int64 `(B, X, Y, Z)`; −1 for those not among them."""
        known = torch.tensor(self.values, device=label_map.device)
        at = torch.searchsorted(known, label_map[:, 0].long()).clamp(max=len(self.values) - 1)
        return torch.where(known[at] == label_map[:, 0], at, -1)
