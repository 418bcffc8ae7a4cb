"""Which prepared scans a training learns from, is validated on, or leaves out: by subject, never by scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from medvae.cohort.names import plural
from medvae.errors import SettingsError
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

    def anew(self) -> Roles:
        """The same with no scan in memory: of several trainings each fills it for itself."""
        every, training, validation = (
            Scans(one.files, one.conditions) for one in (self.all, self.training, self.validation)
        )
        return Roles(every, self.labels, training, validation)


@dataclass(frozen=True)
class Fold:
    """One part of the scans, for cross-fitting.

    Attributes:
        held_out: ids of the scans in this part.
        roles: of all other scans.
    """

    held_out: tuple[str, ...]
    roles: Roles


def assign(refs: Sequence[ScanRef], settings: Settings, *, out: Path) -> Roles:
    """Roles of the scans that have been prepared into `out`.

    Raises:
        SettingsError: a condition that no training scan has.
    """
    return _roles(_usable(refs, out), settings, out=out)


def assign_folds(refs: Sequence[ScanRef], settings: Settings, *, out: Path) -> tuple[Fold, ...]:
    """The parts of the scans that have been prepared into `out`; none where `train.folds` is 0.

    Each scan is in one part. In a fold the validation subjects are chosen anew among those that are left.

    Raises:
        SettingsError: fewer subjects than parts; a condition that no training scan of a fold has.
    """
    usable, count = _usable(refs, out), settings.train.folds
    if not count:
        return ()
    return tuple(
        Fold(
            tuple(ref.id for ref in usable if ref.subject in part),
            _roles([ref for ref in usable if ref.subject not in part], settings, out=out),
        )
        for part in parts([ref.subject for ref in usable], count=count, seed=settings.seed)
    )


def _usable(refs: Sequence[ScanRef], out: Path) -> list[ScanRef]:
    return [ref for ref in refs if stored_at(out, ref.id).is_file()]


def _roles(usable: Sequence[ScanRef], settings: Settings, *, out: Path) -> Roles:
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
    names = _ranked(subjects, salt=f"{seed}")
    if share <= 0 or len(names) < 3:
        return frozenset()
    return frozenset(names[: max(1, round(share * len(names)))])


def parts(subjects: Sequence[str], *, count: int, seed: int) -> tuple[frozenset[str], ...]:
    """The subjects in `count` parts with about the same number of scans.

    The subject with the most scans comes first, equals in the order of a hash of seed and name; each goes to the part
    with the fewest scans. The order of the scans does not matter.

    Args:
        subjects: of each scan.
        count: of the parts.
        seed: of the run.

    Raises:
        SettingsError: there are fewer subjects than parts.
    """
    scans = Counter(subjects)
    if len(scans) < count:
        hint = f"set train.folds={len(scans)} or fewer" if len(scans) > 1 else "set train.folds=0"
        raise SettingsError(f"train.folds is {count}, and the scans are of {plural(len(scans), 'subject')}", hint=hint)
    found: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(_ranked(subjects, salt=f"{seed}/part"), key=lambda name: -scans[name]):
        min(found, key=lambda part: sum(scans[one] for one in part)).append(name)
    return tuple(frozenset(part) for part in found)


def _ranked(subjects: Sequence[str], *, salt: str) -> list[str]:
    return sorted(set(subjects), key=lambda name: sha256(f"{salt}/{name}".encode()).hexdigest())
