"""A training scan with new lesions, and their mask: needs a model that has learned lesions (`train --lesions`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.spatial.transform import Rotation

from medvae.checkpoint.kept import Latents
from medvae.checkpoint.lesion_codes import lesion_codes
from medvae.lesions.implant import Lesion, implant
from medvae.prepare.native import only_channel
from medvae.settings import Frozen
from medvae.synthesis.decoding import rows_of_training
from medvae.synthesis.draws import ImageDraw
from medvae.synthesis.samplers import _shared
from medvae.synthesis.samplers._density import Density, fit_density
from medvae.synthesis.samplers._places import Host, Places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.lesion_codes import LesionCodes
    from medvae.checkpoint.model import Model
    from medvae.lesions.implant import Placed
    from medvae.lesions.network import LesionVAE

SPACE = "image"
_TRIES = 8  # lesions that are drawn until one finds a place
_BEYOND = 1.25  # sizes may lie beyond those of the training lesions by this factor
_TURN_DEGREES = 15.0  # standard deviation of the turn from the axes of a training lesion
_NOISE = 0.1  # standard deviation of sizes and change around those of the training lesions, in their own
_LEAST_SD = 1e-3  # of sizes and changes, which may all be alike
_LEAST_PROFILE = 0.2  # mean of a profile in its lesion, which is 1 except for the decoder's error
_UNEVEN = 0.2  # relative variation of the change between lesions of a scan, where only masks are known


class Settings(Frozen):
    """Options of this sampler."""

    change: tuple[float, float] = Field(
        (0.7, 2.5),
        description="where only masks are known: range of the change of intensity, prepared units, once per scan",
    )
    sign: Literal["brighter", "darker", "either"] = Field(
        "either", description="where only masks are known: its sign; either: once per scan"
    )
    spread: float = Field(1.0, gt=0, description="factor on the standard deviation; below 1 is closer to the average")


@dataclass(frozen=True, eq=False)
class Lesions:
    """New lesions in a kept training scan: one without lesions, where the class has such.

    Code, sizes and mean change of a lesion are drawn from a Gaussian over those of the training lesions, its axes from
    those of one of them, its place from `Places`, the number of lesions from the training scans that have some.

    Attributes:
        model: the checkpoint.
        options: of the sampler.
        codes: of the training lesions.
        density: of code, sizes and change together.
        places: of lesions.
        labels: class of each kept training scan.
        counts: lesion voxels of each.
        latents: row of `model.latents` of each.
    """

    model: Model = field(repr=False)
    options: Settings
    codes: LesionCodes = field(repr=False)
    density: Density = field(repr=False)
    places: Places = field(repr=False)
    labels: tuple[str | None, ...]
    counts: NDArray[np.int64] = field(repr=False)
    latents: Sequence[int] = field(repr=False)

    @property
    def shares(self) -> Mapping[str | None, float]:
        """The classes that have lesions, all where no kept scan has; with their shares of all training scans."""
        ill = {label for label, count in zip(self.labels, self.counts, strict=True) if count > 0}
        return _shared.shares_of_kept(self.model.latents, ill or self.labels)

    @property
    def label_values(self) -> tuple[int, ...]:
        """That of new lesions, which no kept scan need have."""
        return (self.codes.value,)

    def draw(
        self, label: str | None, generator: np.random.Generator, conditions: Mapping[str, float | str], point: float
    ) -> ImageDraw:
        """One scan with new lesions; it has the class and conditions of its donor."""
        training, row = self.model.training, self._donor(label, point)
        labels = np.zeros(training.masks[row].shape[1:], np.int16)
        if training.label_maps is not None:
            labels = only_channel(training.label_maps[row]).copy()
        image = only_channel(training.images[row]).astype(np.float32)
        before = self.codes.in_map(labels) if self.counts[row] else np.zeros(labels.shape, bool)
        host = Host.of(image, only_channel(training.masks[row]), before)
        wanted, change = int(generator.choice(self.codes.counts)), self._prior(generator)
        made: list[dict[str, Any]] = []
        for _ in range(wanted):
            found = self._one(host, change, generator)
            if found is not None:
                placed, facts = found
                host, more = self._with(host, placed, labels)
                made.append({**facts, **more})
        return ImageDraw(
            host.image[None],
            training.masks[row],
            labels[None],
            sources=(training.ids[row],),
            parameters={
                "lesions": made,
                "without_place": wanted - len(made),
                "donor_lesion_voxels": int(self.counts[row]),
                "intensity": "learned" if change is None else "prior",
                "training_lesions": len(self.codes.sources),
            },
            conditions=_shared.conditions(self.model.latents, self.latents[row]),
        )

    def _with(self, host: Host, placed: Placed, labels: NDArray[np.int16]) -> tuple[Host, dict[str, float]]:
        """The scan with a lesion, which is written into the label map `(X, Y, Z)`, and its measures."""
        grid, inside = self.places.grid, placed.mask & host.foreground[placed.box]
        image = implant(host.image, placed, foreground=host.foreground, geometry=grid)
        labels[placed.box][inside] = self.codes.value
        change = float((image - host.image)[placed.box][inside].mean())
        millilitres = float(inside.sum()) * grid.voxel_volume / 1000
        return host.with_lesion(image, placed), {"ml": millilitres, "change": change}

    def _donor(self, label: str | None, point: float) -> int:
        """A kept training scan of the class, without lesions where there is one."""
        members = _shared.rows(self.labels)[label]
        free = members[self.counts[members] == 0]
        return _shared.at_point(free if len(free) else members, point)

    def _one(
        self, host: Host, change: float | None, generator: np.random.Generator
    ) -> tuple[Placed, dict[str, Any]] | None:
        """A lesion at a place in a scan, and what is known of it; None where none of several finds a place."""
        for _ in range(_TRIES):
            lesion, facts = self._lesion(change, generator)
            found = self.places.choose(lesion, host, generator)
            if found is not None:
                placed, near = found
                return placed, {**facts, "place_near": near}
        return None

    def _lesion(self, change: float | None, generator: np.random.Generator) -> tuple[Lesion, dict[str, Any]]:
        """A lesion in its own frame, and where it comes from."""
        code = self.density.code(None, generator).z
        z, sizes, learned = code[:-4], self._sizes(code[-4:-1]), self._change(float(code[-1]))
        row = int(generator.integers(len(self.codes.sources)))
        turn = Rotation.from_rotvec(np.radians(generator.normal(0, _TURN_DEGREES, 3))).as_matrix()
        mirror = generator.choice([-1.0, 1.0], 3)
        with torch.inference_mode():
            decoded = _network(self.model).render(torch.from_numpy(z[None]).to(self.model.device))[0]
        profile, distance = decoded.float().cpu().numpy()
        if change is None:
            inside = profile[distance > 0]
            values = np.float32(learned / max(float(inside.mean()) if len(inside) else 1.0, _LEAST_PROFILE)) * profile
        else:
            uneven = generator.uniform(1 - _UNEVEN, 1 + _UNEVEN)
            values = np.full_like(profile, change * uneven)
        away = np.sqrt(np.square(self.codes.mean - z).mean(axis=1))
        nearest = int(away.argmin())
        facts = {
            "sizes_mm": sizes.tolist(),
            "nearest": self.codes.sources[nearest],
            "nearest_distance": float(away[nearest]),
            "axes_of": self.codes.sources[row],
        }
        return Lesion(values, distance, turn @ self.codes.axes[row] * mirror, sizes, self.codes.detail), facts

    def _sizes(self, drawn: NDArray[np.float32]) -> NDArray[np.float64]:
        """Semi-axes in mm from their standardised logarithms, within the range of the training lesions."""
        logs = np.log(self.codes.sizes)
        sizes = np.exp(logs.mean(axis=0) + drawn * np.maximum(logs.std(axis=0), _LEAST_SD))
        low, high = self.codes.sizes.min(axis=0) / _BEYOND, self.codes.sizes.max(axis=0) * _BEYOND
        return np.asarray(np.clip(sizes, low, high), np.float64)

    def _change(self, drawn: float) -> float:
        """A mean change in prepared units from a standardised one, between the 10% and 90% quantiles of known ones.

        Beyond them a lesion might not be seen, and would still be labelled.
        """
        known = self.codes.changes[np.isfinite(self.codes.changes)]
        if not len(known):
            return 0.0
        low, high = np.percentile(known, (10, 90))
        return float(np.clip(known.mean() + drawn * max(float(known.std()), _LEAST_SD), low, high))

    def _prior(self, generator: np.random.Generator) -> float | None:
        """The change of a scan's lesions where only masks are known; None where changes were learned."""
        if np.isfinite(self.codes.changes).any():
            return None
        size = float(generator.uniform(*self.options.change))
        either = 1 if generator.random() < 0.5 else -1
        return size * {"brighter": 1, "darker": -1, "either": either}[self.options.sign]


def fit(model: Model, settings: Settings) -> Lesions:
    """Fit the density of the lesions' codes and sizes.

    Raises:
        ModelError: the model keeps no training scans, or has learned no lesions.
    """
    training, latents = model.training, rows_of_training(model)
    _shared.require(len(training.ids), least=1, sampler="lesion", what="training scans as images")
    codes = lesion_codes(model)
    maps = training.label_maps
    counts = np.zeros(len(training.ids), np.int64)
    if maps is not None:
        counts = np.array([int(codes.in_map(one).sum()) for one in maps], np.int64)
    return Lesions(
        model=model,
        options=settings,
        codes=codes,
        density=fit_density(_with_measures(codes), sampler="lesion", shrinkage=None, spread=settings.spread),
        places=Places(codes, model.preparation.grid, model.preparation.aligned),
        labels=tuple(model.latents.labels[row] for row in latents),
        counts=counts,
        latents=latents,
    )


def _with_measures(codes: LesionCodes) -> Latents:
    """Codes with the logarithms of the sizes, and the change, as further dimensions, each standardised."""
    logs = np.log(codes.sizes)
    known = codes.changes[np.isfinite(codes.changes)]
    middle, sd = (float(known.mean()), float(known.std())) if len(known) else (0.0, 1.0)
    change = (np.nan_to_num(codes.changes, nan=middle) - middle) / max(sd, _LEAST_SD)
    sizes = (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), _LEAST_SD)
    measures = np.concatenate([sizes, change[:, None]], 1).astype(np.float32)
    noise = np.full_like(measures, 2 * np.log(_NOISE))
    n, names = len(measures), list(codes.sources)
    mean, log_variance = (np.concatenate(pair, 1) for pair in ((codes.mean, measures), (codes.log_variance, noise)))
    return Latents(mean, log_variance, names, names, [None] * n, names)


def _network(model: Model) -> LesionVAE:
    assert model.lesion_vae is not None
    return model.lesion_vae
