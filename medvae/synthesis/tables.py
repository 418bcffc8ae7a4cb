"""What is written about a whole synthetic set: the lists of its layout, `audit.csv`, a montage, and its counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.prepare.native import only_channel
from medvae.review.samples import Pair, SampleMontage, display_limits
from medvae.run.work import TextFile
from medvae.synthesis.decoding import is_binary
from medvae.synthesis.provenance import no_label_maps, unit_text, whose
from medvae.synthesis.rows import rounded, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.run.work import File
    from medvae.synthesis.rows import Row
    from medvae.synthesis.synthetic import SyntheticSet

_SHOWN = 8  # samples in the montage
_COMPARED = {"image": "as they are", "registered": "after registration", "region": "in a part of the scan"}
_NEAREST = ("nearest", "distance", "second_distance", "ratio")
_REGISTERED = ("registered_nearest", "registered_distance", "registered_ratio", "region_nearest", "region_share")
_CODE = ("code_nearest", "code_distance")
_AUDIT = ("kind", "id", "class", "sources", "shares", *_NEAREST, *_REGISTERED, *_CODE, "copy", "copy_by")


def set_files(rows: Sequence[Row], whole: SyntheticSet, out: Path) -> tuple[File, ...]:
    """The files about a whole set, in the order in which they are written into `out`."""
    montage = _montage(rows, whole)
    return (*whole.layout.lists(rows, out), _audit(rows, whole), *([] if montage is None else [montage]))


def counts(rows: Sequence[Row], whole: SyntheticSet, *, not_generated: int = 0) -> dict[str, Any]:
    """What `run.json` says about a set; `not_generated` samples had none of their draws accepted."""
    screen, synthesizer = whole.screen, whole.synthesizer
    return {
        "sampler": synthesizer.settings.sampler,
        "units": unit_text(synthesizer.model),
        "samples": len(rows),
        "not_generated": not_generated,
        "rejected_draws": dict(Counter(kind for row in rows for kind in row.rejected)),
        "derived_from_training_scans": sum(bool(row.facts["sources"]) for row in rows),
        "derived_from_one_subject": sum(row.facts["source_subject"] is not None for row in rows),
        "copies": sum(row.facts["copy"] == "yes" for row in rows) if screen.known else None,
        "copies_among_real": screen.real_copies if screen.known else None,
        "copies_by": dict(Counter(kind for row in rows for kind in row.copy_by)),
        "compared_with": len(synthesizer.model.training.ids),
        "training_scans": len(synthesizer.model.latents.ids),
        "donors_found": sum(row.donor_found for row in rows) if screen.known else None,
        "distance": _median([row.scores["distance"] for row in rows]),
        "distance_among_real": _median([one.distance for one in screen.real if one is not None]),
        "registered_ratio": _median([row.scores["registered_ratio"] for row in rows]),
        "registered_ratio_among_real": _median([one.registered.ratio for one in screen.compared if one.registered]),
        **screen.thresholds,
        "copy_thresholds_from": screen.thresholds_from,
        "label_maps": no_label_maps(synthesizer) or "written",
        "label_values": {str(written): value for written, value in whole.layout.written_values.items()},
    }


def report(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The counts in words, one line each."""
    one = found["derived_from_one_subject"]
    donors = whose(found["samples"], one=one, several=found["derived_from_training_scans"] - one)
    lines = [*_rejections(found), *donors, *_near_copies(found)]
    return (*lines, f"label maps: {found['label_maps']}")


def _rejections(found: Mapping[str, Any]) -> Iterator[str]:
    if found["rejected_draws"]:
        reasons = ", ".join(f"{kind} {count}" for kind, count in sorted(found["rejected_draws"].items()))
        yield f"draws rejected and drawn again: {sum(found['rejected_draws'].values())} ({reasons}; see audit.csv)"
    if found["not_generated"]:
        yield f"not generated: {found['not_generated']} samples, all of whose draws were rejected (see manifest.jsonl)"


def _near_copies(found: Mapping[str, Any]) -> Iterator[str]:
    if found["copies"] is None:
        yield f"not screened for near-copies ({found['copy_thresholds_from']})"
        return
    basis = f"real scans of other people: {found['copies_among_real']}; thresholds from {found['copy_thresholds_from']}"
    if found["compared_with"] < found["training_scans"]:
        basis += f"; against {found['compared_with']} of {found['training_scans']} training scans"
    if found["samples"] and found["derived_from_one_subject"] == found["samples"]:
        donors = f"recognises the donor of {found['donors_found']} of {found['samples']} samples"
        yield f"the copy screen, which is not told the sources, {donors} ({basis})"
    else:
        by = ", ".join(f"{_COMPARED[kind]} {count}" for kind, count in found["copies_by"].items())
        flagged = f"{found['copies']} of {found['samples']} flagged" + (f" ({by})" if by else "")
        yield f"screened for near-copies of training scans: {flagged}; {basis}"


def _median(distances: Iterable[float | None]) -> float | None:
    known = [one for one in distances if one is not None and np.isfinite(one)]
    return float(np.median(known)) if known else None


def _audit(rows: Sequence[Row], whole: SyntheticSet) -> TextFile:
    """The samples, and below them the distances between training scans of different subjects."""
    synthetic = [{"kind": "synthetic", "id": row.id, **row.facts, **row.scores} for row in rows]
    real = [{"kind": "real", **row} for row in whole.screen.real_rows()]
    found = [rounded(row) for row in (*synthetic, *real)]
    return TextFile("audit.csv", table((*_AUDIT, "draws", "rejected"), found))


def _montage(rows: Sequence[Row], whole: SyntheticSet) -> SampleMontage | None:
    """The samples that are nearest to a training scan, then the first ones; None for an empty set."""
    if not rows:
        return None
    model = whole.synthesizer.model
    nearest = sorted(rows, key=lambda row: row.distance)[: _SHOWN // 2]
    shown = list({row.id: row for row in [*nearest, *rows]}.values())[:_SHOWN]
    limits = (0.0, 1.0) if is_binary(model) else display_limits(model.training.images, model.training.masks)
    return SampleMontage(
        "montage.png",
        tuple(_pair(row, whole) for row in shown),
        spacing=model.preparation.grid.spacing,
        limits=limits,
        title=f"{whole.synthesizer.settings.sampler}: synthetic scans (left), nearest training scan (right)",
    )


def _pair(row: Row, whole: SyntheticSet) -> Pair:
    """A sample, generated again, next to its nearest training scan."""
    sample, training = whole.synthesizer.sample(row.index, attempt=row.attempt), whole.synthesizer.model.training
    label = "" if row.facts["class"] is None else f"\nclass {row.facts['class']}"
    copy = "\nNEAR-COPY" if row.facts["copy"] == "yes" else ""
    title = f"{row.id}{label}\ndistance {row.distance:.3g}{copy}"
    image, nearest = _shown(sample.image, sample.mask), row.facts["nearest"]
    if nearest is None:
        return Pair(image, None, title, "the model keeps no training scan")
    at = list(training.ids).index(nearest)
    return Pair(image, _shown(training.images[at].astype(np.float32), training.masks[at]), title, nearest)


def _shown(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    return only_channel(np.where(mask, image, np.float32(np.nan)))
