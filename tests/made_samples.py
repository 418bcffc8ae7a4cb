"""A run of `augment` as it lies on the disk, made without a model: balls of tissue with a label map."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.io.nifti.file import NiftiFile
from medvae.review.sample_list import SampleList
from medvae.review.sample_page import SamplePage, nearest_place
from medvae.run.manifest import Manifest
from medvae.run.outcomes import Outcome
from medvae.run.work import Result
from medvae.scan import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHAPE = (24, 20, 16)
GEOMETRY = Geometry(SHAPE, np.array([[2.0, 0, 0, -20], [0, 2, 0, -30], [0, 0, 3, -10], [0, 0, 0, 1]]))
LABEL_AT = (13, 10, 8)  # a voxel with the value 2
NEAREST = "<img src=x onerror=alert(1)>"


def make_set(out: Path, names: Sequence[str], *, rejected: str = "", real: bool = False) -> Path:
    """Write a set as `augment` does; returns its folder. The first sample is a near-copy."""
    outcomes = [_sample(out, name, index, real=real) for index, name in enumerate(names)]
    if rejected:
        outcomes.append(Outcome(rejected, "rejected", "implausible", "compute", "all 10 draws", "use another sampler"))
    for outcome in outcomes:
        Manifest(out / "manifest.jsonl").append(outcome)
    identity = {"augment": {"sampler": "classical", "label_names": {"2": "posterior"}}, "seed": 0, "model": "abc"}
    record = {"command": "augment", "medvae": "0.1.0", "identity": identity, "copies": 1, "copy_threshold": 0.5}
    record |= {"copies_among_real": "0 of 9"}
    (out / "run.json").write_text(json.dumps(record), "utf-8")
    (out / "labels.csv").write_text(
        "scan,subject,label,label_map,synthetic,sources\nreal.nii.gz,r,,,no,\n"
        + "".join(f"{one.facts['image']},{one.id},a,,yes,\n" for one in outcomes if one.status == "ok"),
        "utf-8",
    )
    items = [{"image": "real.nii.gz"}, *({"image": one.facts["image"]} for one in outcomes if one.status == "ok")]
    (out / "dataset.json").write_text(json.dumps({"numTraining": len(items), "training": items}), "utf-8")
    SampleList(record, sorted(outcomes, key=lambda one: one.id)).write(out)
    return out


def _sample(out: Path, name: str, index: int, *, real: bool) -> Outcome:
    rng = np.random.default_rng(index)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    inside = np.linalg.norm((at - np.array(SHAPE) / 2) / np.array(SHAPE), axis=-1) < 0.4
    image = np.where(inside, 100 + 50 * rng.random(SHAPE), 0).astype(np.float32)
    labels = np.where(inside, 1, 0).astype(np.int16)
    labels[11:16, 8:13, 7:10] = 2
    places = f"images/s{index}.nii.gz", f"labels/s{index}.nii.gz"
    files: list[Any] = [NiftiFile(places[0], image, GEOMETRY, ""), NiftiFile(places[1], labels, GEOMETRY, "")]
    if real:
        files.append(NiftiFile(nearest_place(name), np.where(inside, 255, 0).astype(np.uint8), GEOMETRY, ""))
    scores: dict[str, float | None] = {
        "index": index,
        "draws": 1 + index,
        "distance": 0.1 + index,
        "ratio": 0.2 + index,
    }
    scores |= {"ratio": 0.2 + index, "second_distance": 1.0, "code_distance": None, "condition age": 70.0}
    facts: dict[str, str | None] = {"class": "a", "sources": "p1;p2", "shares": "0.6;0.4", "source_subject": None}
    facts |= {"image": places[0], "label_map": places[1], "rejected": ";".join(["near_copy"] * index), "units": "a.u."}
    facts |= {"nearest": NEAREST, "code_nearest": None, "copy": "no" if index else "yes", "sampler": "classical"}
    warnings = () if index else ("a near-copy of a training scan",)
    found = Result((*files,), scores, facts, warnings)
    names = (*found.write(out), SamplePage.of(name, found).name)
    SamplePage.of(name, found, values=image).write(out)
    return Outcome(name, "ok", outputs=names, warnings=warnings, scores=scores, facts=facts)
