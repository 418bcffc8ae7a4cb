"""One function per command: settings from the arguments, one call of a pipeline, what it found on the screen.

Settings come first: a wrong one is refused before a pipeline, and with it torch, is imported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from medvae import plugins
from medvae.cli import console

if TYPE_CHECKING:
    import argparse

    from medvae.run.outcomes import Finished
    from medvae.scan import Selection
    from medvae.settings import Settings

_LESIONS = ("lesions.steps=600", "augment.sampler=lesion")  # --lesions, for a configuration that learns none
_SHORT_FOR = {
    "volume": "read.volume",
    "assume_orientation": "read.assume_orientation",
    "on_doubtful": "read.on_doubtful",
    "minutes": "train.minutes",
    "folds": "train.folds",
    "healthy_fpr": "detect.healthy_fpr",
    "dicom": "detect.dicom",
    "fusion": "detect.fusion",
    "seed": "seed",
}


def info(args: argparse.Namespace) -> int:
    """List scans."""
    settings = _settings(args)
    from medvae.pipelines import info as pipeline

    with console.progress() as on_progress:
        report = pipeline.run(_selection(args), settings=settings, check=args.check, on_progress=on_progress)
    if args.json:
        for record in report.records:
            console.out(json.dumps(record, ensure_ascii=False, allow_nan=False))
    else:
        console.table(report.columns, report.rows)
        console.out()
        console.say(report.lines)
    return int(report.exit_code)


def train(args: argparse.Namespace) -> int:
    """Fit a model."""
    settings = _settings(args)
    from medvae.pipelines import train as pipeline

    with console.progress() as on_progress:
        finished = pipeline.run(
            _selection(args),
            settings=settings,
            out=args.out,
            device=args.device,
            workers=_workers(args),
            resume=args.resume,
            overwrite=args.overwrite,
            lesion_masks=args.lesion_masks,
            on_progress=on_progress,
        )
    return _end(finished)


def calibrate(args: argparse.Namespace) -> int:
    """Measure healthy scans."""
    overrides = _overrides(args)
    from medvae.pipelines import calibrate as pipeline

    with console.progress() as on_progress:
        finished = pipeline.run(
            _selection(args),
            model=args.model,
            verdicts=args.verdicts,
            thresholds_only=args.thresholds_only,
            config=args.config,
            overrides=overrides,
            device=args.device,
            workers=_workers(args),
            on_progress=on_progress,
        )
    return _end(finished)


def detect(args: argparse.Namespace) -> int:
    """Write maps."""
    overrides = _overrides(args)
    from medvae.pipelines import detect as pipeline

    with console.progress() as on_progress:
        finished = pipeline.run(
            _selection(args),
            model=args.model,
            out=args.out,
            config=args.config,
            overrides=overrides,
            template=args.template_dicom,
            device=args.device,
            workers=_workers(args),
            overwrite=args.overwrite,
            on_progress=on_progress,
        )
    return _end(finished)


def review(args: argparse.Namespace) -> int:
    """Write the pages of a run."""
    from medvae.pipelines import review as pipeline

    with console.progress() as on_progress:
        reviewed = pipeline.run(args.run, truth=args.truth, verdicts=args.verdicts, on_progress=on_progress)
    console.say(reviewed.lines)
    return 1 if reviewed.damaged else 0


def evaluate(args: argparse.Namespace) -> int:
    """Compare maps with known lesions."""
    from medvae.pipelines import evaluate as pipeline

    found = pipeline.evaluate(args.run, args.truth, healthy=args.healthy, verdicts=args.verdicts)
    console.say(found.lines)
    return 0


def evaluate_augment(args: argparse.Namespace) -> int:
    """Compare synthetic scans with real ones."""
    from medvae.evaluation.plan import Plan
    from medvae.pipelines import evaluate_augment as pipeline
    from medvae.scan import Selection

    given = {"steps": args.steps, "mirror": args.mirror, "seed": args.seed}
    with console.progress() as on_progress:
        found = pipeline.evaluate_augment(
            args.run,
            Selection(tuple(args.real), split=args.split),
            holdout=None if args.holdout is None else Selection(tuple(args.holdout), split=args.holdout_split),
            model=args.model,
            utility=args.utility,
            arms=args.arm,
            draws=args.draws,
            plan=Plan(**{name: value for name, value in given.items() if value is not None}),
            device=args.device,
            on_progress=on_progress,
        )
    console.say(found.lines)
    return 0


def augment(args: argparse.Namespace) -> int:
    """Write synthetic scans."""
    overrides = _overrides(args)
    from medvae.pipelines import augment as pipeline

    with console.progress() as on_progress:
        finished = pipeline.run(
            args.model,
            out=args.out,
            count=args.count,
            merge_with=args.merge_with,
            config=args.config,
            overrides=overrides,
            device=args.device,
            overwrite=args.overwrite,
            on_progress=on_progress,
        )
    return _end(finished)


def demo(args: argparse.Namespace) -> int:
    """Run everything on simulated scans."""
    settings = _settings(args)
    from medvae.pipelines import demo as pipeline

    with console.progress() as on_progress:
        finished = pipeline.run(
            args.out,
            settings=settings,
            device=args.device,
            workers=_workers(args),
            overwrite=args.overwrite,
            on_progress=on_progress,
        )
    return _end(finished)


def _end(finished: Finished) -> int:
    console.say(finished.summary.lines())
    console.say(finished.lines)
    return finished.exit_code


def _selection(args: argparse.Namespace) -> Selection:
    from medvae.scan import Selection

    return Selection(tuple(args.input), tuple(args.include), tuple(args.exclude), args.split, args.hash_ids)


def _settings(args: argparse.Namespace) -> Settings:
    from medvae.settings import load

    overrides, named = _overrides(args), vars(args)
    if named.get("lesions") and not load(args.config).lesions.steps:
        overrides = (*_LESIONS, *overrides)
    return load(args.config, overrides)


def _overrides(args: argparse.Namespace) -> tuple[str, ...]:
    """`--set` texts, and after them the options that are short for a setting; names of plug-ins are checked."""
    named: dict[str, Any] = vars(args)
    texts = list(named.get("set", ()))
    for option, key in _SHORT_FOR.items():
        if named.get(option) is not None:
            texts.append(f"{key}={named[option]}")
    if named.get("map"):
        texts.append(f"detect.maps=[{', '.join(plugins.check('maps', name) for name in args.map)}]")
    if named.get("sampler"):
        texts.append(f"augment.sampler={plugins.check('samplers', args.sampler)}")
    if named.get("layout"):
        texts.append(f"augment.layout={plugins.check('layouts', args.layout)}")
    return tuple(texts)


def _workers(args: argparse.Namespace) -> int:
    from medvae.run.checks import default_workers

    return default_workers() if args.workers is None else int(args.workers)
