"""A run of `detect` as it lies on the disk, made without a model: a ball of tissue with one bright lesion per scan."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.candidates import Candidate, Candidates
from medvae.anomaly.detection import Detection, NativeMap, Score
from medvae.anomaly.findings import findings_table
from medvae.review.montage import Picture
from medvae.review.scan_page import ScanPage
from medvae.review.worklist import Worklist
from medvae.run.manifest import Manifest
from medvae.run.outcomes import Outcome
from medvae.run.work import Result
from medvae.scan import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (24, 28, 22)
LESION = (8, 17, 12)  # voxel of the file
LIMITS = {"fused": 4.0, "residual_z": 2.0}
PEAKS = {"fused": 9.3, "residual_z": 5.1}


def oblique() -> NDArray[np.float64]:
    """An affine with its axes in another order, turned by 20 degrees, three different spacings."""
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    about = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about @ np.array([[0, 0, 2.0], [-2.5, 0, 0], [0, 3.0, 0]])
    affine[:3, 3] = (-20, 30, -40)
    return affine


def detection(
    name: str,
    *,
    affine: NDArray[np.float64] | None = None,
    top: float = 1.0,
    units: Any = "a.u.",
    montage: bool = False,
) -> Detection:
    """What `detect` finds in a made scan.

    Args:
        name: id of the scan.
        affine: of its grid.
        top: the lesion is so many times as high as in others; below 0.3 it is no candidate.
        units: of the scan.
        montage: whether it has one, which takes a second.
    """
    geometry = Geometry(SHAPE, oblique() if affine is None else affine)
    rng = np.random.default_rng(len(name))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    covered = np.linalg.norm((index - np.array(SHAPE) / 2) / np.array(SHAPE), axis=-1) < 0.4
    blob = np.exp(-np.square(index - LESION).sum(axis=-1) / 6.0)
    maps = {}
    for key, limit in LIMITS.items():
        values = np.where(covered, rng.normal(0, limit / 8, SHAPE) + top * PEAKS[key] * blob, 0).astype(np.float32)
        values[LESION] = top * PEAKS[key]
        maps[key] = NativeMap(key, values, geometry, "nats" if key == "fused" else "z", limit)
    scan = np.where(covered, 100 + 20 * rng.random(SHAPE) + 60 * blob, -1000 if units == "HU" else 0).astype(np.float32)
    heat, found = maps["fused"].data, top >= 0.3
    labels = (heat > LIMITS["fused"]).astype(np.uint16) if found else np.zeros(SHAPE, np.uint16)
    x, y, z = (float(value) for value in geometry.to_world(LESION))
    one = Candidate(1, (x, y, z), (x, y, z), "right", 1.5, top * PEAKS["fused"], 6.0, 2.0, 0.1, "residual_z")
    candidates = Candidates("fused", LIMITS["fused"], 1.0, (one,) if found else (), labels)
    picture = Picture(
        scan, heat, covered, geometry, np.array([LESION]), (float(heat[LESION]),), (1,), 4.0, "nats", outline=covered
    )
    return Detection(
        id=name,
        maps=maps,
        scores={key: Score(top * PEAKS[key] / 2, 0.1 if found else 0.8) for key in LIMITS},
        coverage=covered.astype(np.uint8),
        covered_share=0.9,
        status="calibrated, n=9",
        n=9,
        warnings=(f"a warning of {name}",) if found else (),
        candidates=candidates,
        picture=picture,
        with_montage=montage,
        with_review=True,
        modality="CT" if units == "HU" else "MR",
        units=units,
        source_hash=sha256(name.encode()).hexdigest(),
        to_mni=np.eye(4),
    )


def make_run(out: Path, found: Sequence[Detection], *, rejected: str = "") -> Path:
    """Write a run as `detect` does; returns its folder."""
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for one in found:
        names = Result((*one.files(f"scans/{one.id}"), ScanPage(one.id))).write(out)
        scores = {
            key: value
            for name, each in one.scores.items()
            for key, value in ((name, each.score), (f"{name}_p", each.p))
        }
        outcomes.append(Outcome(one.id, "ok", outputs=names, warnings=one.warnings, scores=scores))
    if rejected:
        hint = "use a model trained on that modality"
        outcomes.append(Outcome(rejected, "rejected", "wrong_modality", "read", "the scan is CT", hint))
    for outcome in outcomes:
        Manifest(out / "manifest.jsonl").append(outcome)
    record = {
        "command": "detect",
        "medvae": "0.1.0",
        "identity": {"model": "abc123", "settings": {"detect": {"maps": list(LIMITS), "healthy_fpr": 0.1}}},
        "reference": "calibrated, n=9",
        "model": {"training": 18, "modality": "MR"},
        "thresholds": {name: {"candidates": limit, "voxels": {"0.001": limit}} for name, limit in LIMITS.items()},
    }
    (out / "run.json").write_text(json.dumps(record), "utf-8")
    rows = ((one.id, [each.to_json() for each in one.candidates.each]) for one in found)
    (out / "findings.csv").write_text(findings_table(rows), "utf-8")
    Worklist.of_run(out, sorted(outcomes, key=lambda one: one.id)).write(out)
    return out
