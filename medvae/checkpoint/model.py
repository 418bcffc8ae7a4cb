"""A trained model: its networks, how scans are prepared for them, and what it keeps. `folder` saves and loads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medvae.checkpoint.decoded import on_model_grid, on_own_grid
from medvae.cohort.read import read
from medvae.detector.network import DETECTOR, Detector
from medvae.lesions.network import LESIONS, LesionVAE
from medvae.prepare.load import Loaded, ReadAndPrepare
from medvae.prepare.preparation import prepare
from medvae.scan import ScanRef
from medvae.settings import configure
from medvae.vae.base import VAE
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from medvae.checkpoint.arrays import ArraySet
    from medvae.checkpoint.kept import Latents, TrainingScans
    from medvae.prepare.preparation import Preparation, Prepared
    from medvae.scan import Scan
    from medvae.settings import Settings
    from medvae.vae.base import Posterior

MAIN = "vae"  # the network that every model has
FOLDS = "folds"  # folder in that of the model, and key of its record


@dataclass(frozen=True, eq=False)
class Model:
    """What a checkpoint returns.

    Attributes:
        networks: by name, with the weights that training ended with, in eval mode; `vae` is always there, `detector`
            and `lesions` where they were trained.
        preparation: scan -> model grid.
        settings: of the training run.
        latents: of the training scans.
        training: prepared training scans, maybe none.
        hash: SHA-256 of the weights of all networks.
        conditions: what the networks are given besides the image.
        sets: other named sets of arrays, e.g. "reference"; whoever adds one knows what it means.
        record: how it was trained.
        path: the folder it was loaded from; None where it was not.
    """

    networks: Mapping[str, VAE | Detector] = field(repr=False)
    preparation: Preparation
    settings: Settings
    latents: Latents
    training: TrainingScans
    hash: str
    conditions: Conditions = field(default_factory=Conditions)
    sets: Mapping[str, ArraySet] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def vae(self) -> VAE:
        """The network that reconstructs scans."""
        vae = self.networks[MAIN]
        assert isinstance(vae, VAE)
        return vae

    @property
    def detector(self) -> Detector | None:
        """The network that marks anomalies; None where none was trained."""
        detector = self.networks.get(DETECTOR)
        return detector if isinstance(detector, Detector) else None

    @property
    def lesion_vae(self) -> LesionVAE | None:
        """The network of lesion crops; None where no lesions were learned."""
        lesions = self.networks.get(LESIONS)
        return lesions if isinstance(lesions, LesionVAE) else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(chain(self.vae.parameters(), self.vae.buffers())).device

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of its results should know: whether it reconstructs worse than the mean training scan.

        Both errors are means over the foreground of the validation scans; without them nothing is known.
        """
        own, other = self.record.get("validation_error"), self.record.get("mean_image_error")
        if own is None or other is None or own <= other:
            return ()
        figures = f"error {own:.3g} against {other:.3g} on its validation scans"
        return (f"the model reconstructs worse than the mean of its training scans ({figures}): train it longer",)

    @property
    def card(self) -> dict[str, Any]:
        """What a reader of its results should know of it, for their records; no identity."""
        prepare = self.settings.prepare
        known = {key: self.record.get(key) for key in ("training", "steps", "validation_error", "mean_image_error")}
        return {
            "network": self.settings.model.name,
            "detector": self.detector is not None,
            "modality": prepare.modality,
            "align": prepare.align,
            "spacing": list(prepare.spacing),
            "shape": list(prepare.shape),
            "conditions": list(self.conditions.names),
            **known,
        }

    def with_set(self, name: str, kept: ArraySet) -> Model:
        """The same model with a set added or replaced."""
        return replace(self, sets={**self.sets, name: kept})

    def encode(
        self, scan: Any, *, affine: ArrayLike | None = None, conditions: Mapping[str, float | str] | None = None
    ) -> NDArray[np.float32]:
        """The code of one scan: mean of q(z|x, c), float32 `(C, *latent)`.

        Args:
            scan: whatever `medvae.read` takes: a path, a `ScanRef`, a `Scan`, an array with its affine, an image of
                nibabel, a MONAI `MetaTensor`.
            affine: of an array: 4×4, voxel index -> RAS+ mm.
            conditions: age, sex, ... by name, where the model has such; what is not given is missing.

        Raises:
            InputError: there is no scan, or more than one; an array comes without an affine.
            ScanError: the scan cannot be used; the code says why.
            SettingsError: a condition that the model does not have.

        Example:
            >>> z = model.encode("case.nii.gz")
        """
        prepared = self._load(scan, affine, conditions).prepared
        return self.encode_prepared(prepared).mean.squeeze(0).cpu().numpy()

    def reconstruct(
        self, scan: Any, *, affine: ArrayLike | None = None, conditions: Mapping[str, float | str] | None = None
    ) -> Scan:
        """What the model makes of one scan: mean of p(x|z, c) at the posterior mean.

        Takes and raises what `encode` does.

        Returns:
            A `Scan` with the geometry and the units of the one that was given, `(X, Y, Z)`; its lowest value outside
            the foreground. For binary shapes a probability, times the highest value of the scan.

        Example:
            >>> path = medvae.write("reconstruction.nii.gz", model.reconstruct("case.nii.gz"))
        """
        loaded = self._load(scan, affine, conditions)
        return on_own_grid(self.reconstruct_prepared(loaded.prepared), loaded.prepared, loaded.scan)

    def decode(self, z: ArrayLike, *, conditions: Mapping[str, float | str] | None = None) -> Scan:
        """The scan that belongs to a code: mean of p(x|z, c).

        Args:
            z: `(C, *latent)`, as `encode` gives it; zeros are the mean of the prior.
            conditions: age, sex, ... by name, where the model has such; what is not given is missing.

        Returns:
            A `Scan` on the model's grid (axes R, A, S). Where each training scan has a scale of its own, the median of
            theirs makes the values; the foreground is what half of the training scans share.

        Raises:
            ScanError: `unknown_condition`, a value of a kind that the training scans did not have.
            SettingsError: a condition that the model does not have.
            ValueError: z is of another shape.

        Example:
            >>> of_the_mean = model.decode(np.zeros_like(z))
        """
        self.conditions.require(conditions or {})
        return on_model_grid(self._decoded(self._code(z), conditions or {}), self.training, self.preparation)

    def decode_labels(
        self, z: ArrayLike, *, conditions: Mapping[str, float | str] | None = None
    ) -> NDArray[np.int16] | None:
        """The label map that belongs to a code, on the grid of what `decode` gives; takes and raises what that does.

        Returns:
            int16 `(X, Y, Z)` with the values of the training label maps; None where the network decodes images alone.

        Example:
            >>> labels = model.decode_labels(z)
        """
        self.conditions.require(conditions or {})
        if not self.vae.labels:
            return None
        code = self._code(z)
        with torch.no_grad():
            labels = self.vae.decode_labels(code.to(self.device), self.condition(conditions or {}))
        found: NDArray[np.int16] = labels[0, 0].cpu().numpy()
        return found

    def condition(self, values: Mapping[str, float | str]) -> torch.Tensor | None:
        """`(1, conditions.size)` on the device, what the networks take as `c`; None for a model without conditions.

        Raises:
            ScanError: `unknown_condition`, a value of a kind that the training scans did not have.
        """
        if not self.conditions.columns:
            return None
        return torch.from_numpy(self.conditions.vector(values))[None].to(self.device)

    def encode_prepared(self, prepared: Prepared) -> Posterior:
        """q(z|x, c) of one prepared scan, in float32."""
        image = torch.from_numpy(prepared.image)[None].to(self.device)
        with torch.no_grad():
            return self.vae.encode(image, self.condition(prepared.conditions))

    def reconstruct_prepared(self, prepared: Prepared) -> NDArray[np.float32]:
        """Mean of p(x|z, c) of one prepared scan at its posterior mean, `(1, X, Y, Z)`, prepared intensities."""
        return self._decoded(self.encode_prepared(prepared).mean, prepared.conditions)

    def _code(self, z: ArrayLike) -> torch.Tensor:
        """A code as a batch of one."""
        code, wanted = np.asarray(z, np.float32), self.vae.latent_shape(self.preparation.settings.shape)
        if code.shape != wanted:
            raise ValueError(f"a code of this model is {wanted}, not {code.shape}")
        return torch.from_numpy(code)[None]

    def _decoded(self, z: torch.Tensor, conditions: Mapping[str, float | str]) -> NDArray[np.float32]:
        with torch.no_grad():
            likelihood = self.vae.decode(z.to(self.device), self.condition(conditions))
        mean: NDArray[np.float32] = likelihood.mean.squeeze(0).float().cpu().numpy()
        return mean

    def _load(self, scan: Any, affine: ArrayLike | None, conditions: Mapping[str, float | str] | None) -> Loaded:
        """The scan as read, and prepared for the model; what a ScanRef says about it is used unless given otherwise."""
        self.conditions.require(conditions or {})
        if isinstance(scan, ScanRef):
            ref = scan if conditions is None else replace(scan, conditions=conditions)
            return ReadAndPrepare(self.settings.read, self.preparation)(ref)
        found = read(scan, self.settings, affine=affine)
        return Loaded(found, prepare(found, self.preparation, conditions=conditions))

    def __repr__(self) -> str:
        grid = self.preparation.grid
        shape, mm = ("x".join(f"{n:g}" for n in values) for values in (grid.shape, grid.spacing))
        facts = [f"{self.settings.model.name}", f"grid {shape} at {mm} mm", f"{len(self.latents.ids)} training scans"]
        facts += [f"conditions {', '.join(self.conditions.names)}"] if self.conditions.columns else []
        facts += [one.summary for one in self.sets.values() if one.summary]
        return f"Model({'; '.join(facts)})"


def weights_hash(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 over names and values of all weights of all networks."""
    digest = sha256()
    for network, module in sorted(networks.items()):
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{network}.{name}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_vae(settings: Settings, conditions: Conditions | None = None) -> VAE:
    """The untrained network that the settings name; its weights follow from the seed of the run alone.

    Raises:
        SettingsError: an unknown network or option, a grid that does not fit.
    """
    return build_network(settings.model.name, settings.model.options, settings=settings, conditions=conditions)


def build_network(
    name: str, options: Mapping[str, Any], *, settings: Settings, conditions: Conditions | None = None
) -> VAE:
    """An untrained network of any name for the grid, likelihood and seed of a run.

    Raises:
        SettingsError: an unknown network or option, a grid that does not fit.
    """
    module, known = configure("networks", name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        size = (conditions or Conditions()).size
        network: VAE = module.build(known, settings.likelihood, settings.prepare.shape, conditions=size)
    network.architecture = {"name": name, "options": known.model_dump(mode="json")}
    return network


def with_all_options(settings: Settings) -> Settings:
    """The settings with the defaults of network and likelihood written out: a later version may have others."""
    _, options = configure("networks", settings.model.name, settings.model.options)
    network = settings.model.model_copy(update={"options": options.model_dump(mode="json")})
    _, options = configure("likelihoods", settings.likelihood.family, settings.likelihood.options)
    likelihood = settings.likelihood.model_copy(update={"options": options.model_dump(mode="json")})
    return settings.model_copy(update={"model": network, "likelihood": likelihood})
