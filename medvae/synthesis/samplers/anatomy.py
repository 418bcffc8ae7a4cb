"""A new anatomy with a real texture: a training scan, deformed to a new code, label map included (network `deform`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field

from medvae.errors import ModelError
from medvae.settings import Frozen
from medvae.synthesis.decoding import conditions_of, rows_of_training
from medvae.synthesis.draws import ImageDraw
from medvae.synthesis.samplers import _shared
from medvae.synthesis.samplers._density import Density, fit_density
from medvae.synthesis.samplers._donors import Donor, blended_labels, load_donor, mixture
from medvae.vae.diffeomorphism import compose, jacobian
from medvae.vae.networks.deform import Deform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

SPACE = "image"
_TRIES = 20  # draws of a code until its map does not fold


class Settings(Frozen):
    """Options of this sampler."""

    donor: Literal["random", "nearest", "two"] = Field(
        "random",
        description="whose texture: any training scan of the class, the nearest to the code, two of them mixed",
    )
    spread: float = Field(1.0, gt=0, description="factor on the standard deviation; below 1 is closer to the average")


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The scan j at φ_j⁻¹(φ_z(x)): one composition, one resampling of image, label map and mask.

    φ_z takes a voxel of the new scan to its place in the template, φ_j⁻¹ takes that to its place in the donor. z is
    drawn as the sampler `density` draws it; the kept training scans of the class are donors nearly
    equally often.

    Attributes:
        model: the checkpoint; its network is `deform`.
        codes: where new codes come from.
        rows: class -> its kept training scans, as rows of `model.training`.
        latents: row of `model.latents` of each kept training scan.
        scale: standard deviation of the codes, `(C, *latent)`.
        donor: how donors are chosen.
    """

    model: Model = field(repr=False)
    codes: Density = field(repr=False)
    rows: _shared.Rows = field(repr=False)
    latents: Sequence[int] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)
    donor: Literal["random", "nearest", "two"]

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes that are kept, with their shares of all training scans."""
        return _shared.shares_of_kept(self.model.latents, self.rows)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> ImageDraw:
        """One new scan; it has the conditions of its (first) donor."""
        first = self.codes.code(label, generator)
        donors = self._donors(label, first.z, point, generator=generator)
        given = _shared.conditions(self.model.latents, self.latents[donors[0].row])
        maps, jacobians, z, redrawn = self._unfolded(label, first.z, donors, generator=generator)
        weights = self._weights(donors, generator)
        mask = donors[0].mask_at(maps[0])
        images = torch.stack([one.image_at(u, mask) for one, u in zip(donors, maps, strict=True)])
        image = (weights * images).sum(0)
        if len(donors) > 1:
            image = self._with_contrast(image, z, donors[0])
        shares = [float(one[mask].mean()) for one in weights.expand(len(donors), *mask.shape)]
        return ImageDraw(
            image.cpu().numpy(),
            mask.cpu().numpy(),
            blended_labels(donors, maps, weights),
            sources=tuple(one.id for one in donors),
            parameters={
                **first.parameters,
                "donor": self.donor,
                "donor_share": shares,
                "donor_distance": [self._distance(z, one.row) for one in donors],
                "redrawn": redrawn,
                "jacobian": jacobians,
            },
            conditions=given,
        )

    def _donors(
        self, label: str | None, z: NDArray[np.float32], point: float, *, generator: np.random.Generator
    ) -> list[Donor]:
        """Kept training scans of the class, nearly equally often; a second one is any other, where there is one."""
        members = self.rows[label]
        if self.donor == "nearest":
            chosen = [int(min(members, key=lambda row: self._distance(z, int(row))))]
        else:
            chosen = [_shared.at_point(members, point)]
        if self.donor == "two" and len(members) > 1:
            chosen.append(int(generator.choice(members[members != chosen[0]])))
        return [load_donor(self.model, row, self.latents[row], matched=len(chosen) > 1) for row in chosen]

    def _unfolded(
        self, label: str | None, z: NDArray[np.float32], donors: Sequence[Donor], *, generator: np.random.Generator
    ) -> tuple[list[torch.Tensor], list[list[float]], NDArray[np.float32], int]:
        """The maps of a code to the donors, their extreme determinants, the code, and how many were drawn before it
        because theirs folded.
        """
        for redrawn in range(_TRIES):
            maps = self._maps(z, donors)
            jacobians = [_extremes(u, one.mask_at(u)) for u, one in zip(maps, donors, strict=True)]
            if all(least > 0 for least, _ in jacobians):
                return maps, jacobians, z, redrawn
            z = self.codes.code(label, generator).z
        message = f"the maps of {_TRIES} codes that were drawn all fold"
        raise ModelError(message, hint="train longer, or with a higher model.options.smooth")

    def _maps(self, z: NDArray[np.float32], donors: Sequence[Donor]) -> list[torch.Tensor]:
        """Displacements from the new scan to each donor, `(1, 3, X, Y, Z)`."""
        network = _network(self.model)
        with torch.inference_mode():
            new = network.displacement(self._tensor(z), self._condition(donors[0]))
            return [compose(one.inverse, new, network.grid) for one in donors]

    def _with_contrast(self, image: torch.Tensor, z: NDArray[np.float32], donor: Donor) -> torch.Tensor:
        """An image with the template's contrast, given that of the code."""
        with torch.inference_mode():
            gain, offset = _network(self.model).change(self._tensor(z), self._condition(donor))
        return (1 + gain[0]) * image + offset[0]

    def _weights(self, donors: Sequence[Donor], generator: np.random.Generator) -> torch.Tensor:
        """How much of each voxel is from which donor, `(donors, 1, X, Y, Z)`; ones for a single donor."""
        if len(donors) == 1:
            return torch.ones(1, 1, 1, 1, 1, device=self.model.device)
        return mixture(_network(self.model).grid, generator).to(self.model.device)

    def _distance(self, z: NDArray[np.float32], row: int) -> float:
        """Root mean square difference to a training scan's code, in standard deviations of the codes."""
        difference = (z - self.model.latents.mean[self.latents[row]]) / self.scale
        return float(np.sqrt(np.square(difference).mean()))

    def _condition(self, donor: Donor) -> torch.Tensor | None:
        return self.model.condition(conditions_of(self.model, self.latents[donor.row]))

    def _tensor(self, z: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(z)[None].to(self.model.device)


def fit(model: Model, settings: Settings) -> Anatomy:
    """Fit the density of the codes and keep the training scans.

    Raises:
        ModelError: another network than `deform`, no training scans as images, or too few to estimate a variance.
    """
    _network(model)
    _shared.require(len(model.training.ids), least=1, sampler="anatomy", what="training scans as images")
    codes = fit_density(model.latents, sampler="anatomy", shrinkage=None, spread=settings.spread)
    rows = rows_of_training(model)
    wide = model.latents.mean.var(axis=0) + np.exp(model.latents.log_variance).mean(axis=0)
    labels = [model.latents.labels[row] for row in rows]
    return Anatomy(model, codes, _shared.rows(labels), rows, np.sqrt(wide).astype(np.float32), settings.donor)


def _network(model: Model) -> Deform:
    if not isinstance(model.vae, Deform):
        name = model.settings.model.name
        message = f"the sampler 'anatomy' needs a model of the network 'deform', this one's is {name!r}"
        raise ModelError(message, hint="train one with model.name=deform, or set augment.sampler=classical")
    return model.vae


def _extremes(displacement: torch.Tensor, mask: torch.Tensor) -> list[float]:
    """The least and the greatest Jacobian determinant of a map inside a mask `(1, X, Y, Z)`."""
    determinant = jacobian(displacement)[0][mask[0, :-1, :-1, :-1]]
    return [float(determinant.min()), float(determinant.max())] if len(determinant) else [1.0, 1.0]
