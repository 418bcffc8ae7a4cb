"""The arguments of every command. Only the standard library is imported, so that `--help` is instant."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from medvae import __version__, plugins
from medvae.cli import commands
from medvae.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from medvae.plugins import Kind

    Listed = Kind | Literal["presets"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours; its help can end with the plug-ins or presets, listed only when asked for."""

    def __init__(self, *, prog: str | None = None, description: str | None = None, lists: Listed | None = None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=layout, allow_abbrev=False)
        self._lists: Listed | None = lists
        self.commands: Mapping[str, argparse.ArgumentParser] = {}

    def format_help(self) -> str:
        """The help, with one line per plug-in at the end."""
        if self._lists is not None:
            names = plugins.presets() if self._lists == "presets" else plugins.names(self._lists)
            width = max(map(len, names), default=0) + 2
            lines = (f"  {name:<{width}}{plugins.summary(self._lists, name)}" for name in names)
            self.epilog = "\n".join([f"{self._lists}:", *lines])
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Report an unknown command or option first: argparse would name what is missing because of it."""
        for text in takewhile(lambda text: text != "--", args):
            if self.commands and not text.startswith("-"):
                if text not in self.commands:
                    hint = plugins.suggest(text, tuple(self.commands))
                    raise RunError(f"there is no command {text!r}", code="usage", hint=hint)
                break  # what follows belongs to the command's own parser
            name = text.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                near = get_close_matches(name, self._option_string_actions, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise RunError(f"there is no option {name}", code="usage", hint=f"{hint}see {self.prog} --help")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise RunError(message, code="usage", hint=f"see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    """The parser; each command sets `call` to its function in `commands`."""
    parser = _Parser(
        prog="medvae",
        description="3D variational autoencoders for medical scans: anomaly maps and synthetic scans from a folder of\n"
        "scans. Research use only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"medvae {__version__}")
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    parser.commands = choices.choices

    def command(name: str, about: str, *, lists: Listed | None = None) -> _Parser:
        return choices.add_parser(name, help=about, description=about, lists=lists)

    _add_info(command("info", "list the scans in a folder (headers only) and which would be rejected, and why"))
    _add_train(command("train", "fit a VAE to healthy scans", lists="presets"))
    _add_calibrate(
        command("calibrate", "compute reference statistics from healthy scans that were not used in training")
    )
    _add_detect(command("detect", "write anomaly maps, scores and pictures", lists="maps"))
    _add_review(command("review", "write the worklist and the pages of a run, to be opened in a browser"))
    _add_evaluate(command("evaluate", "compare what detect or augment wrote with known lesions, or with real scans"))
    _add_augment(command("augment", "write synthetic scans and their labels", lists="samplers"))
    _add_demo(command("demo", "train, calibrate, detect and augment on simulated scans, in a few minutes"))
    return parser


def _add_info(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    parser.add_argument("--check", action="store_true", help="read every voxel, not only the headers")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per scan")
    _add_common(parser, commands.info, config="a preset or YAML file")


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_prepared_input(parser)
    _add_out(parser, "folder of the model")
    parser.add_argument(
        "--minutes", type=_positive, help="time budget of the whole training, detector included; also with --resume"
    )
    parser.add_argument(
        "--folds",
        metavar="K",
        type=_count,
        help="calibrate on the training scans: train K more networks, each without one part of them (2 to 10)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run, or one that ended and is given more steps or minutes",
    )
    parser.add_argument(
        "--lesions", action="store_true", help="also learn the lesions that the label maps mark, for the sampler lesion"
    )
    parser.add_argument(
        "--lesion-masks",
        metavar="MASKS",
        type=_path,
        help="with --lesions: masks (NIfTI) of other patients, whose shapes are learned",
    )
    _add_machine(parser)
    _add_seed(parser)
    _add_common(parser, commands.train, config="a YAML file or one of the presets below", required=True)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_prepared_input(parser)
    _add_model(parser)
    parser.add_argument(
        "--verdicts",
        metavar="FILE",
        type=_path,
        help="verdicts of a reader on these scans, exported from the pages of detect: leave out scans with a lesion,"
        " or with a candidate that is unsure or without a verdict",
    )
    parser.add_argument(
        "--thresholds-only",
        action="store_true",
        help="keep the model's mean and spread of each voxel; take thresholds, scores and p from these scans:"
        " a few healthy ones from another site",
    )
    _add_machine(parser)
    _add_common(parser, commands.calibrate, config="a YAML file with changes")


def _add_detect(parser: argparse.ArgumentParser) -> None:
    _add_prepared_input(parser)
    _add_model(parser)
    _add_out(parser, "folder for maps, scores.csv and pictures")
    parser.add_argument(
        "--map", metavar="NAME", action="append", help="map to write (overrides the preset); repeatable"
    )
    parser.add_argument(
        "--healthy-fpr", metavar="N", type=_positive, help="candidates per healthy scan (default: 0.1, one in 10 scans)"
    )
    parser.add_argument(
        "--dicom", action="store_const", const="true", help="also write DICOM objects, for scans read from DICOM"
    )
    parser.add_argument(
        "--template-dicom",
        metavar="DIR",
        type=_path,
        help="the DICOM series that the NIfTI scan was made from; the DICOM objects then belong to that series",
    )
    parser.add_argument(
        "--fusion",
        action="store_const",
        const="true",
        help="also write the map as a DICOM series to be fused with the scan, and the picture as DICOM, for scans read"
        " from DICOM",
    )
    _add_machine(parser)
    _add_common(parser, commands.detect, config="a YAML file with changes")


def _add_review(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="OUT", type=_path, help="folder of `medvae detect`, `augment` or `train`")
    parser.add_argument(
        "--truth",
        metavar="MASKS",
        type=_path,
        help="detect: folder of masks, named by the ids of the scans, to be outlined",
    )
    parser.add_argument(
        "--verdicts",
        metavar="FILE",
        type=_path,
        help="augment: verdicts that the pages exported; list what they accept",
    )
    _add_loudness(parser, commands.review)


def _add_evaluate(parser: _Parser) -> None:
    """One sub-command per command whose output can be evaluated."""
    choices = parser.add_subparsers(metavar="WHAT", required=True)
    parser.commands = choices.choices
    about = "compare the maps of detect with masks of known lesions or a reader's verdicts"
    _add_evaluate_detect(choices.add_parser("detect", help=about, description=about))
    about = "compare synthetic scans with real ones: fidelity, diversity, copying, and what a network gains"
    _add_evaluate_augment(choices.add_parser("augment", help=about, description=about))


def _add_evaluate_detect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="OUT", type=_path, help="output folder of `medvae detect`")
    parser.add_argument("--truth", metavar="MASKS", type=_path, help="folder of masks, named by the ids of the scans")
    parser.add_argument("--verdicts", metavar="FILE", type=_path, help="verdicts of a reader that the pages exported")
    parser.add_argument(
        "--healthy", action="store_true", help="count scans without a mask as healthy, instead of leaving them out"
    )
    _add_loudness(parser, commands.evaluate)


def _add_evaluate_augment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="OUT", type=_path, help="output folder of `medvae augment`")
    parser.add_argument(
        "--real", metavar="INPUT", type=_path, nargs="+", required=True, help="the scans that the model was trained on"
    )
    parser.add_argument("--split", metavar="NAME", help="only this split of the list of --real")
    parser.add_argument(
        "--holdout", metavar="INPUT", type=_path, nargs="+", help="real scans of other subjects, to compare with"
    )
    parser.add_argument("--holdout-split", metavar="NAME", help="only this split of the list of --holdout")
    parser.add_argument(
        "--model", metavar="MODEL", type=_path, help="model folder: checks the held-out scans, adds its reconstructions"
    )
    parser.add_argument(
        "--utility",
        choices=("segmentation", "classification"),
        help="train small networks on real scans with and without synthetic ones; takes minutes per training",
    )
    parser.add_argument(
        "--arm", metavar="NAME", action="append", help="what to train on (default: all that can be); repeatable"
    )
    parser.add_argument("--draws", metavar="N", type=_count, default=10, help="trainings per arm (default: 10)")
    parser.add_argument("--steps", metavar="N", type=_count, help="optimiser steps per training (default: 500)")
    parser.add_argument(
        "--mirror", action="store_true", help="also flip left and right; only where labels do not tell left from right"
    )
    _add_seed(parser)
    _add_machine(parser, workers=False)
    _add_loudness(parser, commands.evaluate_augment)


def _add_augment(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_out(parser, "folder for images, labels.csv, dataset.json, audit.csv")
    parser.add_argument("--count", metavar="N", type=_count, required=True, help="number of synthetic scans")
    parser.add_argument("--sampler", metavar="NAME", help="sampler (overrides the preset)")
    parser.add_argument("--layout", metavar="NAME", help="medvae, nnunet, monai, bids or dicom (default: medvae)")
    parser.add_argument(
        "--merge-with",
        metavar="DIR",
        type=_path,
        help="real set of that layout to list beside the samples; not changed",
    )
    _add_machine(parser, workers=False)
    _add_seed(parser)
    _add_common(parser, commands.augment, config="a YAML file with changes")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    _add_out(parser, "folder for everything (default: medvae-demo)", default=Path("medvae-demo"))
    _add_machine(parser)
    _add_seed(parser)
    _add_common(parser, commands.demo)
    parser.set_defaults(config="demo")


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", type=_path, nargs="+", help="folders, files, CSV, TSV or JSON lists")
    parser.add_argument("--include", metavar="GLOB", action="append", default=[], help="only files that match")
    parser.add_argument("--exclude", metavar="GLOB", action="append", default=[], help="skip files that match")
    parser.add_argument("--split", metavar="NAME", help="only this split of a list")
    parser.add_argument("--hash-ids", action="store_true", help="use hashes as scan ids instead of file names")
    parser.add_argument("--volume", metavar="N", type=int, help="volume of a 4D file to read, from 0")
    parser.add_argument("--assume-orientation", metavar="RAS", help="orientation of files whose header has none")


def _add_prepared_input(parser: argparse.ArgumentParser) -> None:
    _add_input(parser)
    parser.add_argument(
        "--on-doubtful",
        choices=("accept", "reject"),
        help="scans of doubtful alignment or tissue contrast (default: accept, with a warning)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="MODEL", type=_path, required=True, help="model folder written by `medvae train`"
    )


def _add_out(parser: argparse.ArgumentParser, what: str, *, default: Path | None = None) -> None:
    parser.add_argument("--out", metavar="DIR", type=_path, default=default, required=default is None, help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run of this command in DIR")


def _add_machine(parser: argparse.ArgumentParser, *, workers: bool = True) -> None:
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    if workers:
        parser.add_argument(
            "--workers", metavar="N", type=_count_or_none, help="processes that read ahead; 0 reads in the main process"
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
        help="change a setting, e.g. train.lr=1e-4; repeatable",
    )
    _add_loudness(parser, call)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", metavar="N", type=int, help="random seed")


def _add_loudness(parser: argparse.ArgumentParser, call: Callable[[argparse.Namespace], int]) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="errors only, no progress")
    loudness.add_argument("--verbose", action="store_true", help="more messages, and a traceback for errors")
    parser.set_defaults(call=call)


def _path(text: str) -> Path:
    if not text.strip():  # Path("") would be the current folder
        raise argparse.ArgumentTypeError("the path is empty; check the variables of the shell")
    return Path(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:N")
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _count_or_none(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
