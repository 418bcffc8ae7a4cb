"""Healthy scans, run over subject by subject: all scans of a subject are left out together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medvae.run.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from medvae.anomaly.inference import Inference
    from medvae.checkpoint.model import Model

_TOGETHER = 4  # scans of a subject that are in memory at the same time; of more, one after the other


class Inferences(Protocol):
    """What a model makes of scans, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Inference: ...


@dataclass(frozen=True, eq=False)
class _Some(Sequence["Inference"]):
    """Some of the scans, each anew when it is asked for."""

    inferences: Inferences
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.inferences[self.rows[index]]


@dataclass(eq=False)
class BySubject:
    """Runs over the scans several times, subject by subject, and says after each scan how far it is."""

    inferences: Inferences
    total: int
    on_progress: Callable[[Progress], None]
    done: int = 0

    def __iter__(self) -> Iterator[Sequence[Inference]]:
        for rows in self._subjects:
            scans = _Some(self.inferences, rows)
            yield scans if len(rows) > _TOGETHER else list(scans)
            for _ in rows:
                self.done += 1
                self.on_progress(Progress("reference statistics", self.done, self.total))

    @cached_property
    def _subjects(self) -> Collection[Sequence[int]]:
        """The scans of each subject that one network maps, in the order of their first ones."""
        found: dict[tuple[str, Model], list[int]] = {}
        for row in range(len(self.inferences)):
            one = self.inferences[row]
            found.setdefault((one.prepared.subject, one.model), []).append(row)
        return found.values()

    @property
    def places(self) -> list[int]:
        """When each scan is run over: its place among all."""
        return [int(place) for place in np.argsort([row for rows in self._subjects for row in rows])]
