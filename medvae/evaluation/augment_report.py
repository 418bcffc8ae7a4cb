"""The evaluation of a run of `augment` as Markdown and as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from medvae.evaluation.copying import nearest_rows
from medvae.evaluation.features import ABOUT, Features
from medvae.evaluation.plan import HEADLINE
from medvae.evaluation.report import cell, png
from medvae.evaluation.spectrum import HIGHEST
from medvae.review.samples import Pair, SampleMontage, display_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from medvae.evaluation.comparison import Sets
    from medvae.evaluation.image_set import ImageSet

_SHOWN = 8  # pairs in the picture
_ENOUGH = 10  # trainings: fewer have few different bootstrap draws
_REGISTERED = "distance after registration, nearest over next subject (1: new)"
_SHARES = ("precision", "recall", "density", "coverage")


def markdown(tree: Mapping[str, Any]) -> str:
    """The tables of `augment.json` as Markdown: value and interval."""
    held_out = tree["held_out"]
    real = f"{tree['real']} real training scans, {held_out or 'no'} held-out real scans"
    lines = ["# Synthetic scans beside real ones", "", f"{tree['synthetic']} synthetic scans, {real}.", ""]
    lines += [f"**Note:** {note}." for note in tree["notes"]] + [""] * bool(tree["notes"])
    lines += [*_fidelity(tree), *_copying(tree["copying"], tree["screen"])]
    if tree["utility"] is not None:
        lines += _utility(tree["utility"])
    return "\n".join(lines).rstrip() + "\n"


def _fidelity(tree: Mapping[str, Any]) -> list[str]:
    found = tree["fidelity"]
    lines = [
        "## Fidelity and diversity",
        "",
        f"Each figure is beside that of real scans to each other: {found['scans']} scans a side, {found['repeats']} "
        f"draws, k = {found['neighbours']}, {found['dimensions']} principal components for the Fréchet distance. "
        f"Features: {ABOUT}. Expected coverage of sets of one distribution: {found['expected_coverage']:.3f}.",
        "",
        "| | samples | real to real | difference |",
        "|---|---|---|---|",
    ]
    lines += [_row(name, one) for name, one in found["metrics"].items()]
    bands = len(found["spectrum"])
    for number, one in enumerate(found["spectrum"]):
        low, high = (HIGHEST * (number + end) / bands for end in (0, 1))
        lines.append(_row(f"power, {low:.3f} to {high:.3f} cycles per voxel, ratio", one))
    similar = tree["diversity"]
    lines.append(f"| MS-SSIM within class | {cell(similar['samples'])} | {cell(similar['real'])} | |")
    p = found["mmd_p"]
    return [*lines, "", f"Permutation p of the MMD: samples {p['samples']:.3g}, real to real {p['real']:.3g}.", ""]


def _row(name: str, one: Mapping[str, Any]) -> str:
    return f"| {name} | {cell(one['samples'])} | {cell(one['real'])} | {cell(one['difference'])} |"


def _copying(found: Mapping[str, Any], screen: Mapping[str, Any]) -> list[str]:
    auroc = found["membership_auroc"]
    authentic = {name: [value, None, None] for name, value in found["authenticity"].items()}
    rows = [
        ("distance to the nearest training scan", found["distance"]["samples"], found["distance"]["real"]),
        (_REGISTERED, found["registered_ratio"]["samples"], found["registered_ratio"]["real"]),
        ("authenticity", authentic["samples"], authentic["real"]),
        ("nearer to training than to held-out scans (0.5 by chance)", found["closer_to_training"], None),
        ("membership AUROC (0.5 by chance)", auroc["held_out"], auroc["control"]),
    ]
    lines = ["## Copying", "", "| | samples | real scans of others |", "|---|---|---|"]
    lines += [f"| {name} | {cell(ours)} | {cell(theirs)} |" for name, ours, theirs in rows]
    flagged = f"near-copies by the screen of `augment`: {screen['copies']} of {screen['samples']} samples"
    beside = f"{screen['copies_among_real']} real scans by the same rule"
    derived = f"{screen['derived_from_one_subject']} samples are derived from a single training subject"
    last = "The AUROC beside is that of two halves of the training subjects. A screen, not a proof of anonymity."
    return [*lines, "", f"{flagged}, {beside}; {derived}. {last}", ""]


def _utility(found: Mapping[str, Any]) -> list[str]:
    names = found["measures"]
    test = f"{found['test_scans']} held-out scans of {found['test_subjects']} subjects"
    lines = [
        "## Utility",
        "",
        f"{found['task'].capitalize()}, {found['draws']} trainings per arm of {found['steps']} steps with "
        f"{found['batch']} scans; in arms with both kinds {100 * found['share']:g}% of the scans are extra ones. Left "
        f"and right are {'flipped' if found['mirror'] else 'not flipped'}. {test}; intervals over trainings and "
        f"subjects{', too narrow for so few trainings' if found['draws'] < _ENOUGH else ''}.",
        "",
        *_headline(found),
        f"| trained on | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    lines += [f"| {one['about']} | {_cells(one, names)} |" for one in found["arms"].values()]
    lines += ["", f"| difference | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [f"| {name} − {one['against']} | {_cells(one, names)} |" for name, one in found["differences"].items()]
    return [*lines, ""]


def _headline(found: Mapping[str, Any]) -> list[str]:
    """What synthetic scans add to classical augmentation."""
    if HEADLINE not in found["differences"]:
        return []
    one, name = found["differences"][HEADLINE], found["measures"][0]
    return [f"**{HEADLINE} − {one['against']}: {name} {cell(one['means'][name])}**", ""]


def _cells(one: Mapping[str, Any], names: Sequence[str]) -> str:
    return " | ".join(cell(one["means"][name]) for name in names)


def fidelity_picture(tree: Mapping[str, Any]) -> bytes:
    """A PNG: precision, recall, density and coverage, and the spectrum, of samples and real to real, with intervals."""
    found = tree["fidelity"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for shift, (key, label) in zip((-0.1, 0.1), (("samples", "samples"), ("real", "real to real")), strict=True):
        _points(left, np.arange(len(_SHARES)) + shift, [found["metrics"][name][key] for name in _SHARES], label)
        middle = HIGHEST * (np.arange(len(found["spectrum"])) + 0.5) / len(found["spectrum"])
        _points(right, middle, [one[key] for one in found["spectrum"]], label, line="-")
    left.set_xticks(range(len(_SHARES)), _SHARES)
    left.set(ylim=(0, None))
    right.axhline(1, color="0.5", linestyle=":")
    right.set(xlabel="cycles per voxel", ylabel="power, ratio to held-out scans")
    left.legend(loc="upper right")
    return png(figure)


def utility_picture(found: Mapping[str, Any]) -> bytes:
    """A PNG: the first measure of each arm: each training as a dot, the mean with its interval."""
    name = found["measures"][0]
    arms = found["arms"]
    figure = Figure(figsize=(7, 0.5 * len(arms) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(arms.values()):
        value, low, high = one["means"][name]
        axes.plot(one["trainings"][name], np.full(found["draws"], row), "o", color="0.7", markersize=3)
        axes.errorbar(value, row, xerr=_lengths(value, low, high), fmt="ks", capsize=3)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.invert_yaxis()
    axes.set(xlabel=f"{name.replace('_', ' ')} on held-out scans")
    return png(figure)


def nearest_picture(sets: Sets, *, spacing: tuple[float, float, float]) -> SampleMontage:
    """`nearest.png`: the samples that are nearest to a training scan by their features, beside it."""
    fitted = Features.fit(sets.training)
    rows, nearest, far = nearest_rows(fitted.of(sets.synthetic), fitted.of(sets.training), count=_SHOWN)
    pairs = [
        Pair(_shown(sets.synthetic, row), _shown(sets.training, at), f"{sets.synthetic.ids[row]}\n{distance:.3g}", name)
        for row, at, distance in zip(rows, nearest, far, strict=True)
        for name in [sets.training.ids[at]]
    ]
    limits = display_limits(sets.training.images, sets.training.masks)
    title = "synthetic scans nearest to a training scan (left), that scan (right); distance of features"
    return SampleMontage("nearest.png", tuple(pairs), spacing=spacing, limits=limits, title=title)


def _points(
    axes: Axes, x: NDArray[np.floating], values: Sequence[Sequence[float]], label: str, *, line: str = ""
) -> None:
    """Values with their intervals."""
    y, low, high = np.array(values, np.float64).T
    axes.errorbar(x, y, yerr=np.maximum([y - low, high - y], 0), fmt=f"o{line}", capsize=3, label=label)


def _lengths(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    return None if low is None or high is None else [[max(value - low, 0)], [max(high - value, 0)]]


def _shown(scans: ImageSet, row: int) -> NDArray[np.floating]:
    shown: NDArray[np.floating] = np.where(scans.masks[row], scans.images[row].astype(np.float32), np.nan)[0]
    return shown
