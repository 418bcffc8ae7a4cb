"""Conditions that a model is given: which scans lack one, and ages that nobody has. The user is told once per run."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from medvae.cohort.names import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from medvae.scan import ScanRef

log = logging.getLogger(__name__)

_OLDEST = 120  # years
_NAMED = 5  # scans that a message names


def tell_of_conditions(refs: Sequence[ScanRef], names: Iterable[str]) -> None:
    """Warnings per condition for scans that lack it, for words among numbers, and for ages below 0 or above 120 years.

    Args:
        refs: the scans of a run.
        names: the conditions of its model.
    """
    for name in names:
        values = {ref.id: ref.conditions.get(name) for ref in refs}
        missing = [one for one, value in values.items() if value is None or value != value]
        odd = [f"{one}: {value:g}" for one, value in values.items() if name.lower() == "age" and _is_odd(value)]
        words = [f"{one}: {value}" for one, value in values.items() if isinstance(value, str)]
        if words and len(words) + len(missing) < len(refs):
            message = "condition %r is a word for %s (%s) and a number for others; correct the list"
            log.warning(message, name, plural(len(words), "scan"), _some(words))
        if missing:
            which = f"{plural(len(missing), 'scan')} of {len(refs)} ({_some(missing)})"
            log.warning("condition %r is missing for %s; the model takes it as unknown", name, which)
        if odd:
            log.warning("implausible %r of %s (%s); correct the list", name, plural(len(odd), "scan"), _some(odd))


def _is_odd(value: float | str | None) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and not 0 <= value <= _OLDEST


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
