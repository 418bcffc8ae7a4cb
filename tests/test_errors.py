"""Errors: a table of codes in order of precedence, one line without folders, travel between processes."""

from __future__ import annotations

import ast
import errno
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medvae import errors
from medvae.cli.words import translated
from medvae.errors import CODES, InputError, MedVAEError, ModelError, OutputError, RunError, ScanError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_how_it_ends_and_what_to_do(code: str) -> None:
    problem = ScanError("found this", code=code)
    assert problem.status in ("skipped", "rejected", "failed")
    assert problem.hint == CODES[code].hint
    assert len(CODES[code].hint) > 10
    assert len(CODES[code].meaning) > 10


def test_an_unknown_code_is_no_code() -> None:
    with pytest.raises(KeyError):
        ScanError("x", code="oops")


@pytest.mark.parametrize("path", ["/home/smith/a.nii", "C:\\smith\\a.nii", "a.nii"])
def test_only_the_name_of_a_file_is_shown(path: str) -> None:
    assert str(ScanError("ends early", code="truncated", path=path)) == "a.nii: ends early"
    assert str(RunError("wrong")) == "wrong"


def test_several_reasons_are_one_error_by_precedence() -> None:
    problem = ScanError.of_all([("blank", "one value"), ("truncated", "ends early"), ("not_3d", "4D")], path="a")
    assert problem.code == "truncated"
    assert problem.message == "ends early; 4D; one value"


@pytest.mark.parametrize(
    "problem",
    [
        ScanError("m", code="blank", path="p", hint="h"),
        RunError("m", code="usage", hint="h"),
        SettingsError("m"),
        InputError("m", path="p"),
        ModelError("m"),
        OutputError("m"),
        MedVAEError("m", code="c"),
    ],
)
def test_errors_travel_between_processes(problem: MedVAEError) -> None:
    there = pickle.loads(pickle.dumps(problem))
    assert type(there) is type(problem)
    assert vars(there) == vars(problem)


def test_a_full_disk_is_known_by_number_and_by_text() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert errors.is_disk_full(OSError(number, "x"))
    assert errors.is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not errors.is_disk_full(OSError(errno.EACCES, "x"))
    assert not errors.is_disk_full(RuntimeError("x"))


def test_exhausted_memory_is_known_by_type_and_by_text() -> None:
    own = type("OutOfMemoryError", (RuntimeError,), {})
    assert errors.is_out_of_memory(MemoryError())
    assert errors.CODES["out_of_memory"].hint.endswith("where scans are read, fewer workers (workers=0)"), (
        "augment has none"
    )
    assert errors.is_out_of_memory(own("x"))
    assert errors.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not errors.is_out_of_memory(RuntimeError("x"))


# ------------------------------------------------------------------------------------------------------------- hints

ROOT = Path(__file__).parents[1]
HINTS = r"hint|READS|\w*HINT|_NEEDED|\w*_AGAIN|_AFFINE|_VOLUME|_CURE|_UNEQUAL|_NO_VOLUME|_GUARD"  # names of variables
VERBS = {
    *(
        "add",
        "apply",
        "ask",
        "bring",
        "calibrate",
        "change",
        "check",
        "choose",
        "copy",
        "convert",
        "correct",
        "decompress",
    ),
    *(
        "did",
        "do",
        "export",
        "fetch",
        "fill",
        "free",
        "give",
        "ignore",
        "install",
        "keep",
        "leave",
        "look",
        "lower",
        "name",
    ),
    *("pass", "pip", "put", "raise", "repair", "replace", "run", "save", "see", "set", "split", "train", "update"),
    *("use", "wait", "warm", "write", "begin"),
}


def hints(tree: ast.Module) -> Iterator[str]:
    """The beginning of every text that is written as a hint: an argument, a variable or a constant of that name."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.keyword) and node.arg == "hint") or (
            isinstance(node, ast.Assign) and re.fullmatch(HINTS, getattr(node.targets[0], "id", ""))
        ):
            yield from texts(node.value)


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield str(node.values[0].value)
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))


@pytest.mark.parametrize("path", sorted([*ROOT.glob("medvae/**/*.py"), *ROOT.glob("pipelines/*.py")]), ids=str)
def test_every_hint_is_an_imperative(path: Path) -> None:
    there = hints(ast.parse(path.read_text("utf-8")))
    wrong = [text for text in there if text and text.split(" ")[0].strip(",:") not in VERBS]
    assert not wrong, "begin with a verb, or add it to VERBS"


@pytest.mark.parametrize("code", CODES)
def test_the_hint_of_a_code_is_an_imperative_also_on_the_command_line(code: str) -> None:
    for text in (CODES[code].hint, translated(CODES[code].hint)):
        assert text.split(" ")[0].strip(",:") in VERBS
        assert not re.search(r": --", text), "an option is no sentence"
