"""The state of a training on disk: `last/` is all that a resumed one needs, `best/` the best averaged weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medvae.errors import OutputError
from medvae.io.files import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.swa_utils import AveragedModel

LAST, BEST = "last", "best"
_FILE, _DETECTOR = "state.safetensors", "detector.safetensors"


@dataclass(frozen=True)
class Facts:
    """Where a training is.

    Attributes:
        step: steps done.
        plan: `Plan.changes`.
        stale: validations since the best one.
        best_score: the best validation so far; infinite where there is none.
        seconds: time used so far, of a budget.
        minutes: the budget; None for a number of steps.
    """

    step: int
    plan: tuple[tuple[int, int], ...]
    stale: int
    best_score: float
    seconds: float
    minutes: float | None


def has_state(folder: Path) -> bool:
    """Whether there is a training to go on with."""
    return (folder / LAST / _FILE).is_file()


def save_best(folder: Path, average: AveragedModel) -> None:
    """Write the averaged weights."""
    _save(folder / BEST / _FILE, _average(average), facts=None)


def save_last(folder: Path, net: nn.Module, average: AveragedModel, optimizer: Optimizer, facts: Facts) -> None:
    """Write everything: weights, averaged weights, the optimiser's moments, and where the training is."""
    tensors = {**_average(average), **_learning(net, optimizer)}
    _save(folder / LAST / _FILE, tensors, facts=json.dumps(asdict(facts)))


def load_best(folder: Path, average: AveragedModel) -> None:
    """Put the best averaged weights into `average`."""
    _load_average(average, load_file(folder / BEST / _FILE))


def load_last(folder: Path, net: nn.Module, average: AveragedModel, optimizer: Optimizer) -> Facts:
    """Put everything that `save_last` wrote into place."""
    tensors, facts = load_file(folder / LAST / _FILE), read_facts(folder)
    _load_learning(net, optimizer, tensors)
    _load_average(average, tensors)
    average.n_averaged.fill_(facts.step + 1)
    return facts


def read_facts(folder: Path) -> Facts:
    """Where the training in `folder` is."""
    with safe_open(folder / LAST / _FILE, framework="pt") as file:
        tree = json.loads(file.metadata()["facts"])
    return Facts(**{**tree, "plan": _plan(tree["plan"])})


@dataclass(frozen=True)
class DetectorFacts:
    """Where the training of a detector is.

    Attributes:
        step: steps done.
        plan: `Plan.changes`.
        seconds: time used so far, of a budget.
        minutes: the time budget of both networks; None for a number of steps.
    """

    step: int
    plan: tuple[tuple[int, int], ...]
    seconds: float
    minutes: float | None


def save_detector(folder: Path, net: nn.Module, optimizer: Optimizer, facts: DetectorFacts) -> None:
    """Write the state of a detector beside that of the VAE."""
    _save(folder / LAST / _DETECTOR, _learning(net, optimizer), facts=json.dumps(asdict(facts)))


def load_detector(folder: Path, net: nn.Module, optimizer: Optimizer) -> DetectorFacts | None:
    """Put what `save_detector` wrote into place; None where there is nothing.

    Raises:
        OutputError: it is the state of another network.
    """
    path = folder / LAST / _DETECTOR
    if not path.is_file():
        return None
    tensors = load_file(path)
    if _below("net", tensors).keys() != net.state_dict().keys():
        hint = "pass overwrite=True to begin anew, or use the version of medvae that it was begun with"
        raise OutputError("the training in this folder was begun by another version of medvae", path=folder, hint=hint)
    _load_learning(net, optimizer, tensors)
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["facts"])
    return DetectorFacts(**{**tree, "plan": _plan(tree["plan"])})


def _plan(tree: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((step, total) for step, total in tree)


def _save(path: Path, tensors: Mapping[str, Tensor], *, facts: str | None) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(path) as partial:
        save_file(plain, partial, metadata=None if facts is None else {"facts": facts})


def _learning(net: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights, and the moments of the optimiser."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def _load_learning(net: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what `_learning` gave into place."""
    net.load_state_dict(_below("net", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _below("optimizer", tensors).items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = _like_weights(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _average(average: AveragedModel) -> dict[str, Tensor]:
    return {f"average.{name}": value for name, value in average.module.named_parameters()}


def _load_average(average: AveragedModel, tensors: Mapping[str, Tensor]) -> None:
    known = _below("average", tensors)
    with torch.no_grad():
        for name, parameter in average.module.named_parameters():
            parameter.copy_(known[name])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose name begins with the prefix, without it."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}


def _like_weights(value: Tensor) -> Tensor:
    """A tensor of the optimiser in the memory layout of the weight it belongs to, which a file does not keep."""
    return value.contiguous(memory_format=torch.channels_last_3d) if value.ndim == 5 else value
