"""The worklist of a run: one row per scan, however it ended, with what all pages share."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from medvae.cohort import rows, tables
from medvae.errors import InputError, ScanError
from medvae.plugins import names, summary
from medvae.review.filling import FOLDER, base64_text, write_worklist
from medvae.review.found import FINDINGS, Found
from medvae.review.scan_page import ScanPage
from medvae.run.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from medvae.run.outcomes import Outcome

THUMBNAIL = "thumbnail.png"


@dataclass(frozen=True)
class Worklist:
    """`review/index.html` and what it and the pages load.

    Attributes:
        record: of the run, as `run.json` has it.
        outcomes: of all scans of the folder, by id.
        q: by scan and number, of the candidates; those whose row in `findings.csv` is damaged are not in it.
    """

    record: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    q: Mapping[str, Mapping[str, float]]

    @classmethod
    def of_run(cls, out: Path, outcomes: Sequence[Outcome]) -> Self:
        """From `run.json` and `findings.csv` of a folder.

        Raises:
            InputError: the folder holds no run.
        """
        return cls(read_record(out), outcomes, _q(out / "findings.csv"))

    def write(self, out: Path) -> Path:
        """Write it into `out`/review; returns the page.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        rows = [_row(one, out) for one in self.outcomes]
        facts = {"rows": rows, "q": self.q, "card": _card(self.record)}
        pictures = _thumbnails(rows, out)
        return write_worklist(out / FOLDER, ("index.html", "scan.html"), facts=facts, thumbnails=pictures)


def _q(file: Path) -> dict[str, dict[str, float]]:
    """q of the candidates by scan and number, as far as the table, which a spreadsheet may have saved, has them."""
    columns = ("id", "number", "q")
    try:
        table = tables.parse(tables.read_text(file), file, ours=columns)
    except InputError:
        return {}  # no table, or none any more: the pages show p
    q = defaultdict[str, dict[str, float]](dict)
    for row in table.rows:
        name, candidate, text = (row.get(column, "") for column in columns)
        value = rows.number(text.strip(), decimal_comma=table.decimal_comma)
        if value is not None:
            q[name][candidate] = value
    return q


def _row(outcome: Outcome, out: Path) -> dict[str, Any]:
    """What the worklist shows of a scan."""
    row = {key: getattr(outcome, key) for key in ("id", "status", "code", "message", "hint")}
    row["warnings"] = list(outcome.warnings)
    folder = out / "scans" / Path(outcome.id).name
    if outcome.status != "ok" or not (folder / FINDINGS).exists():
        return row
    try:
        kept = Found.read(folder)
    except ScanError as problem:
        return {**row, "warnings": [*row["warnings"], str(problem)]}
    found, name = kept.tree, kept.tree["map"]
    return {
        **row,
        "key": kept.key,
        "scan_hash": found.get("scan_hash", ""),  # not in runs of older versions
        "page": (out / ScanPage(outcome.id).name).is_file(),
        "map": name,
        "unit": found["unit"],
        "score": outcome.scores.get(name),
        "p": outcome.scores.get(f"{name}_p"),
        "coverage": outcome.scores.get("coverage"),
        "candidates": len(found["candidates"]),
        "volume_ml": sum(one["volume_ml"] for one in found["candidates"]),
    }


def _thumbnails(rows: Iterable[dict[str, Any]], out: Path) -> dict[str, str]:
    files = {row["id"]: out / "scans" / Path(row["id"]).name / THUMBNAIL for row in rows if row["status"] == "ok"}
    return {name: base64_text(file.read_bytes()) for name, file in files.items() if file.is_file()}


def _card(record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the model and the run."""
    identity = record.get("identity", {})
    options = identity.get("settings", {}).get("detect", {})
    return {
        "model": record.get("model", {}),
        "hash": identity.get("model", ""),
        "medvae": record.get("medvae", ""),
        "reference": record.get("reference", ""),
        "warnings": record.get("warnings", []),
        "about": {name: summary("maps", name) for name in options.get("maps") or () if name in names("maps")},
        "detect": {key: options.get(key) for key in ("maps", "healthy_fpr", "min_ml", "top")},
        "units": record.get("units", {}),
    }
