"""Compare what `detect` wrote with known lesions: thresholds from healthy scans, intervals over subjects."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvae.cohort.names import scan_id
from medvae.errors import InputError
from medvae.evaluation.lesions import Volumes, mean_measures, measure, oracle_dice, read_volumes
from medvae.evaluation.metrics import compare, scan_auroc
from medvae.evaluation.report import froc, markdown
from medvae.evaluation.truth import read_scores
from medvae.io.discover import stem_of
from medvae.io.files import atomic, write_json, write_text
from medvae.run.folder import disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medvae.evaluation.metrics import Interval


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well the maps of a run find known lesions.

    Attributes:
        out: folder of `evaluation.json`, `evaluation.md` and `froc.png`.
        tree: what `evaluation.json` has.
        lines: the text for a person.
    """

    out: Path
    tree: Mapping[str, Any] = field(repr=False)
    lines: tuple[str, ...]


def evaluate(out: Path | str, truth: Path | str, *, healthy: bool = False) -> Evaluation:
    """Compare the maps of `medvae detect` with masks of lesions, as `medvae evaluate detect` does.

    Args:
        out: output folder of `detect`; the evaluation is written into its folder `evaluation`.
        truth: folder of masks on the scans' grids. The mask of a scan has its file name, or the same path below the
            folder; whatever is not 0 is lesion.
        healthy: scans without a mask are healthy; else they are left out.

    Raises:
        InputError: no run of `detect` in the folder, or no lesion among the masks.
        ScanError: a mask cannot be read or does not lie on its scan.
        OutputError: the folder cannot be written.
    """
    out, truth = Path(out), Path(truth)
    record = _record(out)
    thresholds: dict[str, Any] = record["thresholds"]
    cases = _cases(out, truth, healthy=healthy)
    ids = list(cases)
    scans = [
        read_volumes(out / "scans" / name, mask, subject=_subject(name), maps=list(thresholds))
        for name, mask in cases.items()
    ]
    if not any(scan.lesion.any() for scan in scans):
        raise InputError("none of the scans has a lesion", path=truth, hint="pass the folder of their masks")
    tree = {**_tree(out, ids, scans, thresholds), "reference": record["reference"]}
    place = out / "evaluation"
    with disk_errors(place):
        write_json(place / "evaluation.json", tree)
        write_text(place / "evaluation.md", markdown(tree))
        with atomic(place / "froc.png") as partial:
            partial.write_bytes(froc(tree))
    return Evaluation(place, tree, (*markdown(tree).splitlines(), f"{place}: evaluation.json, evaluation.md, froc.png"))


def _record(out: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((out / "run.json").read_text("utf-8"))
        record["thresholds"], record["reference"]
    except (OSError, ValueError, LookupError):
        hint = "pass the output folder of detect; repeat detect if it is of an older version"
        raise InputError("no finished run of detect", path=out, hint=hint) from None
    return record


def _cases(out: Path, truth: Path, *, healthy: bool) -> dict[str, Path | None]:
    """By scan id its mask, None where it is healthy; scans of which nothing is known are left out."""
    masks: dict[str, Path] = {}
    for path in sorted(path for path in truth.rglob("*") if path.name.endswith((".nii", ".nii.gz"))):
        for name in {scan_id(path, truth), stem_of(path.name)}:
            masks.setdefault(name, path)
    ids = sorted(path.parent.name for path in out.glob("scans/*/coverage.nii.gz"))
    return {name: masks.get(name) for name in ids if healthy or name in masks}


def _subject(name: str) -> str:
    """The subject of a scan: sub-XX at the beginning of its id, as in BIDS; else the scan itself."""
    found = re.match(r"sub-[A-Za-z0-9]+", name)
    return found.group() if found else name


def _tree(out: Path, ids: Sequence[str], scans: Sequence[Volumes], thresholds: Mapping[str, Any]) -> dict[str, Any]:
    voxels = [scan.voxels() for scan in scans]
    compared = compare(voxels, next(iter(thresholds)))
    subjects = [scan.subject for scan in scans]
    ill = [bool(scan.lesion.any()) for scan in scans]
    maps = {}
    for name, known in thresholds.items():
        scores = read_scores(out, name)
        both = len(set(ill)) == 2 and all(one in scores for one in ids)
        auroc = scan_auroc([scores[one] for one in ids], ill, subjects=subjects) if both else None
        rows = {}
        for rate, threshold in known["voxels"].items():
            means = mean_measures([measure(scan, name, threshold) for scan in scans], subjects=subjects)
            rows[rate] = {"threshold": threshold, **{key: _json(value) for key, value in means.items()}}
        maps[name] = {
            "ap": _json(compared.ap[name]),
            "ap_per_scan": _json(compared.per_scan[name]),
            "auroc": None if auroc is None else _json(auroc),
            "oracle_dice": oracle_dice(voxels, name),
            "at_healthy_fpr": rows,
        }
    counts = {"scans": len(scans), "subjects": compared.subjects, "with_lesion": sum(ill)}
    return {**counts, "prevalence": compared.prevalence, "maps": maps}


def _json(one: Interval) -> list[float | None]:
    """Value, low, high; None where it is not defined."""
    return [value if math.isfinite(value) else None for value in (one.value, one.low, one.high)]
