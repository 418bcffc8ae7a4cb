"""The help of the commands: it lists every option and only those with an effect, and imports nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

import medvae
from medvae import plugins
from medvae.cli.main import main
from medvae.cli.parser import make_parser

COMMANDS = [*sorted(set(make_parser().commands) - {"evaluate"}), "evaluate detect", "evaluate augment"]
HEAVY = ("numpy", "pydantic", "yaml", "torch", "monai", "nibabel", "rich", "scipy", "pydicom")


def helped(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *what = command.split()
    text = helped(capsys, command, *what)
    used, _, told = text.partition("\n\n")
    options = set(re.findall(r"--[a-z-]+", used))
    assert {"--quiet", "--verbose"} <= options
    assert ("--set" in options) == (command not in ("review", "evaluate")), "which only read files"
    assert all(re.search(rf"^  (-h, )?{option}\b", told, re.MULTILINE) for option in options)
    assert command in helped(capsys)


@pytest.mark.parametrize("command", ["train", "augment", "demo", "evaluate augment"])
def test_a_seed_is_offered_where_something_is_drawn(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--seed" in helped(capsys, *command.split())


@pytest.mark.parametrize(
    ("command", "options"),
    [("info", {"--seed", "--on-doubtful"}), ("calibrate", {"--seed"}), ("detect", {"--seed"})],
)
def test_nothing_is_offered_without_an_effect(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not options & set(re.findall(r"--[a-z-]+", helped(capsys, command)))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"medvae {medvae.__version__}\n"


@pytest.mark.parametrize(("command", "kind"), [("train", "presets"), ("detect", "maps"), ("augment", "samplers")])
def test_names_in_the_help_stand_apart_from_what_they_are(
    command: str, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = plugins.presets() if kind == "presets" else plugins.names(kind)
    for name in names:
        assert f"  {name} " in helped(capsys, command), name


@pytest.mark.parametrize("argv", [["--help"], ["detect", "--help"], ["augment"]])
def test_the_parser_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys\n"
        "from medvae.cli.main import main\n"
        "try:\n"
        f"    main({argv!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("heavy: []\n")
