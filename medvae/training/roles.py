"""Which prepared scans a training learns from, and which ones it is validated on: by subject, never by scan."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from medvae.training.store import Scans
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.scan import ScanRef
    from medvae.settings import Settings


@dataclass(frozen=True)
class Roles:
    """The prepared scans of a training, with conditions fitted to the training scans.

    Attributes:
        all: those that can be used.
        labels: their classes.
        training: those that are learned from.
        validation: those of other subjects.
    """

    all: Scans
    labels: tuple[str | None, ...]
    training: Scans
    validation: Scans


def assign(refs: Sequence[ScanRef], settings: Settings, *, out: Path) -> Roles:
    """Roles of the scans that have been prepared into `out`.

    Raises:
        SettingsError: a condition that no training scan has.
    """
    usable = [ref for ref in refs if stored_at(out, ref.id).is_file()]
    aside = held_out([ref.subject for ref in usable], share=settings.train.validation, seed=settings.seed)
    training = [ref for ref in usable if ref.subject not in aside]
    conditions = Conditions.fit(settings.model.conditions, [ref.conditions for ref in training])

    def scans(chosen: Sequence[ScanRef]) -> Scans:
        return Scans([stored_at(out, ref.id) for ref in chosen], conditions)

    validation = [ref for ref in usable if ref.subject in aside]
    return Roles(scans(usable), tuple(ref.label for ref in usable), scans(training), scans(validation))


def stored_at(out: Path, name: str) -> Path:
    """The file of the prepared scan of this id."""
    return out / "cache" / f"{name}.safetensors"


def held_out(subjects: Sequence[str], *, share: float, seed: int) -> frozenset[str]:
    """The validation subjects: `share` of them, at least one of three or more, none where the share is 0.

    A subject's rank is the hash of seed and name, so that the choice does not depend on the order of the scans, and
    adding scans moves few subjects from one side to the other.
    """
    names = sorted(set(subjects), key=lambda name: sha256(f"{seed}/{name}".encode()).hexdigest())
    if share <= 0 or len(names) < 3:
        return frozenset()
    return frozenset(names[: max(1, round(share * len(names)))])
