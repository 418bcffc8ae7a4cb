"""The evaluation of a run of `detect` as Markdown and as pictures."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medvae.cohort.names import plural
from medvae.evaluation.masks import shortened, unmatched_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medvae.evaluation.lesions import Curve

_POINTS = 1000  # of a curve
_FEW = 10  # subjects: a percentile interval of fewer is too narrow
_TITLES = {
    "dice": "Dice",
    "voxel_sensitivity": "voxel sensitivity",
    "lesion_sensitivity": "lesion sensitivity",
    "false_regions": "false regions per scan",
    "healthy_fpr": "measured FPR",
}


def markdown(tree: Mapping[str, Any]) -> str:
    """The tables of `evaluation.json` as Markdown: value and interval."""
    lines = ["# Evaluation", "", f"{tree['reference']}.", ""]
    lines += _maps(tree) if "maps" in tree else []
    lines += _verdicts(tree["verdicts"]) if "verdicts" in tree else []
    return "\n".join(lines).rstrip() + "\n"


def _maps(tree: Mapping[str, Any]) -> list[str]:
    counts = f"{plural(tree['scans'], 'scan')} of {plural(tree['subjects'], 'subject')}"
    lines = [f"{counts}, {tree['with_lesion']} with a lesion; prevalence {tree['prevalence']:.4g}.", ""]
    lines += [*_matched(tree), _intervals(tree), ""]
    lines += ["| map | pooled AP | AP per scan | AUROC of scans | AP of scans | oracle Dice |", "|---" * 6 + "|"]
    for name, one in tree["maps"].items():
        cells = [
            *(cell(one[key]) for key in ("ap", "ap_per_scan", "auroc", "ap_of_scans")),
            f"{one['oracle_dice']:.3f}",
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "The threshold of the oracle Dice was chosen with the truth. Those below come from healthy scans.",
        "",
    ]
    lines += [f"| map | healthy FPR | {' | '.join(_TITLES.values())} |", "|---|---|" + "---|" * len(_TITLES)]
    for name, one in tree["maps"].items():
        for rate, row in one["at_healthy_fpr"].items():
            cells = [cell(row[key]) for key in _TITLES]
            lines.append(f"| `{name}` | {100 * float(rate):g}% | {' | '.join(cells)} |")
    return [*lines, ""]


def _matched(tree: Mapping[str, Any]) -> list[str]:
    """Which scans have no mask, and which masks no scan."""
    lines = []
    for key, what in (("taken_as_healthy", "taken as healthy"), ("left_out", "left out")):
        if tree[key]:
            lines.append(f"{plural(len(tree[key]), 'scan')} without a mask, {what}: {shortened(tree[key])}.")
    if tree["masks_without_scan"]:
        lines.append(f"{unmatched_in_words(tree['masks_without_scan'])}.")
    return lines


def _intervals(tree: Mapping[str, Any]) -> str:
    """What the numbers in brackets are, and whether they can be relied on."""
    ill = tree["subjects_with_lesion"]
    if tree["subjects"] == 1:
        return "No intervals: all scans are of one subject."
    few = ""
    if ill == 1:
        few = "; one subject has a lesion: what is measured in lesions has no interval, and the others are too narrow"
    elif ill < _FEW:
        few = f"; {ill} subjects have a lesion, and intervals of fewer than {_FEW} are too narrow"
    return f"In brackets: 95% intervals over subjects{few}."


def _verdicts(said: Mapping[str, Any]) -> list[str]:
    """What a reader said about the candidates."""
    others = f"; {said['others']} more scans in the file are not of this run" if said["others"] else ""
    judged = f"{said['judged']} of {said['candidates']} candidates judged, in {said['scans']} scans{others}."
    counts = " | ".join(str(count) for count in said["counts"].values())
    names = " | ".join(said["counts"])
    lines = [judged, "", f"| {names} | precision |", "|---|" + "---|" * len(said["counts"])]
    return [*lines, f"| {counts} | {cell(said['precision'])} |", ""]


def froc(tree: Mapping[str, Any]) -> bytes:
    """A PNG: lesion sensitivity against false regions per scan, one point per healthy FPR."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, one in tree["maps"].items():
        rows = one["at_healthy_fpr"].values()
        points = [(row["false_regions"][0], row["lesion_sensitivity"][0]) for row in rows]
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    axes.set(xlabel="false regions per scan", ylabel="lesion sensitivity", ylim=(0, 1.02), xscale="symlog")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    return png(figure)


def precision_recall(curve: Curve, name: str, tree: Mapping[str, Any], *, prevalence: float) -> bytes:
    """A PNG: precision against recall of all voxels, the points at each healthy FPR, and the prevalence as a line.

    Args:
        curve: of the map.
        name: of the map.
        tree: what `evaluation.json` has of the map.
        prevalence: share of lesion voxels, the precision of a map without information.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*curve.thinned(_POINTS), drawstyle="steps-post", label=f"{name}, AP {cell(tree['ap'])}")
    axes.axhline(prevalence, color="0.5", linestyle=":", label=f"prevalence {prevalence:.3g} (no information)")
    for number, (rate, row) in enumerate(tree["at_healthy_fpr"].items()):
        recall, precision = curve.at(row["threshold"])
        axes.plot(recall, precision, "ko", markersize=3, label="" if number else "thresholds of healthy scans")
        axes.annotate(f"{100 * float(rate):g}%", (recall, precision), (3, 3), textcoords="offset points", size=8)
    axes.set(xlabel="recall (share of lesion voxels found)", ylabel="precision (share of marked voxels in a lesion)")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="upper right", fontsize=8)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes on every run."""
    FigureCanvasAgg(figure)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    return file.getvalue()


def cell(value: list[float | None] | None) -> str:
    """Value and interval for a table; empty where there is none."""
    if value is None or value[0] is None:
        return ""
    ends = "" if None in value else f" [{value[1]:.3f}, {value[2]:.3f}]"
    return f"{value[0]:.3f}{ends}"
