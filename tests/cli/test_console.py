"""The console: results on stdout, everything else on stderr; loudness; bars drawn, plain and silent."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from medvae.cli import console
from medvae.errors import RunError
from medvae.run.work import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    ours = logging.getLogger("medvae")
    before = (ours.handlers[:], ours.level, ours.propagate, console._quiet)
    yield
    ours.handlers[:], ours.propagate, console._quiet = before[0], before[2], before[3]
    ours.setLevel(before[1])


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("loudness", "heard"),
    [({}, "info\nwarning\n"), ({"quiet": True}, ""), ({"verbose": True}, "medvae.x: debug\nmedvae.x: info\n")],
)
def test_loudness(loudness: dict[str, bool], heard: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.configure(**loudness)
    console.configure(**loudness)  # twice is once
    log = logging.getLogger("medvae.x")
    log.debug("debug")
    log.info("info")
    log.warning("warning")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(heard) if loudness.get("verbose") else said.err == heard


def test_results_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.out("done")
    console.table(["id", "status"], [["a", "ok"], ["longer", "rejected"]])
    said = capsys.readouterr()
    assert said.out == "done\nid      status\na       ok\nlonger  rejected\n"
    assert said.err == ""


def test_an_error_is_one_line_and_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(RunError("wrong", path="/x/a.nii", hint="do this"))
    console.error(RunError("wrong"))
    said = capsys.readouterr()
    assert said.err == "medvae: a.nii: wrong\n  hint: do this\nmedvae: wrong\n"
    assert said.out == ""


def _steps() -> None:
    with console.progress() as on_progress:
        for done, total, note in ((0, 4, ""), (1, 4, "first"), (2, 4, "first"), (3, 3, "last")):
            on_progress(Progress("work", done, total, note))


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.configure()
    monkeypatch.setattr(console.time, "monotonic", lambda: 1000.0)
    _steps()
    assert capsys.readouterr().err == "work: 0/4\nwork: 3/3 last\n"


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    console.configure(quiet=True)
    _steps()
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console.configure()
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    _steps()
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "work" in text
    assert "3/3" in text
    assert "last" in text


def test_a_name_that_the_terminal_cannot_show_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    console.configure()
    console.out("4×5 \udcff")
    sys.stdout.flush()
    assert raw.getvalue() == b"4\\xd75 \\udcff\n"
