"""Claims: one holder at a time, taken over from the dead alone, whatever happens in between."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from medvae.io.owner import SILENCE_S, Owner, me
from medvae.run import claims
from medvae.run.claims import Claims

if TYPE_CHECKING:
    from pathlib import Path

ENDED = Owner(me().machine, 2**22 + 1, 1)
ELSEWHERE = Owner("0123abcd", 1, 5)


def left_by(owner: Owner | None, folder: Path, name: str = "a", *, silent: bool = False) -> Path:
    """A claim that another process has left."""
    path = folder / claims.FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("" if owner is None else json.dumps({"owner": str(owner), "token": "x", "host": "node7"}))
    if silent:
        os.utime(path, (0, time.time() - SILENCE_S - 60))
    return path


def test_a_claim_has_one_holder(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a", note="place")
    assert not other.take("a")
    assert not one.take("a"), "nor twice by the same run"
    assert other.note("a") == "place"
    assert other.take("b")
    one.release("a")
    assert other.note("a") == ""
    assert other.take("a")
    one.release("a")
    assert not one.take("a"), "nobody releases the claim of another"


def test_closing_releases_everything_and_leaves_nothing(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    one.take("a")
    other.take("b")
    one.close()
    assert [path.name for path in (tmp_path / claims.FOLDER).iterdir()] == ["b"]
    other.close()
    assert list(tmp_path.iterdir()) == []
    other.close()


def test_the_dead_hold_nothing(tmp_path: Path) -> None:
    left_by(ENDED, tmp_path, "a")
    left_by(ELSEWHERE, tmp_path, "b", silent=True)
    left_by(None, tmp_path, "c", silent=True)
    mine = Claims(tmp_path)
    assert [mine.take(name) for name in "abc"] == [True] * 3
    assert mine.others("") == []
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_the_living_keep_their_claims(tmp_path: Path) -> None:
    left_by(ELSEWHERE, tmp_path, "a")
    left_by(None, tmp_path, "b")  # it is being written just now
    left_by(me(), tmp_path, "c", silent=True)  # stopped by Ctrl-Z
    mine = Claims(tmp_path)
    assert [mine.take(name) for name in "abc"] == [False] * 3
    assert mine.others("a") == ["node7"]
    mine.take("d")
    assert mine.others("d") == []


def test_a_claim_that_was_taken_over_by_somebody_else_is_put_back(tmp_path: Path) -> None:
    """Two runs find the same dead claim; the second one must not bury what the first one has put there."""
    path = left_by(ENDED, tmp_path)
    seen = json.loads(path.read_text())
    first = Claims(tmp_path)
    assert first.take("a")
    claims._bury(path, seen)
    assert not Claims(tmp_path).take("a")
    first.release("a")
    claims._bury(path, seen)
    assert not list(path.parent.iterdir())


def test_a_claim_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims.json, "dump", full)
    with pytest.raises(OSError, match="No space"):
        Claims(tmp_path).take("a")
    assert list((tmp_path / claims.FOLDER).iterdir()) == []
    with pytest.raises(FileNotFoundError):
        Claims(tmp_path / "no" / "folder").take("a")


def test_claims_are_touched_while_their_run_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_BEAT_S", 0.005)
    mine = Claims(tmp_path)
    mine.take("a")
    path = tmp_path / claims.FOLDER / "a"
    os.utime(path, (0, 0))
    end = time.monotonic() + 20
    while path.stat().st_mtime == 0:
        assert time.monotonic() < end
    mine.close()
    assert mine._beat is not None
    mine._beat.join(20)
    assert not mine._beat.is_alive()


def test_the_lock_is_waited_for_and_may_be_nested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claims, "_WORTH_TELLING_S", 0.0)
    one, other, order = Claims(tmp_path), Claims(tmp_path), list[str]()

    def wait() -> None:
        with other.locked():
            order.append("other")

    with one.locked(), one.locked():
        waiting = threading.Thread(target=wait)
        waiting.start()
        while "waiting for another run" not in caplog.text:
            pass
        order.append("one")
    waiting.join()
    assert order == ["one", "other"]
