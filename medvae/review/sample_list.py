"""The worklist of a synthetic set: one row per sample, however it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvae.review.filling import FOLDER, write_worklist
from medvae.review.sample_page import SamplePage
from medvae.review.verdicts import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medvae.run.outcomes import Outcome

_SCORES = ("draws", "distance", "second_distance", "ratio")
_SET = (
    *("samples", "not_generated", "copies", "copies_among_real", "distance", "distance_among_real"),
    *("copy_threshold", "copy_ratio_threshold", "copy_thresholds_from", "derived_from_one_subject"),
)
_FACTS = ("class", "sources", "source_subject", "nearest", "copy", "rejected")


@dataclass(frozen=True)
class SampleList:
    """`review/index.html` of a synthetic set and what it and the pages load.

    Attributes:
        record: of the run, as `run.json` has it.
        outcomes: of all samples of the folder, by id.
    """

    record: Mapping[str, Any]
    outcomes: Sequence[Outcome]

    def write(self, out: Path) -> Path:
        """Write it into `out`/review; returns the page.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        facts = {"rows": [_row(one, out) for one in self.outcomes], "card": _card(self.record)}
        done = (SamplePage.of(one.id, one) for one in self.outcomes if one.status == "ok")
        pictures = {page.id: picture for page in done if (picture := page.picture(out))}
        return write_worklist(out / FOLDER, ("samples.html", "sample.html"), facts=facts, thumbnails=pictures)


def _row(outcome: Outcome, out: Path) -> dict[str, Any]:
    """What the worklist shows of a sample."""
    row: dict[str, Any] = {key: getattr(outcome, key) for key in ("id", "status", "code", "message", "hint")}
    row |= {"warnings": list(outcome.warnings)}
    page = SamplePage.of(outcome.id, outcome)
    image = page.image(out) if outcome.status == "ok" else None
    if image is None:
        return row
    row |= {name: outcome.scores.get(name) for name in _SCORES}
    row |= {name: outcome.facts.get(name) for name in _FACTS}
    return {**row, "key": key_of(image.read_bytes()), "page": (out / page.name).is_file()}


def _card(record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the set."""
    identity = record.get("identity", {})
    options = identity.get("augment", {})
    return {
        "model": identity.get("model", ""),
        "seed": identity.get("seed"),
        "medvae": record.get("medvae", ""),
        "sampler": options.get("sampler", ""),
        "label_names": options.get("label_names", {}),
        **{name: record.get(name) for name in _SET},
    }
