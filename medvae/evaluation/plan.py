"""What networks are trained on, to measure how much synthetic scans help: the arms, and the plan of each training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Extra = Literal["nothing", "duplicates", "synthetic", "shuffled", "reconstructions"]


@dataclass(frozen=True)
class Arm:
    """What a network is trained on.

    Attributes:
        name: of the arm.
        about: in words.
        extra: what is there besides the real scans.
        classical: whether all scans are augmented on the fly.
        real: whether the real scans themselves are there.
        against: the arm that it is compared with; "" for the first.
    """

    name: str
    about: str
    extra: Extra = "nothing"
    classical: bool = False
    real: bool = True
    against: str = ""


HEADLINE = "classical+synthetic"
_ALL = (
    Arm("real", "real scans"),
    Arm("duplicated", "real scans, half of the draws from a copy of the set: a placebo", "duplicates", against="real"),
    Arm("classical", "real scans, classical augmentation", classical=True, against="real"),
    Arm("synthetic", "real and synthetic scans", "synthetic", against="real"),
    Arm(HEADLINE, "real and synthetic scans, classical augmentation", "synthetic", classical=True, against="classical"),
    Arm("synthetic only", "synthetic scans", "synthetic", real=False, against="real"),
    Arm(
        "classical+reconstructions",
        "real scans and the model's reconstructions of them, classical augmentation",
        "reconstructions",
        classical=True,
        against="classical",
    ),
    Arm(
        "classical+shuffled",
        "real scans and synthetic ones with the labels of others, classical augmentation",
        "shuffled",
        classical=True,
        against="classical",
    ),
)
ARMS = {arm.name: arm for arm in _ALL}


@dataclass(frozen=True)
class Plan:
    """How each network is trained.

    Attributes:
        steps: of the optimiser (AdamW, one-cycle learning rate).
        batch: scans per step.
        lr: peak learning rate.
        share: how often a scan of a batch is an extra one, in arms that have real ones, too.
        mirror: whether the classical augmentation flips left and right.
        binary: whether scans are shapes.
        seed: of everything random.
    """

    steps: int = 500
    batch: int = 2
    lr: float = 3e-3
    share: float = 0.5
    mirror: bool = False
    binary: bool = False
    seed: int = 0


def arms_with(names: Sequence[str], extras: Collection[str]) -> list[Arm]:
    """The arms of these names that can be trained with these extra scans."""
    always = {"nothing", "duplicates"}
    there = always | set(extras) | ({"shuffled"} if "synthetic" in extras else set())
    return [ARMS[name] for name in names if ARMS[name].extra in there]
