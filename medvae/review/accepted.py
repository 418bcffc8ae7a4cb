"""The part of a synthetic set that a reader accepted: its lists, without the other samples."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvae.errors import InputError
from medvae.io.files import write_json, write_text
from medvae.review.sample_page import SamplePage
from medvae.review.verdicts import key_of, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.run.outcomes import Outcome

LIST, DATALIST = "accepted.csv", "accepted.json"


@dataclass(frozen=True)
class Accepted:
    """What a reader's verdicts left of a set.

    Attributes:
        samples: of the set.
        accepted: of them.
        rejected: of them.
        missing: of them; their image is not in the folder. All others have no verdict; both are left out, too.
        others: scans in the file of verdicts that are not of this set, were generated anew since or have no image any
            more.
        files: what was written.
    """

    samples: int
    accepted: int
    rejected: int
    missing: int
    others: int
    files: tuple[str, ...]


def remove_accepted(out: Path) -> None:
    """Remove the lists of what was accepted of an earlier set.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in (LIST, DATALIST):
        (out / name).unlink(missing_ok=True)


def write_accepted(verdicts: Path, out: Path, outcomes: Sequence[Outcome]) -> Accepted:
    """Write `accepted.csv`, as `labels.csv`, and `accepted.json`, as the datalist `dataset.json` where there is one.

    Real scans of a set that was appended to one stay.

    Args:
        verdicts: JSON that the pages exported.
        out: the folder of the set.
        outcomes: of its samples.

    Raises:
        InputError: no file of verdicts, or none on samples of this set; the set has no `labels.csv`.
        OSError: the folder cannot be written.
    """
    said = {one.key: one.verdict for one in read(verdicts)}
    images, missing = {}, 0
    for one in outcomes:
        if one.status == "ok":
            file = SamplePage.of(one.id, one).image(out)
            missing += file is None  # deleted, as a reader who rejected it may do: that accepts nothing
            images[str(one.facts.get("image"))] = "" if file is None else said.pop(key_of(file.read_bytes()), "")
    if not any(images.values()):
        hint = "pass the file that the pages of this set exported"
        raise InputError("no verdicts on scans of this set", path=verdicts, hint=hint)
    left_out = {name for name, verdict in images.items() if verdict != "accept"}
    files = (_write_list(out, left_out), *_write_datalist(out, left_out))
    each = list(images.values())
    return Accepted(len(images), each.count("accept"), each.count("reject"), missing, len(said), files)


def _write_list(out: Path, left_out: set[str]) -> str:
    if not (out / "labels.csv").is_file():
        raise InputError("the set has no labels.csv", path=out, hint="run augment again, which writes it at its end")
    with open(out / "labels.csv", encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        rows, columns = [row for row in table if row["scan"] not in left_out], list(table.fieldnames or ())
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / LIST, text.getvalue())
    return LIST


def _write_datalist(out: Path, left_out: set[str]) -> tuple[str, ...]:
    """The datalist of MONAI; layouts without one have no such file."""
    file = out / "dataset.json"
    tree: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if not isinstance(tree.get("training"), list):
        return ()
    items = [one for one in tree["training"] if str(one.get("image")).removeprefix("./") not in left_out]
    write_json(out / DATALIST, {**tree, "numTraining": len(items), "training": items})
    return (DATALIST,)
