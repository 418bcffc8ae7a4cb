"""The command line: parse, call one command, turn every error into one line, a hint and an exit code.

Only the standard library is imported before the arguments are understood, so that `--help` is instant.
Exit codes: 0 every scan ok, skipped or done before; 1 some rejected or failed; 2 the run could not be carried out;
130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from medvae.cli import console
from medvae.cli.parser import make_parser
from medvae.errors import MedVAEError, OutputError, RunError, is_disk_full, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BEGIN_ANEW = ("info", "evaluate", "review")  # they do not go on from an interrupted run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = make_parser().parse_args(words)
        console.configure(verbose=args.verbose, quiet=args.quiet)
        with _stopped_by_signal():
            code: int = args.call(args)
        console.flush()
    except KeyboardInterrupt:
        console.error(RunError("interrupted", hint=_again(words)))
        return 130
    except Exception as problem:
        if "--verbose" in words:
            import traceback

            traceback.print_exc()
        console.error(_as_error(problem, again=_again(words)))
        return 2
    return code


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """Answer a scheduler that ends us (SIGTERM) as Ctrl-C: no partial file, no worker is left."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever runs us there has the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _again(words: Sequence[str]) -> str:
    """How to go on with a command that was stopped."""
    if words[:1] and words[0] in _BEGIN_ANEW:
        return "run the same command again: it begins anew"
    how = "with --resume" if "train" in words[:1] else "as it is"
    if "--overwrite" in words:
        how = f"{how} and without --overwrite" if how == "with --resume" else "without --overwrite"
    return f"run the same command again, {how}: it does what is missing"


def _as_error(problem: Exception, *, again: str) -> MedVAEError:
    """What a user sees of an exception that reached the top."""
    if isinstance(problem, MedVAEError):
        return problem
    name = getattr(problem, "filename", None)
    if is_disk_full(problem):
        return OutputError("the disk is full", path=name, hint=f"free some space and {again}")
    if is_out_of_memory(problem):
        return RunError(
            "memory ran out",
            hint="use a smaller batch, a machine with more memory or, where the command has the option, --workers 0",
        )
    if isinstance(problem, OSError) and name is not None:
        return RunError(problem.strerror or str(problem), path=name, hint="check the path and its permissions")
    text = " ".join(str(problem).split())
    return RunError(f"unexpected {type(problem).__name__}: {text}", hint="run again with --verbose and report it")
