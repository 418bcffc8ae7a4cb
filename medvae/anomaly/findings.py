"""The table of all candidates of a run, `findings.csv`, with false discovery rates over the whole worklist."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = (
    *("id", "number", "x_ras", "y_ras", "z_ras", "x_lps", "y_lps", "z_lps", "x_mni", "y_mni", "z_mni"),
    *("side", "volume_ml", "peak", "mean", "mass", "p", "q", "witness"),
)


def findings_table(scans: Iterable[tuple[str, Iterable[dict[str, Any]]]]) -> str:
    """One row per candidate, by scan and number.

    q is the p adjusted by Benjamini and Hochberg (J. R. Stat. Soc. B 1995) over all candidates, and over the scans that
    have none, each with p = 1: a region is a candidate because its p is small, so candidates alone are a selection.

    Args:
        scans: ids of all scans that were searched, and the candidates of each as `Candidate.to_json` gives them.
    """
    searched = [(name, list(candidates)) for name, candidates in scans]
    found = [(name, one) for name, candidates in searched for one in candidates]
    without = sum(not candidates for _, candidates in searched)
    q = stats.false_discovery_control([*(one["p"] for _, one in found), *[1.0] * without]) if searched else np.zeros(0)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for (name, one), adjusted in zip(found, q[: len(found)], strict=True):
        place = [*one["ras"], *one["lps"], *(one["mni"] or [""] * 3)]
        size = [one["volume_ml"], one["peak"], one["mean"], one["mass"], one["p"], f"{adjusted:.6g}"]
        table.writerow([name, one["number"], *place, one["side"] or "", *size, one["witness"]])
    return text.getvalue()
