"""Synthetic scans from a trained model: draw, decode, audit, write; the same set again from the same seed."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import TYPE_CHECKING, Any

from medvae import console, settings
from medvae.checkpoint.folder import load
from medvae.io.files import write_json, write_text
from medvae.io.formats import nifti
from medvae.review.samples import display_limits, pair_of, sample_montage
from medvae.run.engine import RESEARCH_USE, Done, OutputFolder, disk_errors, run_scans
from medvae.scan import ScanRef
from medvae.synthesis import copies, generate, provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from medvae.run.engine import Outcome
    from medvae.synthesis.copies import Audit
    from medvae.synthesis.generate import Synthesis

_SHOWN = 8  # samples in the montage
_COPY = "a near-copy of a training scan"
_EMPTY = "empty: all its voxels are 0"
_LIST = ("scan", "subject", "label", "label_map", "synthetic", "sources")
_AUDIT = (
    "kind",
    "id",
    "class",
    "nearest",
    "distance",
    "second_distance",
    "ratio",
    "code_nearest",
    "code_distance",
    "copy",
)


def run(
    model: Path,
    *,
    out: Path,
    count: int,
    config: str | None = None,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
    overwrite: bool = False,
) -> int:
    """Write `count` synthetic scans and what a training run needs to read them; returns the exit code.

    Sample number i is the same whatever the count; a second run with a larger one adds to the set.

    Raises:
        ModelError: the checkpoint cannot be read, or remembers too little for the sampler.
        SettingsError: an unknown sampler or setting.
        OutputError: the folder holds another run, or the disk is full.
    """
    trained = load(model, device=device)
    options = settings.load(config, overrides, base=trained.settings)
    made = generate.fit(trained, options.augment, seed=options.seed)
    judge = copies.fit(trained, copies=made.copies())
    identity = {"augment": options.augment.model_dump(mode="json"), "seed": options.seed, "model": trained.hash}
    folder = OutputFolder(out, command="augment", identity=identity, overwrite=overwrite)

    refs = [ScanRef(f"synthetic-{index:05d}", "synthetic", (model / "model.json",)) for index in range(count)]
    handle = partial(_make, made=made, judge=judge, out=out)
    summary = run_scans(refs, lambda ref: None, handle, folder=folder, workers=0, title="augment")

    done = [outcome for outcome in summary.outcomes if outcome.status == "ok"]
    with disk_errors(out):
        _write_tables(done, made=made, judge=judge, out=out)
        _write_montage(done, made=made, judge=judge, out=out)
    facts = _facts(done, made=made, judge=judge)
    folder.finish(summary, **facts)
    summary.report()
    _report(facts)
    return summary.exit_code


def _make(ref: ScanRef, _: None, *, made: Synthesis, judge: Audit, out: Path) -> Done:
    """Make one sample and judge it; the runner writes it."""
    sample = made.sample(_index(ref.id))
    verdict = judge.judge(sample.image, sample.mask, sample.z)
    voxels = generate.to_voxels(sample, made.model)
    image, label_map = f"images/{ref.id}.nii.gz", f"labels/{ref.id}.nii.gz"
    has_labels = voxels.label_map is not None
    facts = {"class": sample.label, "subject": provenance.subject(sample, made.model, otherwise=ref.id)}
    facts |= {"sources": ";".join(sample.sources), "image": image, "label_map": label_map if has_labels else None}
    sidecar = {"id": ref.id, "synthetic": True, "notice": RESEARCH_USE, **provenance.describe(sample, made)}
    sidecar |= {"label_map": f"../{label_map}" if has_labels else provenance.no_label_maps(made)}
    sidecar |= {"audit": verdict.scores() | {"copy_threshold": judge.threshold if judge.known else None}}

    def write() -> Sequence[str]:
        text = f"synthetic ({made.settings.sampler}), {provenance.units(made.model)}"
        nifti.write(out / image, voxels.data, voxels.geometry, description=text)
        write_json(out / f"images/{ref.id}.json", sidecar)
        if voxels.label_map is None:
            return image, f"images/{ref.id}.json"
        nifti.write(out / label_map, voxels.label_map, voxels.geometry, description="synthetic, label map")
        return image, f"images/{ref.id}.json", label_map

    found = {_COPY: bool(verdict.copy), _EMPTY: not voxels.data.any()}
    return Done(write, {**facts, **verdict.scores()}, tuple(text for text, so in found.items() if so))


def _write_tables(done: Sequence[Outcome], *, made: Synthesis, judge: Audit, out: Path) -> None:
    """`labels.csv`, a list that medvae reads; `dataset.json`, which MONAI reads; `copies.csv` with real scans below."""
    rows: list[dict[str, Any]] = [{"id": one.id, **one.scores} for one in done]
    _write_csv(
        out / "labels.csv", _LIST, [{"scan": r["image"], "label": r["class"], "synthetic": "yes", **r} for r in rows]
    )
    synthetic = [{"kind": "synthetic", **row} for row in rows]
    _write_csv(out / "audit.csv", _AUDIT, synthetic + [{"kind": "real", **row} for row in judge.real_rows()])
    write_json(out / "dataset.json", provenance.dataset(rows, made))


def _write_montage(done: Sequence[Outcome], *, made: Synthesis, judge: Audit, out: Path) -> None:
    """The samples that lie nearest to a training scan, then the first ones."""
    distance = {one.id: float(one.scores["distance"] or 0) for one in done}
    nearest = sorted(done, key=lambda one: distance[one.id])[: _SHOWN // 2]
    shown = list({one.id: one for one in [*nearest, *done]}.values())[:_SHOWN]
    pairs = []
    for one in shown:
        label = "" if one.scores["class"] is None else f"\nclass {one.scores['class']}"
        copy = "\nCOPY" if one.scores["copy"] == "yes" else ""
        title = f"{one.id}{label}\ndistance {distance[one.id]:.3g}{copy}"
        neighbour = one.scores["nearest"]
        sample = made.sample(_index(one.id))
        pairs.append(pair_of(sample, made.model, nearest=None if neighbour is None else str(neighbour), title=title))
    if pairs:
        spacing, limits = made.model.preparation.grid.spacing, display_limits(made.model)
        title = f"{made.settings.sampler}: synthetic scans (left) and the nearest training scan (right)"
        sample_montage(out / "montage.png", pairs, spacing=spacing, limits=limits, title=title)


def _facts(done: Sequence[Outcome], *, made: Synthesis, judge: Audit) -> dict[str, Any]:
    copies = sum(one.scores["copy"] == "yes" for one in done) if judge.known else None
    facts = {"sampler": made.settings.sampler, "units": provenance.units(made.model), "samples": len(done)}
    facts |= {"copies": copies, "copy_threshold": judge.threshold if judge.known else None}
    facts |= {"empty": sum(_EMPTY in one.warnings for one in done)}
    return facts | {"copy_threshold_of": judge.threshold_of, "label_maps": provenance.no_label_maps(made) or "written"}


def _report(facts: Mapping[str, Any]) -> None:
    if facts["copies"] is None:
        console.out(f"copies: not looked for ({facts['copy_threshold_of']})")
    else:
        text = f"look like one of the training scans (thresholds from {facts['copy_threshold_of']}; see copies.csv)"
        console.out(f"copies: {facts['copies']} of {facts['samples']} {text}")
    if facts["empty"]:
        console.out(f"empty: {facts['empty']} of {facts['samples']} have no voxel that is not 0 (see manifest.jsonl)")
    console.out(f"label maps: {facts['label_maps']}")


def _index(name: str) -> int:
    return int(name.rsplit("-", 1)[1])


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())
