"""Who wrote a file, and whether that process has ended: here, elsewhere, and where nobody knows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from medvae.io import owner
from medvae.io.owner import SILENCE_S, Owner, has_ended, me

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = Owner("0123abcd", 1, 5)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "fresh").touch()
    return tmp_path / "fresh"


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    path = tmp_path / "silent"
    path.touch()
    os.utime(path, (0, time.time() - SILENCE_S - 60))
    return path


def test_a_process_is_known_again_by_its_text() -> None:
    assert Owner.parse(str(me())) == me()
    assert me().pid == os.getpid()
    for text in ("", "None", "12", "0123abcd-1", "0123abcd-1-x", f"{me()}-map.nii"):
        assert Owner.parse(text) is None


def test_a_process_of_this_machine_lives_however_silent_it_is(silent: Path) -> None:
    assert not has_ended(me(), silent)


@linux
def test_a_process_of_this_machine_has_ended_however_fresh_its_file_is(fresh: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    assert child.stdin is not None
    other = owner._owner(child.pid)
    assert not has_ended(other, fresh)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(other, fresh), "a zombie"
    child.wait()
    assert has_ended(other, fresh)


@linux
def test_a_number_that_was_given_out_again_is_another_process(fresh: Path) -> None:
    assert has_ended(replace(me(), start=me().start - 1), fresh)


def test_elsewhere_silence_decides(fresh: Path, silent: Path) -> None:
    for unknown in (ELSEWHERE, None):
        assert not has_ended(unknown, fresh)
        assert has_ended(unknown, silent)
        assert has_ended(unknown, fresh.with_name("gone"))


def test_the_clock_is_that_of_the_file_system(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(owner, "_clock", lambda folder: fresh.stat().st_mtime + SILENCE_S + 1)
    assert has_ended(ELSEWHERE, fresh)


def test_where_the_system_does_not_say_when_a_process_began_silence_decides(
    fresh: Path, silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_text", lambda path: "")
    monkeypatch.setattr(owner, "_link", lambda path: "")
    owner._owner.cache_clear()
    try:
        assert me().start == 0
        assert not has_ended(me(), fresh)
        assert has_ended(me(), silent)
        assert has_ended(replace(me(), pid=2**22 + 1), fresh), "no such process"
        monkeypatch.setattr(os, "kill", _not_mine)
        assert not has_ended(me(), fresh)
        monkeypatch.setattr(owner.os, "name", "nt")
        assert owner._lives(me()) is None
    finally:
        owner._owner.cache_clear()


@linux
def test_another_users_process_whose_start_is_hidden_is_judged_by_silence(
    fresh: Path, silent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc` with hidepid=2, as on many clusters."""
    theirs = me()
    monkeypatch.setattr(owner, "_start", lambda pid: None)
    monkeypatch.setattr(os, "kill", _not_mine)
    assert not has_ended(theirs, fresh)
    assert has_ended(theirs, silent)


def _not_mine(pid: int, number: int) -> None:
    raise PermissionError


def test_what_cannot_be_read_is_empty() -> None:
    assert owner._text("/no/such/file") == ""
    assert owner._link("/no/such/link") == ""
