"""How one scan ended, how a whole run did, and the one place where the error of a scan becomes a value."""

from __future__ import annotations

import logging
import math
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from medvae.errors import CODES, MedVAEError, ScanError, is_disk_full, is_out_of_memory
from medvae.run.work import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)
J = TypeVar("J", bound=Job)
T = TypeVar("T")
Stage = Literal["read", "compute", "write"]
_HINTS = 3  # of one code in the text for a person: some name what a file has, e.g. its number of volumes
_SHOWN = 10  # warnings in the text for a person: those with a number in them may be as many as scans


@dataclass(frozen=True)
class Outcome:
    """How one scan ended.

    Attributes:
        id: of the scan.
        status: ok, skipped (no image volume), rejected (it cannot be used), failed (our side).
        code: key of `medvae.errors.CODES`, None where ok.
        stage: where it ended.
        message: what was found, without identity.
        hint: what to do.
        outputs: files written, relative to the output folder.
        seconds: wall time of computing and writing.
        warnings: what a reader of the outputs should know.
        scores: numbers by name, for the tables; None where one is not known.
        facts: words by name, for the tables.
        input: fingerprint of what the job reads: a changed input is done again.
        source: hash of the place of the input; does not reveal whose it is.
    """

    id: str
    status: Literal["ok", "skipped", "rejected", "failed"]
    code: str | None = None
    stage: Stage = "write"
    message: str = ""
    hint: str = ""
    outputs: tuple[str, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    scores: dict[str, float | None] = field(default_factory=dict)
    facts: dict[str, str | None] = field(default_factory=dict)
    input: str = ""
    source: str = ""

    @classmethod
    def from_error(cls, job: Job, problem: ScanError, *, stage: Stage) -> Outcome:
        """The outcome of a scan that could not be used."""
        return cls(job.id, problem.status, problem.code, stage, problem.message, problem.hint or "")

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Outcome:
        """The outcome from plain data; TypeError or KeyError where it is none."""
        return cls(**{**tree, "outputs": tuple(tree["outputs"]), "warnings": tuple(tree["warnings"])})


@dataclass(frozen=True)
class Summary:
    """How a run ended: one outcome per job, in the order of the jobs, those done before included."""

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Scans by status."""
        return dict(Counter(outcome.status for outcome in self.outcomes))

    @property
    def exit_code(self) -> int:
        """0 all ok or skipped, 1 some rejected or failed, 2 nothing usable; a scan of another run counts as usable."""
        bad = any(outcome.status in ("rejected", "failed") for outcome in self.outcomes)
        if not any(outcome.status == "ok" or outcome.code == "claimed" for outcome in self.outcomes):
            return 2
        return 1 if bad else 0

    def lines(self) -> list[str]:
        """The text for a person: what did not end ok, grouped by code and hint; each warning once; the counts."""
        by_code: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.status != "ok":
                by_code.setdefault(outcome.code or "internal", []).append(outcome)
        lines = []
        for code in sorted(by_code, key=list(CODES).index):
            lines += _told(code, by_code[code])
        counts = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items()))
        return [*lines, *self._warnings(), counts]

    def _warnings(self) -> list[str]:
        """Each warning once, with the first scan that has it."""
        warned: dict[str, list[str]] = {}
        for outcome in self.outcomes:
            for warning in outcome.warnings:
                warned.setdefault(warning, []).append(outcome.id)
        lines = []
        for warning, ids in list(warned.items())[:_SHOWN]:
            more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
            lines.append(f"warning: {ids[0]}{more}: {warning}")
        if len(warned) > _SHOWN:
            lines.append(f"{len(warned) - _SHOWN} more warnings are not shown")
        return lines


def _told(code: str, ended: Sequence[Outcome]) -> list[str]:
    """The first scan of a code with each hint, how many others there are, and the hint; later hints are not shown."""
    hints, lines = list(dict.fromkeys(one.hint for one in ended))[:_HINTS], []
    for hint in hints:
        group = [one for one in ended if one.hint == hint or (hint == hints[-1] and one.hint not in hints)]
        first, same = group[0], sum(one.message == group[0].message for one in group)
        more = f" and {same - 1} more" if same > 1 else ""
        others = f"; {len(group) - same} more for other reasons" if same < len(group) else ""
        lines += [f"{first.status} ({code}): {first.id}{more}: {first.message}{others}", f"  hint: {hint}"]
    return lines


@dataclass(frozen=True)
class Finished:
    """What a pipeline returns: how its scans ended, and what a person is told. Nothing has been printed.

    Attributes:
        out: the folder that was written.
        summary: one outcome per scan.
        lines: the text for a person, line by line, without the summary's own.
    """

    out: Path
    summary: Summary
    lines: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all ok or skipped, 1 some rejected or failed, 2 nothing usable."""
        return self.summary.exit_code


@dataclass(frozen=True)
class Failed:
    """What `attempt` returns where a scan cannot be used. Picklable.

    Attributes:
        problem: what was found.
        trace: the traceback, where it was not foreseen.
    """

    problem: ScanError
    trace: str = ""


def attempt(call: Callable[[J], T], job: J) -> T | Failed:
    """`call(job)`, or what is wrong with that job, so that it never stops the others.

    Raises:
        MedVAEError: one that is about the whole run.
        OSError: the disk is full, which is about the whole run, too.
    """
    try:
        return call(job)
    except ScanError as problem:
        return Failed(problem)
    except MedVAEError:
        raise
    except Exception as problem:
        if is_disk_full(problem):
            raise
        if is_out_of_memory(problem):
            return Failed(ScanError("memory ran out", code="out_of_memory"))
        text = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        return Failed(ScanError(text, code="internal"), traceback.format_exc())


def as_outcome(result: T | Failed, job: Job, *, stage: Stage) -> T | Outcome:
    """What `attempt` gave: a failure as the outcome of the job, anything else as it is."""
    if not isinstance(result, Failed):
        return result
    if result.trace:
        log.debug("%s: %s", job.id, result.trace)
    return Outcome.from_error(job, result.problem, stage=stage)


def plain(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores as JSON can hold them: a number that is not finite is None, as one that is not known."""
    return {name: _plain(value) for name, value in scores.items()}


def _plain(value: float | None) -> float | None:
    if value is None or isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
