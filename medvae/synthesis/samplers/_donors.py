"""Training scans that give a new scan its texture: values, mask and labels of one at the places of another grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from medvae.prepare.native import only_channel
from medvae.synthesis.decoding import conditions_of
from medvae.vae.diffeomorphism import refine, warp
from medvae.vae.networks.deform import Deform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.scan import Shape

_CONTROL = 4  # points per axis of the field that mixes two donors
_STEEP = 6.0  # how sharply it changes from one to the other


@dataclass(frozen=True, eq=False)
class Donor:
    """A kept training scan.

    Attributes:
        row: of `model.training`.
        id: of the scan.
        image: `(X, Y, Z)` float32; outside the mask the value of the nearest foreground voxel.
        mask: `(1, 1, X, Y, Z)` float32.
        label_map: `(1, 1, X, Y, Z)` float32, or None; outside a field of view the nearest label, too.
        inverse: displacement of φ_j⁻¹, from the template to the scan, `(1, 3, X, Y, Z)` voxels.
        block: whether the mask is the field of view, which stays where it is, and not an organ, which moves.
    """

    row: int
    id: str
    image: NDArray[np.float32] = field(repr=False)
    mask: torch.Tensor = field(repr=False)
    label_map: torch.Tensor | None = field(repr=False)
    inverse: torch.Tensor = field(repr=False)
    block: bool

    def image_at(self, displacement: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Values at x + u(x) of the voxels x that are `inside`, by cubic B-splines; 0 elsewhere. `(1, X, Y, Z)`.

        Linear interpolation would average neighbours: samples would be softer than scans. Where splines overshoot,
        values are those of the donor's extremes; beyond the grid they are those of its border.
        """
        where = inside[0].cpu().numpy()
        last = np.array(where.shape, np.float32)[:, None] - 1
        places = np.stack(np.nonzero(where)).astype(np.float32) + displacement[0].cpu().numpy()[:, where]
        values = ndimage.map_coordinates(self.image, np.clip(places, 0, last), order=3, mode="mirror")
        found = np.zeros(where.shape, np.float32)
        found[where] = np.clip(values, self.image.min(), self.image.max())
        return torch.from_numpy(found)[None].to(displacement.device)

    def mask_at(self, displacement: torch.Tensor) -> torch.Tensor:
        """Foreground at x + u(x), bool `(1, X, Y, Z)`."""
        return (self.mask[0] if self.block else self._at(self.mask, displacement)) > 0.5

    def share_of(self, label: int, displacement: torch.Tensor) -> torch.Tensor:
        """How much of each voxel has a label, 0..1, `(1, X, Y, Z)`: linear interpolation of its indicator."""
        assert self.label_map is not None
        return self._at((self.label_map == label).float(), displacement)

    def _at(self, values: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return warp(values, displacement, values.shape[2:])[0]


def load_donor(model: Model, row: int, at: int, *, matched: bool) -> Donor:
    """A kept training scan.

    Args:
        model: of the network `deform`.
        row: of `model.training`.
        at: row of `model.latents`.
        matched: whether to take the scan's own contrast off it, so that it goes with another donor.
    """
    network, training = model.vae, model.training
    assert isinstance(network, Deform)
    c = model.condition(conditions_of(model, at))
    z = torch.from_numpy(model.latents.mean[at])[None].to(model.device)
    mask = only_channel(training.masks[row])
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    image = only_channel(training.images[row]).astype(np.float32)[tuple(nearest)]
    block = model.preparation.settings.foreground == "whole"
    labels = None
    if training.label_maps is not None:
        known = only_channel(training.label_maps[row])
        labels = _tensor(known[tuple(nearest)] if block else known, model)
    with torch.inference_mode():
        if matched:
            gain, offset = network.change(z, c)
            image = ((_tensor(image, model) - offset) / (1 + gain))[0, 0].cpu().numpy()
        inverse = network.displacement(z, c, inverse=True)
    return Donor(row, training.ids[row], image, _tensor(mask, model), labels, inverse, block)


def blended_labels(
    donors: Sequence[Donor], maps: Sequence[torch.Tensor], weights: torch.Tensor
) -> NDArray[np.int16] | None:
    """The label with the greatest share of each voxel, int16 `(1, X, Y, Z)`; None where donors have no label maps."""
    known = [one.label_map for one in donors if one.label_map is not None]
    if len(known) < len(donors):
        return None
    values = sorted({int(value) for one in known for value in one.unique()})
    best, found = torch.full_like(known[0][0], -1.0), torch.zeros_like(known[0][0], dtype=torch.int16)
    for value in values:  # one after the other: all of them at once would be a volume per label
        each = [one.share_of(value, u) for one, u in zip(donors, maps, strict=True)]
        share = (weights * torch.stack(each)).sum(0)
        found[share > best] = value
        best = torch.maximum(best, share)
    labels: NDArray[np.int16] = found.cpu().numpy()
    return labels


def mixture(size: Shape, generator: np.random.Generator) -> torch.Tensor:
    """Weights of two donors, `(2, 1, X, Y, Z)`, that sum to 1: a smooth random field, mostly near 0 or 1."""
    points = generator.standard_normal((1, 1, _CONTROL, _CONTROL, _CONTROL), dtype=np.float32)
    first = torch.sigmoid(_STEEP * refine(torch.from_numpy(points), size))[0]
    return torch.stack([first, 1 - first])


def _tensor(values: NDArray[np.generic], model: Model) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None].to(model.device)
