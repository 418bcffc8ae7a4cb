"""Saving and loading a checkpoint folder: safetensors and JSON, never code; damage is noticed.

MODEL/
  model.json             settings, conditions, hashes, how it was trained
  vae.safetensors        averaged weights of the network; one such file for each further one (detector, lesions)
  latents.safetensors    posteriors of the training scans
  training.safetensors   prepared training scans (up to `train.keep_scans`): patients' images
  reference.safetensors  and other sets, each complete in itself: calibrating replaces this one file
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from medvae import __version__
from medvae.checkpoint.arrays import load_set, save_arrays, save_set
from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.model import FOLDS, Model, build_network, weights_hash
from medvae.detector.network import DETECTOR, build
from medvae.errors import MedVAEError, ModelError, RunError, SettingsError
from medvae.io.files import write_json
from medvae.lesions import network as lesion_network
from medvae.prepare.preparation import Preparation
from medvae.settings import DetectorSettings, LesionSettings, Settings, validate
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from medvae.detector.network import Detector
    from medvae.vae.base import VAE

TRAINING_PARTS = ("last", "cache")  # folders of a training that has not ended
FORMAT = 8  # of model.json; another one is refused. 8: a detector has a denoiser
_KEPT = ("latents", "training")  # sets that training writes once; model.json knows their hashes
_Contents = TypeVar("_Contents")
_TRAIN_AGAIN = "copy the model folder again, or train again"
_DAMAGE = (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)


def save(model: Model, folder: Path) -> None:
    """Write a checkpoint folder; `model.json` comes last, so that a folder with it is whole.

    Raises:
        ValueError: two networks or sets have one name.
    """
    kept = {"latents": model.latents.to_set(), "training": model.training.to_set()}
    names = [*model.networks, *kept, *model.sets]
    if len(set(names)) < len(names):
        raise ValueError(f"networks and sets of a checkpoint need different names, got {', '.join(sorted(names))}")
    for name, network in model.networks.items():
        weights = {key: value.detach().cpu().contiguous().numpy() for key, value in network.state_dict().items()}
        save_arrays(folder / f"{name}.safetensors", weights)
    for name, one in {**kept, **model.sets}.items():
        save_set(folder, name, one)
    tree = {
        "format": FORMAT,
        "medvae": __version__,
        "notice": "Research use only. training.safetensors and the weights derive from patients' scans.",
        "hash": model.hash,
        "networks": {name: network.architecture for name, network in model.networks.items()},
        "sets": {name: one.hash for name, one in kept.items()},
        "others": sorted(model.sets),
        "preparation_hash": model.preparation.hash,
        "conditions": model.conditions.to_json(),
        "settings": model.settings.model_dump(mode="json"),
        "record": dict(model.record),
    }
    write_json(folder / "model.json", tree)


def find_device(name: str) -> str:
    """A device for torch from "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        RunError: a GPU that is not there, or no such kind of device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise RunError(f"{name!r} is not a device", hint="choose one of: auto, cpu, cuda, cuda:N")
    number = int(name.partition(":")[2] or 0)
    if name.startswith("cuda") and number >= torch.cuda.device_count():
        raise RunError(
            f"there is no device {name!r}: torch sees {torch.cuda.device_count()} GPUs",
            hint="pass device='cpu', or install a build of torch for your GPU",
        )
    return name


def load_model(folder: Path | str, *, device: str = "auto") -> Model:
    """Load a model folder that `medvae train` wrote. No code in it is run, and no path in it is opened.

    Args:
        folder: of the model.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ModelError: it is missing, damaged, of another format, may not be read, or its parts do not belong together.
        RunError: the device does not exist.
    """
    folder, device = Path(folder), find_device(device)
    _require_permission(folder)
    tree = _read_json(folder)
    if tree.get("format") != FORMAT:
        message = f"format {tree.get('format')} is not the {FORMAT} that medvae {__version__} reads"
        hint = "train it again, or use the version of medvae that it was trained with"
        raise ModelError(message, path=folder, hint=hint)
    try:
        model, trained_with = _assemble(tree, folder, device=device), tree["preparation_hash"]
    except (MedVAEError, *_DAMAGE) as bad:
        if isinstance(bad, ModelError) and bad.path == str(folder):
            raise
        raise _damaged(_in_words(bad), folder) from bad
    if model.preparation.hash != trained_with:
        message = "the preparation differs from the one it was trained with (another MNI152 template?)"
        raise ModelError(message, path=folder, hint="use the version of nilearn that it was trained with")
    return model


load = load_model  # inside the package, where the module says what is loaded


def _require_permission(folder: Path) -> None:
    """Refuse a model that somebody else may read; safetensors says about such a file that it is not there."""
    for path in (folder / "model.json", *sorted(folder.glob("*.safetensors"))):
        try:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError), open(path, "rb"):
                pass
        except PermissionError as problem:
            hint = "ask its owner for permission to read the folder and all files in it"
            raise ModelError(f"{path.name}: {problem.strerror}", path=folder, hint=hint) from problem


def _damaged(what: str, folder: Path, *, hint: str = _TRAIN_AGAIN) -> ModelError:
    return ModelError(f"the checkpoint is damaged ({what})", path=folder, hint=hint)


def _in_words(problem: Exception) -> str:
    kind = "" if isinstance(problem, MedVAEError) else f"{type(problem).__name__}: "
    return kind + " ".join(str(problem).split())[:200]


def _part(folder: Path, name: str, read: Callable[[Path], _Contents]) -> _Contents:
    """What one file of the model holds; where it is damaged, the error names it."""
    if Path(name).name != name or name in ("", ".."):
        raise _damaged(f"{name[:40]!r} is not the name of a file in it", folder)
    file = f"{name}.safetensors"
    try:
        return read(folder / file)
    except (MedVAEError, *_DAMAGE) as bad:
        raise _damaged(f"{file}: {_in_words(bad)}", folder, hint=f"copy {file} again, or train again") from bad


def _assemble(tree: dict[str, Any], folder: Path, *, device: str) -> Model:
    settings = validate(Settings, tree["settings"], where="model.json")
    conditions = Conditions.from_json(tree["conditions"])
    networks = {name: _built(name, one, settings, conditions, folder=folder) for name, one in tree["networks"].items()}
    for name, network in networks.items():
        weights = _part(folder, name, load_file)
        network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    if weights_hash(networks) != tree["hash"]:
        raise _damaged("the weights are not those that model.json was written for", folder)
    kept = {name: _part(folder, name, load_set) for name in _KEPT}
    for name in _KEPT:
        if kept[name].hash != tree["sets"][name]:
            raise _damaged(f"{name}.safetensors is not the file that model.json was written for", folder)
    for network in networks.values():
        network.to(device).eval().requires_grad_(requires_grad=False)
    return Model(
        networks=networks,
        preparation=Preparation(settings.prepare),
        settings=settings,
        latents=Latents.from_set(kept["latents"]),
        training=TrainingScans.from_set(kept["training"]),
        hash=tree["hash"],
        conditions=conditions,
        sets={name: _part(folder, name, load_set) for name in tree["others"]},
        record=_record(tree["record"]),
        path=folder,
    )


def _built(
    name: str, architecture: Mapping[str, Any], settings: Settings, conditions: Conditions, *, folder: Path
) -> VAE | Detector:
    """The network of this name, untrained."""
    if name == DETECTOR:
        return _detector(architecture, settings)
    if name == lesion_network.LESIONS:
        options = validate(LesionSettings, architecture["options"], where="model.json")
        return lesion_network.build(options.channels, options.latent, seed=settings.seed)
    return _network(architecture, settings, conditions, folder=folder)


def _network(architecture: Mapping[str, Any], settings: Settings, conditions: Conditions, *, folder: Path) -> VAE:
    try:
        return build_network(architecture["name"], architecture["options"], settings=settings, conditions=conditions)
    except SettingsError as bad:  # a plug-in that is not there, or cannot be imported: the folder itself may be fine
        raise ModelError(f"its network cannot be built: {bad}", path=folder, hint=bad.hint) from bad


def _detector(architecture: Mapping[str, Any], settings: Settings) -> Detector:
    channels = validate(DetectorSettings, architecture["options"], where="model.json").channels
    preparation = Preparation(settings.prepare)
    return build(channels, preparation.grid, aligned=preparation.aligned, seed=settings.seed)


def _record(tree: Any) -> dict[str, Any]:
    """How it was trained. What is computed with is of the right type; all else is only shown.

    Raises:
        LookupError, TypeError, ValueError: it is not.
    """
    record = dict(tree)
    for name in ("validation_error", "mean_image_error"):
        if not isinstance(record.get(name), int | float | None):
            raise TypeError(f"{name} is not a number")
    for fold in record.get(FOLDS, []):
        ids = fold["held_out"]
        if not (isinstance(fold["model"], str) and isinstance(ids, list) and all(isinstance(one, str) for one in ids)):
            raise TypeError("a fold is not a hash and the ids of scans")
    return record


def _no_model(folder: Path) -> ModelError:
    """What a path without a `model.json` is instead."""
    if folder.is_file():
        return ModelError("not a model folder but a file", path=folder, hint=f"give its folder: {folder.parent}")
    if any((folder / part).exists() for part in TRAINING_PARTS):
        message = "its training was interrupted: there is no model.json yet"
        return ModelError(message, path=folder, hint="run the training again with resume=True")
    there = "there is no model.json in it" if folder.is_dir() else "it does not exist"
    return ModelError(f"not a model folder: {there}", path=folder, hint="train a model first, or correct the path")


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file():
        raise _no_model(folder)
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as problem:
        raise ModelError(f"model.json cannot be read: {problem}", path=folder, hint=_TRAIN_AGAIN) from problem
    if not isinstance(tree, dict):
        raise ModelError("model.json is not an object", path=folder, hint=_TRAIN_AGAIN)
    return tree
