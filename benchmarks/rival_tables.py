"""The tables of `rivals.py`: means over seeds, intervals over subjects."""

from __future__ import annotations

import json
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.cli import console
from medvae.evaluation.metrics import interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMS = ("residual", "median", "z", "residual_z")  # maps of each network
OURS = ("spatial", "residual_z")  # what the others are compared with, seed by seed
FACTS = {"steps": ".0f", "seconds": ".0f", "weights": ".2e", "error": ".3f"}


def report(out: Path) -> None:
    """Print the tables of all scores below a folder."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(out.rglob("scores*.jsonl"))]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    by_net: dict[str, dict[int, Any]] = {}
    for line in lines:
        by_net.setdefault(line["net"], {})[line["seed"]] = line
    console.out(
        "\nsteps, seconds, number of weights, squared error on the test subjects: mean (lowest to highest) over seeds"
    )
    rows = [
        [net, *(spread([one[key] for one in of.values()], form) for key, form in FACTS.items())]
        for net, of in by_net.items()
    ]
    console.table(["network", *FACTS, "device"], [[*row, _device(by_net[row[0]])] for row in rows])
    columns = list(lines[0]["ap"][FORMS[0]])
    console.out("\nvoxel AP: mean (lowest to highest) over seeds [95% interval of the mean over subjects]")
    cells = [(net, form) for net in by_net for form in FORMS]
    console.table(
        ["network", "map", *columns],
        [[net, form, *(ap_cell(by_net[net], form, column) for column in columns)] for net, form in cells],
    )
    patients = list(lines[0]["patients"])
    console.out("\nvoxel AP in the MS patients, on their own grid: mean (lowest to highest) over seeds")
    each = [
        [net, form, *(spread([one["patients"][p][form] for one in by_net[net].values()], ".4f") for p in patients)]
        for net, form in cells
    ]
    console.table(["network", "map", *patients], each)
    if OURS[0] in by_net:
        console.out(f"\nvoxel AP of {' '.join(OURS)} less that of each map, seed by seed, paired over subjects")
        others = [cell for cell in cells if cell != OURS]
        gains = [[net, form, *(gain_cell(by_net, net, form, column) for column in columns)] for net, form in others]
        console.table(["network", "map", *columns], gains)


def spread(values: Sequence[float], form: str) -> str:
    """Mean, lowest and highest."""
    return f"{fmean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ap_cell(of: Mapping[int, Any], form: str, column: str) -> str:
    """AP over seeds, with the interval over subjects of their mean."""
    every = [one["ap"][form][column] for one in of.values()]
    values = [one["ap"] for one in every]
    mean = interval(fmean(values), np.mean([one["draws"] for one in every], axis=0))
    return f"{mean.value:.3f} ({min(values):.3f} to {max(values):.3f}) [{mean.low:.3f}, {mean.high:.3f}]"


def gain_cell(by_net: Mapping[str, Mapping[int, Any]], net: str, form: str, column: str) -> str:
    """AP of ours minus that of another, over the seeds that both have."""
    both = sorted(set(by_net[OURS[0]]) & set(by_net[net]))
    pairs = [(by_net[OURS[0]][s]["ap"][OURS[1]][column], by_net[net][s]["ap"][form][column]) for s in both]
    value = fmean(ours["ap"] - theirs["ap"] for ours, theirs in pairs)
    drawn = np.mean([np.subtract(ours["draws"], theirs["draws"]) for ours, theirs in pairs], axis=0)
    return "{value:+.3f} [{low:.3f}, {high:.3f}]".format(**asdict(interval(value, drawn)))


def _device(of: Mapping[int, Any]) -> str:
    return ", ".join(sorted({one["device"] for one in of.values()}))
