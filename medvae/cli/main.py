"""The command line: parse, call one pipeline, turn every error into one line, a hint and an exit code.

Only the standard library is imported before the arguments are understood, so that `--help` is instant.
Exit codes: 0 every scan ok, skipped or done before; 1 some rejected or failed; 2 the run could not be carried out;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from medvae import __version__, console, plugins
from medvae.errors import MedVAEError, OutputError, RunError, is_disk_full, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from medvae.plugins import Kind
    from medvae.run.outcomes import Finished
    from medvae.scan import Selection
    from medvae.settings import Settings

    Listed = Kind | Literal["presets"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    texts = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parser().parse_args(texts)
        console.configure(verbose=args.verbose, quiet=args.quiet)
        with _stopped_by_signal():
            code: int = args.call(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        console.error(RunError("interrupted", hint=_again(texts)))
        return 130
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if "--verbose" in texts:
            import traceback

            traceback.print_exc()
        console.error(_in_words(problem, again=_again(texts)))
        return 2
    return code


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """Let a scheduler that ends us (SIGTERM) be answered as Ctrl-C is: no partial file, no worker is left."""

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


def _again(texts: Sequence[str]) -> str:
    """How to go on with a command that was stopped."""
    how = "with --resume" if "train" in texts[:1] else "as it is"
    return f"run the same command again, {how}: it does what is missing"


def _in_words(problem: Exception, *, again: str) -> MedVAEError:
    """What a user is told of an exception that reached the top."""
    if isinstance(problem, MedVAEError):
        return problem
    name = getattr(problem, "filename", None)
    if is_disk_full(problem):
        return OutputError("the disk is full", path=name, hint=f"free some space and {again}")
    if is_out_of_memory(problem):
        return RunError("memory ran out", hint="use --workers 0, a smaller batch, or a machine with more memory")
    if isinstance(problem, OSError) and name is not None:
        return RunError(problem.strerror or str(problem), path=name, hint="check the path and its rights")
    text = " ".join(str(problem).split())
    return RunError(f"unexpected {type(problem).__name__}: {text}", hint="run again with --verbose and report it")


# ---------------------------------------------------------------------------------------- one function a command


# Settings come first: a wrong one is refused before a pipeline, and with it torch, is imported.


def _info(args: argparse.Namespace) -> int:
    settings = _settings(args)
    from medvae.pipelines import info

    report = info.run(_selection(args), settings=settings, check=args.check)
    if args.json:
        for record in report.records:
            console.out(json.dumps(record, ensure_ascii=False, allow_nan=False))
    else:
        console.table(report.columns, report.rows)
        console.out()
        for line in report.lines:
            console.out(line)
    return int(report.exit_code)


def _train(args: argparse.Namespace) -> int:
    settings = _settings(args)
    from medvae.pipelines import train

    finished = train.run(
        _selection(args),
        settings=settings,
        out=args.out,
        device=args.device,
        workers=_workers(args),
        resume=args.resume,
        overwrite=args.overwrite,
    )
    return _finish(finished)


def _calibrate(args: argparse.Namespace) -> int:
    overrides = _overrides(args)
    from medvae.pipelines import calibrate

    finished = calibrate.run(
        _selection(args),
        model=args.model,
        config=args.config,
        overrides=overrides,
        device=args.device,
        workers=_workers(args),
    )
    return _finish(finished)


def _detect(args: argparse.Namespace) -> int:
    overrides = _overrides(args)
    from medvae.pipelines import detect

    finished = detect.run(
        _selection(args),
        model=args.model,
        out=args.out,
        config=args.config,
        overrides=overrides,
        device=args.device,
        workers=_workers(args),
        overwrite=args.overwrite,
    )
    return _finish(finished)


def _augment(args: argparse.Namespace) -> int:
    overrides = _overrides(args)
    from medvae.pipelines import augment

    return _finish(
        augment.run(
            args.model,
            out=args.out,
            count=args.count,
            config=args.config,
            overrides=overrides,
            device=args.device,
            overwrite=args.overwrite,
        )
    )


def _demo(args: argparse.Namespace) -> int:
    settings = _settings(args)
    from medvae.pipelines import demo

    return _finish(
        demo.run(args.out, settings=settings, device=args.device, workers=_workers(args), overwrite=args.overwrite)
    )


def _finish(finished: Finished) -> int:
    """Print how a run ended; returns the exit code."""
    finished.summary.report()
    for line in finished.lines:
        console.out(line)
    return finished.exit_code


def _selection(args: argparse.Namespace) -> Selection:
    from medvae.scan import Selection

    return Selection(tuple(args.input), tuple(args.include), tuple(args.exclude), args.split, args.hash_ids)


def _settings(args: argparse.Namespace) -> Settings:
    from medvae.settings import load

    return load(args.config, _overrides(args))


def _overrides(args: argparse.Namespace) -> tuple[str, ...]:
    """`--set` texts, and after them the options that are short for a setting; names of plug-ins are checked."""
    named = vars(args)
    texts = list(named.get("set", ()))
    for option, key in _SHORT_FOR.items():
        if named.get(option) is not None:
            texts.append(f"{key}={named[option]}")
    if named.get("map"):
        texts.append(f"detect.maps=[{', '.join(plugins.check('maps', name) for name in args.map)}]")
    if named.get("sampler"):
        texts.append(f"augment.sampler={plugins.check('samplers', args.sampler)}")
    return tuple(texts)


def _workers(args: argparse.Namespace) -> int:
    from medvae.run.engine import default_workers

    return default_workers() if args.workers is None else int(args.workers)


# ------------------------------------------------------------------------------------------------------------- parsing

_SHORT_FOR = {
    "volume": "read.volume",
    "assume_orientation": "read.assume_orientation",
    "minutes": "train.minutes",
    "seed": "seed",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours; its help can end with the plug-ins or presets, listed only when asked for."""

    def __init__(self, *, prog: str | None = None, description: str | None = None, lists: Listed | None = None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=layout, allow_abbrev=False)
        self._lists: Listed | None = lists

    def format_help(self) -> str:
        """The help, with one line a plug-in at the end."""
        if self._lists is not None:
            names = plugins.presets() if self._lists == "presets" else plugins.names(self._lists)
            lines = (f"  {name:<18}{plugins.summary(self._lists, name)}" for name in names)
            self.epilog = "\n".join([f"{self._lists}:", *lines])
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Say an unknown option first: argparse would rather name what is missing because of it."""
        for text in takewhile(lambda text: text != "--", args):
            if self._subparsers is not None and not text.startswith("-"):
                break  # the command; what follows belongs to its own parser
            name = text.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                near = get_close_matches(name, self._option_string_actions, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise RunError(f"there is no option {name}", code="usage", hint=f"{hint}see {self.prog} --help")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise RunError(message, code="usage", hint=f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="medvae",
        description="3D variational autoencoders for medical scans: a folder of scans in; anomaly maps and synthetic\n"
        "scans out. Research use only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"medvae {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, about: str, *, lists: Listed | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=about, lists=lists)

    _add_info(command("info", "what is in a folder, from the headers, and what would be refused"))
    _add_train(command("train", "fit a VAE to healthy scans", lists="presets"))
    _add_calibrate(command("calibrate", "measure what healthy looks like, on scans that training did not see"))
    _add_detect(command("detect", "write anomaly maps, scores and pictures", lists="maps"))
    _add_augment(command("augment", "write synthetic scans and their labels", lists="samplers"))
    _add_demo(command("demo", "the whole story on made scans, in a few minutes"))
    return parser


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    parser.add_argument("--check", action="store_true", help="read every voxel, not the headers alone")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a scan")
    _add_common(parser, _info, config="a preset or YAML file")


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    _add_out(parser, "folder of the model")
    parser.add_argument("--minutes", type=_positive, help="time budget of the fit")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    _add_machine(parser)
    _add_common(parser, _train, config="a YAML file or one of the presets below", required=True)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    _add_model(parser)
    _add_machine(parser)
    _add_common(parser, _calibrate, config="a YAML file with changes")


def _add_detect(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    _add_model(parser)
    _add_out(parser, "folder for maps, scores.csv and pictures")
    parser.add_argument(
        "--map", metavar="NAME", action="append", help="a map to write, instead of the preset's; repeatable"
    )
    _add_machine(parser)
    _add_common(parser, _detect, config="a YAML file with changes")


def _add_augment(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_out(parser, "folder for images, labels.csv, dataset.json, audit.csv")
    parser.add_argument("--count", metavar="N", type=_count, required=True, help="how many scans to make")
    parser.add_argument("--sampler", metavar="NAME", help="how, instead of the preset's way")
    _add_machine(parser, workers=False)
    _add_common(parser, _augment, config="a YAML file with changes")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    _add_out(parser, "folder for everything (default: medvae-demo)", default=Path("medvae-demo"))
    _add_machine(parser)
    _add_common(parser, _demo)
    parser.set_defaults(config="demo")


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", type=Path, nargs="+", help="folders, files, CSV or JSON lists")
    parser.add_argument("--include", metavar="GLOB", action="append", default=[], help="take only files that match")
    parser.add_argument("--exclude", metavar="GLOB", action="append", default=[], help="leave out files that match")
    parser.add_argument("--split", metavar="NAME", help="take only this split of a list")
    parser.add_argument("--hash-ids", action="store_true", help="name scans by hashes, not by their files")
    parser.add_argument("--volume", metavar="N", type=int, help="which volume of a 4D file, from 0")
    parser.add_argument("--assume-orientation", metavar="RAS", help="orientation of files that do not say theirs")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", type=Path, required=True, help="folder that `train` wrote")


def _add_out(parser: argparse.ArgumentParser, what: str, *, default: Path | None = None) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, default=default, required=default is None, help=what)
    parser.add_argument("--overwrite", action="store_true", help="begin anew where the folder holds another run")


def _add_machine(parser: argparse.ArgumentParser, *, workers: bool = True) -> None:
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    if workers:
        parser.add_argument(
            "--workers", metavar="N", type=_count_or_none, help="processes that read ahead; 0 reads in this one"
        )


def _add_common(
    parser: argparse.ArgumentParser,
    call: Callable[[argparse.Namespace], int],
    *,
    config: str | None = None,
    required: bool = False,
) -> None:
    if config is not None:
        parser.add_argument("--config", metavar="NAME", required=required, help=config)
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, e.g. train.lr=1e-4; repeatable",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="seed of everything random")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="no progress, errors only")
    loudness.add_argument("--verbose", action="store_true", help="say more; a traceback where something fails")
    parser.set_defaults(call=call)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")
    return text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _count_or_none(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
