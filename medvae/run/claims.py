"""Claims in a folder that several runs share: a file that only one of them can create.

Creating a file that must not exist is the one thing that is atomic on local disks and network file systems alike; a
lock of a file is not. A claim names its process, which touches it while it lives, so that a claim of a process that was
killed is taken over: at once on the same machine, after `SILENCE_S` on another one.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from medvae.io.owner import SILENCE_S, Owner, has_ended, me

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = ".claims"
_BEAT_S = SILENCE_S / 20
_LONGEST_WAIT_S = 0.2  # between two looks at a lock
_WORTH_TELLING_S = 10.0


class Claims:
    """The claims of one run in a folder.

    Args:
        folder: exists; the claims lie in `.claims` in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._token = uuid.uuid4().hex
        self._held = set[str]()
        self._depth = 0
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None

    def take(self, name: str, *, note: str = "") -> bool:
        """Claim `name`, unless another run that lives holds it.

        Args:
            name: of what is claimed, safe as a file name.
            note: what others may read, see `note`.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._folder / name
        while not self._create(path, note):
            if self._look(path) is not None:
                return False
        self._held.add(name)
        self._keep_alive()
        return True

    def release(self, name: str) -> None:
        """Give up a claim; nothing where another run has taken it over meanwhile."""
        self._held.discard(name)
        path = self._folder / name
        if (_read(path) or {}).get("token") == self._token:
            path.unlink(missing_ok=True)

    def note(self, name: str) -> str:
        """What the holder of a claim wrote beside it; "" where there is none."""
        return str((_read(self._folder / name) or {}).get("note", ""))

    def others(self, prefix: str) -> list[str]:
        """Hosts of the living runs that hold a claim whose name begins with `prefix`, except this run."""
        found = []
        for path in self._paths(prefix):
            there = _read(path)
            if there is None or there.get("token") == self._token:
                continue
            if not has_ended(Owner.parse(str(there.get("owner"))), path):
                found.append(str(there.get("host", "unknown host")))
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; wait for it where another run does. May be nested."""
        if self._depth == 0:
            self._wait_for("lock")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.release("lock")

    def close(self) -> None:
        """Release all claims, remove those of runs that have ended, and the folder of claims where it is empty."""
        self._stop.set()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):  # others hold claims
            for path in self._paths():
                self._look(path)
            self._folder.rmdir()

    def _paths(self, prefix: str = "") -> list[Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            names = []
        return [self._folder / name for name in sorted(names) if name.startswith(prefix)]

    def _look(self, path: Path) -> dict[str, Any] | None:
        """What a claim of a living run says; None where there is none. The claim of a run that has ended is removed."""
        there = _read(path)
        if there is None or not has_ended(Owner.parse(str(there.get("owner"))), path):
            return there
        _bury(path, there)
        return None

    def _wait_for(self, name: str) -> None:
        begun, told = time.monotonic(), False
        while not self.take(name):
            if not told and time.monotonic() - begun > _WORTH_TELLING_S:
                log.warning("waiting for another run that is writing into %s", self._folder.parent)
                told = True
            time.sleep(random.uniform(0.001, min(_LONGEST_WAIT_S, 0.01 + time.monotonic() - begun)))

    def _create(self, path: Path, note: str) -> bool:
        facts = {"owner": str(me()), "host": platform.node(), "token": self._token, "note": note}
        while True:
            try:
                number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            except FileNotFoundError:  # the first claim, or the last one of another run went just now
                with suppress(FileExistsError):  # exist_ok looks again, by when the folder may be gone
                    self._folder.mkdir()
                continue
            try:
                with open(number, "w", encoding="utf-8") as file:
                    json.dump(facts, file)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return True

    def _keep_alive(self) -> None:
        if self._beat is None:
            self._beat = threading.Thread(target=self._touch, daemon=True)
            self._beat.start()

    def _touch(self) -> None:
        while not self._stop.wait(_BEAT_S):
            for name in list(self._held):
                with suppress(OSError):
                    os.utime(self._folder / name)


def _read(path: Path) -> dict[str, Any] | None:
    """What a claim says; None where it is gone, {} where it is being written."""
    try:
        there = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return there if isinstance(there, dict) else {}


def _bury(path: Path, seen: dict[str, Any]) -> None:
    """Remove the claim of a run that has ended; a claim that replaced it since is put back."""
    grave = path.with_name(f"{uuid.uuid4().hex}.ended")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return
    if _read(grave) == seen:
        grave.unlink(missing_ok=True)
    else:
        os.rename(grave, path)
