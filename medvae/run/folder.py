"""The folder of a run: whose it is, what was done before, and what several runs at once may do in it.

OUT/run.json          what the run is, and how it ended
OUT/manifest.jsonl    one outcome per line, appended as scans end
OUT/.claims/          while runs are at work: who they are, and which scans they are doing
"""

from __future__ import annotations

import logging
import time
import uuid
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from medvae import __version__
from medvae.errors import InputError, OutputError
from medvae.io.files import remove_partials, write_json
from medvae.run.claims import Claims
from medvae.run.manifest import Manifest
from medvae.run.record import (
    EMPTY,
    RESEARCH_USE,
    disk_errors,
    hash_of,
    is_model,
    new_record,
    read_record,
    refuse_other_run,
)
from medvae.run.task import Todo
from medvae.run.work import Job, Placed, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from medvae.run.outcomes import Outcome, Summary

__all__ = ["RESEARCH_USE", "OutputFolder", "disk_errors", "hash_of"]

log = logging.getLogger(__name__)

J = TypeVar("J", bound=Job)


class OutputFolder:
    """The folder of a run; a context manager, which leaves the folder to others at the end.

    A folder that is refused is left as it was.

    Args:
        path: created if it does not exist.
        command: name of the command.
        identity: what makes two runs the same run (settings, hash of the model): a folder of another one is refused.
        overwrite: begin anew where the folder holds a run of the same command; what that run listed in its manifest and
            its record is removed, and nothing else.
        exclusive: one run at a time, and ids are this run's own, as in a model folder. Otherwise several runs may write
            into the folder at once, e.g. one job per subject.
        part_of_model: the folder is a model folder or lies in one; without it that is refused.
        scratch: the command chose the place itself, so that nothing of a user is in it: with `overwrite` whatever a run
            has left there is no obstacle, also without a record that can be read.

    Raises:
        OutputError: the folder belongs to another run, holds other files, is in use, or cannot be written.
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
        scratch: bool = False,
    ) -> None:
        self.path = path
        self._record = new_record(command, identity)
        self._begun = time.monotonic()
        self._alone, self._exclusive, self._scratch = overwrite or exclusive, exclusive, scratch
        self._manifest = Manifest(path / "manifest.jsonl")
        self._claims = Claims(path)
        weakref.finalize(self, self._claims.close)  # where nobody closes the folder
        if not part_of_model:
            self._refuse_models()
        with disk_errors(path):
            self._refuse(overwrite=overwrite)
            path.mkdir(parents=True, exist_ok=True)
            try:
                with self._claims.locked():
                    self._refuse(overwrite=overwrite)  # another run may have begun meanwhile
                    self._open(overwrite=overwrite)
            except BaseException:
                self._claims.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the folder to others."""
        with disk_errors(self.path):
            self._claims.close()

    def _refuse_models(self) -> None:
        place = self.path.resolve()
        for folder in (place, *place.parents):
            if is_model(folder):
                hint = "choose a folder outside the model"
                raise OutputError(
                    f"the output folder lies in the model folder {folder.name}", path=self.path, hint=hint
                )

    def _refuse(self, *, overwrite: bool) -> None:
        """Refuse a folder that is not this run's, or where another run is in the way. Nothing is changed."""
        if self._alone and (hosts := self._claims.others("run-")):
            hint = "wait until it has ended, or choose another folder"
            hint = hint if self._exclusive else f"do not pass overwrite=True, {hint}"
            raise OutputError(f"another run is writing into the folder (on {hosts[0]})", path=self.path, hint=hint)
        if overwrite and self._scratch:
            return
        if (self.path / "run.json").is_file():
            refuse_other_run(self.path, self._record, overwrite=overwrite)
        elif self.path.is_dir() and any(path.name[0] != "." for path in self.path.iterdir()):
            raise OutputError("the output folder holds other files", path=self.path, hint=EMPTY)

    def _open(self, *, overwrite: bool) -> None:
        self._claims.take(f"run-{uuid.uuid4().hex[:8]}")
        remove_partials(self.path)
        if overwrite:
            for outcome in self._manifest.outcomes().values():
                self._remove(outcome.outputs)
            self._remove(self._files_of_all())
            self._manifest.path.unlink(missing_ok=True)
        run = self.path / "run.json"
        if overwrite or not run.is_file():  # the record of the same run stays until this one is finished
            write_json(run, self._record)
        elif (before := read_record(self.path).get("medvae")) != __version__:
            message = "%s: results of medvae %s stay as they are; pass overwrite=True to make them anew"
            log.warning(message, self.path.name, before)
        self._manifest.path.touch()  # with it, the folder is known as output wherever scans are looked for

    def _files_of_all(self) -> list[str]:
        """The files that an earlier run has finished with: about all of its scans, not about one."""
        try:
            return [str(name) for name in read_record(self.path).get("files", [])]
        except InputError:  # there is no record, or it cannot be read
            return []

    def _remove(self, outputs: Iterable[str], *, keep: int = 0) -> None:
        """Remove files of an earlier run, and the folders that are empty then.

        Args:
            outputs: names below the folder; one that leads out of it is passed over.
            keep: this many levels of folders stay, because other runs write into them.
        """
        for name in outputs:
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                continue
            (self.path / name).unlink(missing_ok=True)
            for folder in pure.parents[: -1 - keep]:
                with suppress(OSError):  # not empty
                    (self.path / folder).rmdir()

    # ------------------------------------------------------------------------------------------------- one job

    def take(self, job: J) -> Todo[J] | None:
        """The job, closed to other runs until it is released; None while another run does it.

        A scan whose id belongs to another scan in the folder, from another place and with other contents, gets an id of
        its own, which ends with a hash of its place.
        """
        source = source_of(job)
        if self._exclusive:
            return Todo(job, source, self._known(job.id))
        with disk_errors(self.path):
            free = self._claims.take(_claim(job), note=source)
            if not free and self._claims.note(_claim(job)) in ("", source):
                return None
            if free and self._is_same(job, source):
                return Todo(job, source, self._known(job.id, source=source))
            if free:
                self._claims.release(_claim(job))
            return self._take_renamed(job, source)

    def _is_same(self, job: Job, source: str) -> bool:
        """Whether the result of this id that is there, if any, is of the same place or the same contents."""
        there = self._manifest.outcomes().get(job.id.lower())
        if there is None or not isinstance(job, Placed) or there.source in ("", source):
            return True
        if self._is_whole(there):
            return False  # where the contents are the same it is known as done
        with suppress(OSError):
            return there.input == job.fingerprint()
        return False

    def _take_renamed(self, job: J, source: str) -> Todo[J] | None:
        other: J = cast("Any", job).with_id(f"{job.id}-{source[:6]}")
        if not self._claims.take(_claim(other), note=source):
            return None
        return Todo(other, source, self._known(job.id, other.id, source=source))

    def release(self, todo: Todo[J]) -> None:
        """Open the job to other runs."""
        if not self._exclusive:
            with disk_errors(self.path):
                self._claims.release(_claim(todo.job))

    def _known(self, *names: str, source: str = "") -> dict[str, Outcome]:
        """Whole results by fingerprint: those of the same place under any id, and those under these ids."""
        there = self._manifest.outcomes()
        found = self._manifest.of_source(source) if source else []
        found += [one for name in names if (one := there.get(name.lower())) is not None]
        return {one.input: one for one in found if one.input and self._is_whole(one)}

    def append(self, outcome: Outcome) -> None:
        """Add a line to the manifest; files of an earlier result of this id that are no longer listed are removed."""
        with disk_errors(self.path), self._claims.locked():
            before = self._manifest.outcomes().get(outcome.id.lower())
            if before is not None:
                self._remove(sorted(set(before.outputs) - set(outcome.outputs)), keep=1)
            self._manifest.append(outcome)

    def _is_whole(self, outcome: Outcome) -> bool:
        return outcome.status == "ok" and all(_is_there(self.path / name) for name in outcome.outputs)

    # ------------------------------------------------------------------------------------------------- all jobs

    @contextmanager
    def rows(self) -> Iterator[tuple[Outcome, ...]]:
        """How all scans of the folder ended, by id, those of other runs included: what its tables are made from.

        A scan whose files are gone is left out. No other run writes tables while the block is open.
        """
        with self._claims.locked():
            yield self._rows()

    def _rows(self) -> tuple[Outcome, ...]:
        there = sorted(self._manifest.outcomes().values(), key=lambda one: one.id)
        return tuple(one for one in there if one.status != "ok" or self._is_whole(one))

    def keep_only(self, outcomes: Iterable[Outcome]) -> None:
        """Forget all results but these, and remove the files of the others. Of an exclusive folder only."""
        names = {one.id for one in outcomes}
        with disk_errors(self.path), self._claims.locked():
            there = tuple(self._manifest.outcomes().values())
            self._manifest.rewrite(one for one in there if one.id in names)
            for one in there:
                self._remove(one.outputs if one.id not in names else ())

    def remove_outputs(self) -> None:
        """Remove the files of all results, which only this run needed; no line lists them, a later run makes them anew.

        Of an exclusive folder only: another run would count on them.
        """
        with disk_errors(self.path), self._claims.locked():
            there = tuple(self._manifest.outcomes().values())
            self._manifest.rewrite(replace(one, outputs=(), input="") if one.outputs else one for one in there)
            for one in there:
                self._remove(one.outputs)

    def finish(self, summary: Summary, *, files: Iterable[str] = (), **more: Any) -> None:
        """Complete `run.json` with counts over the whole folder, the time this run took, and facts of the command.

        Args:
            summary: of this run.
            files: names of those about all scans, which a run that begins anew removes.
            more: facts.
        """
        with disk_errors(self.path), self._claims.locked():
            ended = {one.id: one for one in (*self._rows(), *summary.outcomes) if one.code != "claimed"}
            counts = Counter(one.status for one in ended.values())
            ending = {"counts": dict(sorted(counts.items())), "seconds": round(time.monotonic() - self._begun, 1)}
            listed = {"files": list(files)} if files else {}
            write_json(self.path / "run.json", {**self._record, **more, **listed, **ending})


def _is_there(path: Path) -> bool:
    """Whether a file holds something: a machine or file system that fails may leave files empty afterwards."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except FileNotFoundError:  # another run has removed it since
        return False


def _claim(job: Job) -> str:
    return f"scan-{job.id.lower()}"
