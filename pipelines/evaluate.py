"""Compare what `detect` wrote with known lesions: thresholds from healthy scans, intervals over subjects."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvae.errors import InputError
from medvae.evaluation.folder import FOLDER
from medvae.evaluation.lesions import Curve, mean_measures, measure, read_volume
from medvae.evaluation.masks import HINT, Masks, unmatched_in_words
from medvae.evaluation.metrics import compare, scan_ap, scan_auroc
from medvae.evaluation.report import froc, markdown, precision_recall
from medvae.evaluation.truth import read_scores
from medvae.evaluation.verdicts import read_verdicts
from medvae.io.files import atomic, write_json, write_text
from medvae.run.manifest import Manifest
from medvae.run.record import disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well the maps of a run find known lesions.

    Attributes:
        out: folder of `evaluation.json`, `evaluation.md`, `froc.png` and a `precision_recall_<map>.png` per map.
        tree: what `evaluation.json` has.
        lines: the text for a person.
    """

    out: Path
    tree: Mapping[str, Any] = field(repr=False)
    lines: tuple[str, ...]


def evaluate(
    out: Path | str, truth: Path | str | None = None, *, healthy: bool = False, verdicts: Path | str | None = None
) -> Evaluation:
    """Compare the maps of `medvae detect` with masks of lesions, and count a reader's verdicts on its candidates.

    `medvae evaluate detect` does the same.

    Args:
        out: output folder of `detect`; the evaluation is written into its folder `evaluation`.
        truth: folder of masks on the scans' grids. The mask of a scan is named by its id, or has the same path below
            the folder as the scan below the input; whatever is not 0 is lesion.
        healthy: count scans without a mask as healthy; else they are left out.
        verdicts: JSON that the pages exported.

    Returns:
        The folder `evaluation`, the contents of its `evaluation.json` (`tree`), and the report as text (`lines`).

    Raises:
        InputError: no run of `detect` in the folder, no folder of masks, no lesion among them, two masks that could be
            one scan's, or no verdicts on scans of the run.
        ScanError: a mask cannot be read or does not lie on its scan.
        OutputError: the folder cannot be written.

    Example:
        >>> found = medvae.evaluate("maps", "masks", healthy=True)
        >>> found.out.name, found.tree["with_lesion"]
        ('evaluation', 1)
    """
    out = Path(out)
    record = _record(out)
    if truth is None and verdicts is None:
        raise InputError("neither masks nor verdicts", path=out, hint="pass truth= or verdicts=")
    tree, pictures = ({}, {}) if truth is None else _against(Path(truth), out, record, healthy=healthy)
    if verdicts is not None:
        tree["verdicts"] = read_verdicts(Path(verdicts), out).to_json()
    tree["reference"] = record["reference"]
    place = out / FOLDER
    with disk_errors(place):
        write_json(place / "evaluation.json", tree)
        write_text(place / "evaluation.md", markdown(tree))
        for name, png in pictures.items():
            with atomic(place / name) as partial:
                partial.write_bytes(png)
    written = ", ".join(["evaluation.json", "evaluation.md", *pictures])
    return Evaluation(place, tree, (*markdown(tree).splitlines(), f"{place}: {written}"))


def _against(
    truth: Path, out: Path, record: Mapping[str, Any], *, healthy: bool
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The maps against masks: what `evaluation.json` has of it, and the pictures by name."""
    thresholds: dict[str, Any] = record["thresholds"]
    masks = Masks.below(truth)
    every = _cases(out, masks)
    unmatched = masks.without_scan(case.id for case in every)
    if unmatched:
        log.warning("%s; %s", unmatched_in_words(unmatched), HINT)
    without = [case.id for case in every if case.truth is None]
    cases = every if healthy else [case for case in every if case.truth is not None]
    found = {name: _of_map(out, name, cases, known["voxels"]) for name, known in thresholds.items()}
    counts = next(iter(found.values())).counts  # the same of every map
    tree: dict[str, Any] = {"scans": len(cases), **counts}
    tree |= {"taken_as_healthy": without if healthy else [], "left_out": [] if healthy else without}
    tree |= {"masks_without_scan": list(unmatched), "maps": {name: one.tree for name, one in found.items()}}
    return tree, {"froc.png": froc(tree)} | {f"precision_recall_{name}.png": one.png for name, one in found.items()}


def _record(out: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((out / "run.json").read_text("utf-8"))
        record["thresholds"], record["reference"]
    except (OSError, ValueError, LookupError, TypeError):
        hint = "pass the output folder of detect; repeat detect if it is of an older version"
        raise InputError("no finished run of detect", path=out, hint=hint) from None
    return record


@dataclass(frozen=True)
class _Case:
    """A scan of the run: its id, whose it is, and its mask, if there is one."""

    id: str
    subject: str
    truth: Path | None


@dataclass(frozen=True)
class _OfMap:
    """What `evaluation.json` has of one map, and what it has of the scans; its precision and recall as a PNG."""

    tree: dict[str, Any]
    counts: dict[str, Any]
    png: bytes


def _cases(out: Path, masks: Masks) -> list[_Case]:
    """The scans that have maps, by id.

    Raises:
        InputError: no scan has a mask, or two masks could be that of one scan.
    """
    subjects = {one.id: one.facts.get("subject") for one in Manifest(out / "manifest.jsonl").outcomes().values()}
    names = sorted(path.parent.name for path in out.glob("scans/*/coverage.nii.gz"))
    cases = [_Case(name, subjects.get(name) or name, masks.of(name)) for name in names]
    if not any(case.truth for case in cases):
        message = f"none of the scans has a mask; {unmatched_in_words(masks.without_scan(names))}"
        raise InputError(message, path=masks.folder, hint=HINT)
    return cases


def _of_map(out: Path, name: str, cases: Sequence[_Case], thresholds: Mapping[str, float]) -> _OfMap:
    """One map of all scans: one volume is in memory at a time, and of each scan the voxels that count."""
    voxels, rows = [], []
    for case in cases:
        volume = read_volume(out / "scans" / case.id, name, case.truth)
        voxels.append(volume.voxels(case.subject, name))
        rows.append([measure(volume, threshold) for threshold in thresholds.values()])
    ill = [bool(one.truth.any()) for one in voxels]
    if not any(ill):
        raise InputError("none of the scans has a lesion", path=out, hint="pass the folder of their masks")
    subjects = [case.subject for case in cases]
    compared = compare(voxels, name)
    at = {}
    for (rate, threshold), each in zip(thresholds.items(), zip(*rows, strict=True), strict=True):
        means = mean_measures(each, subjects=subjects)
        at[rate] = {"threshold": threshold, **{key: value.to_json() for key, value in means.items()}}
    curve = Curve.from_scans(voxels, name)
    tree = {
        "ap": compared.ap[name].to_json(),
        "ap_per_scan": compared.per_scan[name].to_json(),
        **_of_scores(out, name, cases, ill),
        "oracle_dice": curve.oracle_dice,
        "at_healthy_fpr": at,
    }
    patients = {case.subject for case, yes in zip(cases, ill, strict=True) if yes}
    counts: dict[str, Any] = {"subjects": compared.subjects, "with_lesion": sum(ill)}
    counts |= {"subjects_with_lesion": len(patients), "prevalence": compared.prevalence}
    return _OfMap(tree, counts, precision_recall(curve, name, tree, prevalence=compared.prevalence))


def _of_scores(out: Path, name: str, cases: Sequence[_Case], ill: Sequence[bool]) -> dict[str, Any]:
    """How well the scans' scores tell those with a lesion from the others; None without scans of both kinds."""
    scores, measures = read_scores(out, name), {"auroc": scan_auroc, "ap_of_scans": scan_ap}
    if len(set(ill)) < 2 or not all(case.id in scores for case in cases):
        return dict.fromkeys(measures)
    values, subjects = [scores[case.id] for case in cases], [case.subject for case in cases]
    return {key: measure(values, ill, subjects=subjects).to_json() for key, measure in measures.items()}
