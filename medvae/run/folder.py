"""The folder of a run: `run.json`, `manifest.jsonl`, what was done before, and what a full disk is called."""

from __future__ import annotations

import json
import platform
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from medvae import __version__
from medvae.errors import OutputError, is_disk_full
from medvae.io.files import PARTIAL, remove_partials, write_json
from medvae.run.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from medvae.run.outcomes import Summary
    from medvae.run.work import Job

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."
_PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel", "pydicom", "SimpleITK", "scikit-learn")


class OutputFolder:
    """The folder of a run: `run.json`, `manifest.jsonl`, and what was done before.

    Args:
        path: made if it is not there.
        command: name of the command.
        identity: what makes two runs the same run (settings, hash of the model): a folder of another one is refused.
        overwrite: begin anew; what an earlier run listed in the manifest is removed, and nothing else.
        exclusive: one run at a time, and ids are this run's own, as in a model folder. Otherwise several runs may write
            into the folder at once, e.g. one job per subject.
        part_of_model: the folder is a model folder or lies in one; without it that is refused.

    Raises:
        OutputError: the folder belongs to another run, holds other files, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        command: str,
        identity: dict[str, Any],
        overwrite: bool = False,
        exclusive: bool = False,
        part_of_model: bool = False,
    ) -> None:
        self.path = path
        self._exclusive, self._part_of_model = exclusive, part_of_model
        self._record = {"command": command, "medvae": __version__, "notice": RESEARCH_USE, "identity": identity}
        self._record |= {"versions": _versions(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._clock = time.monotonic()
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            remove_partials(path)
            self._open(overwrite=overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the folder to others."""

    def _open(self, *, overwrite: bool) -> None:
        run, manifest = self.path / "run.json", self.path / "manifest.jsonl"
        before = _read_outcomes(manifest)
        if overwrite:
            for outcome in before.values():
                self._remove(outcome.outputs)
            manifest.unlink(missing_ok=True)
            before = {}
        elif run.is_file():
            self._same_run(run)
        elif any(path.name[0] != "." for path in self.path.iterdir()):
            hint = "choose an empty folder, or pass --overwrite"
            raise OutputError("the output folder holds other files", path=self.path, hint=hint)
        self._before = before
        if overwrite or not run.is_file():  # the record of the same run stays until this one is finished
            write_json(run, self._record)

    def _remove(self, outputs: Sequence[str]) -> None:
        """Remove files of an earlier run and the folders they leave empty; a name that leads out is passed over."""
        for name in outputs:
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                continue
            (self.path / name).unlink(missing_ok=True)
            for folder in pure.parents[:-1]:
                with suppress(OSError):  # not empty
                    (self.path / folder).rmdir()

    def _same_run(self, run: Path) -> None:
        try:
            there = json.loads(run.read_text("utf-8"))
        except (ValueError, OSError):
            there = None
        mine = json.loads(json.dumps(self._record))
        if isinstance(there, dict) and there.get("command") not in (None, mine["command"]):
            message = f"the folder holds a run of `medvae {there['command']}`"
            raise OutputError(message, path=self.path, hint="choose another folder")
        if not isinstance(there, dict) or any(there.get(key) != mine[key] for key in ("command", "identity")):
            hint = "choose another folder, or pass --overwrite to begin anew"
            raise OutputError("the folder holds a run with other settings or another model", path=self.path, hint=hint)

    def known(self, job: Job) -> dict[str, Outcome]:
        """Whole results of this job from before, by fingerprint."""
        outcome = self._before.get(job.id)
        return {outcome.input: outcome} if outcome is not None and self._is_whole(outcome) else {}

    @contextmanager
    def rows(self) -> Iterator[tuple[Outcome, ...]]:
        """How all scans of the folder ended, by id, those of other runs included: what its tables are made from.

        No other run writes tables while the block is open.
        """
        rows = _read_outcomes(self.path / "manifest.jsonl")
        yield tuple(one for _, one in sorted(rows.items()) if one.status != "ok" or self._is_whole(one))

    def others(self, jobs: Iterable[Job]) -> tuple[Outcome, ...]:
        """Scans that earlier runs brought to a good end and whose files are still there, those of `jobs` not included.

        In the order of their ids, so that a table of the folder loses no row where fewer scans are given again.
        """
        now = {job.id for job in jobs}
        return tuple(one for name, one in sorted(self._before.items()) if name not in now and self._is_whole(one))

    def _is_whole(self, outcome: Outcome) -> bool:
        return outcome.status == "ok" and all((self.path / name).is_file() for name in outcome.outputs)

    def append(self, outcome: Outcome) -> None:
        """Add a line to the manifest; after one that a killed run left half written, on a line of its own."""
        line = json.dumps(asdict(outcome), ensure_ascii=False, allow_nan=False) + "\n"
        with disk_errors(self.path), open(self.path / "manifest.jsonl", "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                line = line if file.read() == b"\n" else "\n" + line
            file.write(line.encode("utf-8", "backslashreplace"))

    def finish(self, summary: Summary, **more: Any) -> None:
        """Complete `run.json` with counts, the time it took, and more facts of the command."""
        seconds = round(time.monotonic() - self._clock, 1)
        with disk_errors(self.path):
            write_json(self.path / "run.json", {**self._record, **more, "counts": summary.counts, "seconds": seconds})


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into an OutputError that names the file."""
    try:
        yield
    except Exception as problem:
        if is_disk_full(problem):
            hint = "free some space and run the same command again: it goes on where it stopped"
            raise OutputError("the disk is full", path=_named(problem, path), hint=hint) from problem
        if isinstance(problem, OSError):
            message = f"cannot write: {problem.strerror or problem}"
            hint = "check that the folder exists and that you may write there, or choose another"
            raise OutputError(message, path=_named(problem, path), hint=hint) from problem
        raise


def _named(problem: Exception, path: Path) -> str:
    """The file that could not be written, by the name it would have got."""
    name = getattr(problem, "filename", None)
    return re.sub(rf"{re.escape(PARTIAL)}\d+-", "", str(name)) if name else str(path)


def hash_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_outcomes(manifest: Path) -> dict[str, Outcome]:
    """The last outcome of each scan; a line that a killed run left half written is passed over."""
    outcomes = {}
    for line in manifest.read_text("utf-8", errors="replace").splitlines() if manifest.is_file() else ():
        try:
            outcome = Outcome.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        outcomes[outcome.id] = outcome
    return outcomes


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
