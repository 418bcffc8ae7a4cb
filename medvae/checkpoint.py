"""What a checkpoint folder holds, and how it is saved and loaded: safetensors and JSON, never code.

MODEL/
  model.json             settings, hashes, ids, how it was trained
  weights.safetensors    averaged weights of the VAE
  latents.safetensors    posteriors of the training scans
  training.safetensors   prepared training scans (up to `train.keep_scans`): patients' images
  reference.safetensors  what healthy looks like, complete in itself: calibrating replaces this one file
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from medvae import __version__
from medvae.anomaly.reference import Reference
from medvae.errors import MedVAEError, ModelError, RunError
from medvae.io.files import atomic, write_json
from medvae.prepare.preparation import Intensity, Preparation
from medvae.settings import Settings, configure, validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from medvae.scan import Units
    from medvae.vae.base import VAE

FORMAT = 2  # of model.json; another one is refused. 2: the Reference's residual is of the winsorised scan


@dataclass(frozen=True, eq=False)
class Latents:
    """Posteriors of the training scans.

    Attributes:
        mean: float32 `(N, C, *latent)`.
        log_variance: float32, the same shape.
        ids: of the scans.
        subjects: who was scanned.
        labels: class of each scan, or None.
        hashes: `scan_hash` of each scan.
    """

    mean: NDArray[np.float32] = field(repr=False)
    log_variance: NDArray[np.float32] = field(repr=False)
    ids: Sequence[str]
    subjects: Sequence[str]
    labels: Sequence[str | None]
    hashes: Sequence[str]


@dataclass(frozen=True, eq=False)
class TrainingScans:
    """Prepared training scans, for the copy audit and the `classical` sampler.

    Attributes:
        images: float16 `(M, 1, X, Y, Z)`, prepared intensities.
        masks: bool `(M, 1, X, Y, Z)`.
        label_maps: int16 `(M, 1, X, Y, Z)`, or None where the scans have none.
        intensities: the value map of each scan.
        ids: of the scans.
        units: of the scans' values.
    """

    images: NDArray[np.float16] = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    label_maps: NDArray[np.int16] | None = field(repr=False)
    intensities: Sequence[Intensity]
    ids: Sequence[str]
    units: Units = "a.u."


@dataclass(frozen=True, eq=False)
class Model:
    """What a checkpoint gives back.

    Attributes:
        vae: the network with its averaged weights, in eval mode.
        preparation: scan -> model grid.
        settings: of the training run.
        latents: of the training scans.
        training: prepared training scans, maybe none.
        reference: what healthy looks like; from the training scans until it is calibrated.
        hash: SHA-256 of the weights.
        record: how it was trained.
    """

    vae: VAE
    preparation: Preparation
    settings: Settings
    latents: Latents
    training: TrainingScans
    reference: Reference
    hash: str
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        network = _module(self)
        return next(chain(network.parameters(), network.buffers())).device

    def with_reference(self, reference: Reference) -> Model:
        """The same model with another Reference."""
        return replace(self, reference=reference)


def weights_hash(vae: nn.Module) -> str:
    """SHA-256 over names and values of all weights."""
    digest = sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_vae(settings: Settings) -> VAE:
    """The untrained network that the settings name; its weights follow from the seed of the run alone.

    Raises:
        SettingsError: an unknown model or option, a grid that does not fit.
    """
    module, options = configure("networks", settings.model.name, settings.model.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return cast("VAE", module.build(options, settings.likelihood, settings.prepare.shape))


def with_all_options(settings: Settings) -> Settings:
    """The settings with the network's defaults written out: a later version may have others."""
    _, options = configure("networks", settings.model.name, settings.model.options)
    network = settings.model.model_copy(update={"options": options.model_dump(mode="json")})
    return settings.model_copy(update={"model": network})


def save(model: Model, folder: Path) -> None:
    """Write a checkpoint folder; `model.json` comes last, so that a folder with it is whole."""
    weights = {name: value.detach().cpu().contiguous().numpy() for name, value in _module(model).state_dict().items()}
    _save_tensors(folder / "weights.safetensors", weights)
    latents, training = model.latents, model.training
    _save_tensors(folder / "latents.safetensors", {"mean": latents.mean, "log_variance": latents.log_variance})
    scans: dict[str, NDArray[Any]] = {"images": training.images, "masks": training.masks.astype(np.uint8)}
    if training.label_maps is not None:
        scans["label_maps"] = training.label_maps
    _save_tensors(folder / "training.safetensors", scans)
    save_reference(model.reference, folder)
    tree = {
        "format": FORMAT,
        "medvae": __version__,
        "notice": "Research use only. training.safetensors and the weights derive from patients' scans.",
        "hash": model.hash,
        "files": {name: _file_hash(folder, name) for name in _HASHED},
        "preparation_hash": model.preparation.hash,
        "settings": model.settings.model_dump(mode="json"),
        "latents": {k: list(getattr(latents, k)) for k in ("ids", "subjects", "labels", "hashes")},
        "training": {
            "ids": list(training.ids),
            "units": training.units,
            "intensities": [_finite(asdict(one)) for one in training.intensities],
        },
        "record": dict(model.record),
    }
    write_json(folder / "model.json", tree)


def save_reference(reference: Reference, folder: Path) -> None:
    """Write the Reference of a checkpoint folder, or replace it."""
    facts = json.dumps({**reference.to_json(), "hash": reference.hash})
    _save_tensors(folder / "reference.safetensors", reference.tensors(), facts=facts)


def find_device(name: str) -> str:
    """A device for torch from "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        RunError: a GPU that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    number = int(name.partition(":")[2] or 0)
    if name.startswith("cuda") and number >= torch.cuda.device_count():
        raise RunError(
            f"there is no device {name!r}: torch sees {torch.cuda.device_count()} GPUs",
            hint="use --device cpu, or install a build of torch for your GPU",
        )
    return name


def load(folder: Path | str, *, device: str = "cpu") -> Model:
    """Load a checkpoint folder onto a device (`find_device`). Nothing in it is run, no path in it is opened.

    Raises:
        ModelError: it is missing, damaged, of another format, or its parts do not belong together.
        RunError: the device is not there.
    """
    folder, device = Path(folder), find_device(device)
    tree = _read_json(folder)
    if tree.get("format") != FORMAT:
        message = f"format {tree.get('format')} is not the {FORMAT} that medvae {__version__} reads"
        hint = "train it again, or use the version of medvae that it was trained with"
        raise ModelError(message, path=folder, hint=hint)
    try:
        model = _assemble(tree, folder, device=device)
    except ModelError:
        raise
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        MedVAEError,
    ) as bad:
        text = " ".join(str(bad).split())[:200]
        raise _damaged(f"{type(bad).__name__}: {text}", folder) from bad
    model.reference.check(model_hash=model.hash, preparation_hash=tree["preparation_hash"], path=folder)
    if model.preparation.hash != tree["preparation_hash"]:
        raise ModelError(
            "the preparation differs from the one it was trained with (another MNI152 template?)", path=folder
        )
    return model


_TRAIN_AGAIN = "copy the model folder again, or train again"
_HASHED = ("latents", "training")  # files that model.json knows the hash of; weights and Reference have one of content


def _damaged(what: str, folder: Path) -> ModelError:
    return ModelError(f"the checkpoint is damaged ({what})", path=folder, hint=_TRAIN_AGAIN)


def _assemble(tree: dict[str, Any], folder: Path, *, device: str) -> Model:
    settings = validate(Settings, tree["settings"], where="model.json")
    vae = build_vae(settings)
    module = cast("nn.Module", vae)
    weights = load_file(folder / "weights.safetensors")
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    if weights_hash(module) != tree["hash"]:
        raise _damaged("the weights are not those that model.json was written for", folder)
    for name in _HASHED:
        if _file_hash(folder, name) != tree["files"][name]:
            raise _damaged(f"{name}.safetensors is not the file that model.json was written for", folder)
    arrays = load_file(folder / "latents.safetensors")
    latents = Latents(arrays["mean"], arrays["log_variance"], **tree["latents"])
    if any(len(getattr(latents, name)) != len(latents.mean) for name in ("ids", "subjects", "labels", "hashes")):
        raise _damaged("latents.safetensors holds other scans than model.json", folder)
    module.to(device).eval().requires_grad_(requires_grad=False)
    return Model(
        vae=vae,
        preparation=Preparation(settings.prepare),
        settings=settings,
        latents=latents,
        training=_load_training(tree["training"], folder),
        reference=_load_reference(folder),
        hash=tree["hash"],
        record=dict(tree["record"]),
    )


def _load_training(tree: dict[str, Any], folder: Path) -> TrainingScans:
    scans = load_file(folder / "training.safetensors")
    intensities = [Intensity(**_infinite(one)) for one in tree["intensities"]]
    if not len(scans["images"]) == len(intensities) == len(tree["ids"]):
        raise _damaged("training.safetensors holds other scans than model.json", folder)
    masks = scans["masks"].astype(bool)
    return TrainingScans(scans["images"], masks, scans.get("label_maps"), intensities, tree["ids"], tree["units"])


def _load_reference(folder: Path) -> Reference:
    path = folder / "reference.safetensors"
    with safe_open(path, framework="numpy") as file:
        facts = json.loads((file.metadata() or {})["facts"])
    reference = Reference.of(load_file(path), facts)
    if reference.hash != facts["hash"]:
        raise _damaged("reference.safetensors has changed since it was written", folder)
    return reference


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file():
        there = "there is no model.json in it" if folder.is_dir() else "the folder is not there"
        raise ModelError(f"no model: {there}", path=folder, hint="train one with `medvae train`")
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as problem:
        raise ModelError(f"model.json cannot be read: {problem}", path=folder, hint=_TRAIN_AGAIN) from problem
    if not isinstance(tree, dict):
        raise ModelError("model.json is not an object", path=folder, hint=_TRAIN_AGAIN)
    return tree


def _save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, facts: str | None = None) -> None:
    """Write a safetensors file; `facts` are its metadata (one text: the order of several would be a matter of luck)."""
    with atomic(path) as partial:
        arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(arrays, partial, metadata=None if facts is None else {"facts": facts})


def _file_hash(folder: Path, name: str) -> str:
    with open(folder / f"{name}.safetensors", "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _module(model: Model) -> nn.Module:
    return cast("nn.Module", model.vae)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: a bound that is not there is null."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def _infinite(values: dict[str, float | None]) -> dict[str, float]:
    ends = {"low": -np.inf, "high": np.inf}
    return {name: ends[name] if value is None else value for name, value in values.items()}
