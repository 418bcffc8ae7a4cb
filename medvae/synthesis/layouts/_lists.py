"""The list of samples that every layout has: what `medvae train` reads, with whom each sample belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.run.work import TextFile
from medvae.synthesis.rows import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from medvae.synthesis.base_layout import BaseLayout
    from medvae.synthesis.rows import Row

_OURS = {"synthetic": "yes", "split": "train"}  # of every sample
_COLUMNS = ("scan", "subject", "label", "label_map", "synthetic", "sources")


def labels_csv(layout: BaseLayout, rows: Sequence[Row], real: Iterable[Mapping[str, Any]] = ()) -> TextFile:
    """`labels.csv`: conditions are further columns; `real` are rows of real scans, which come first.

    Where scans have masks, or real ones splits, the list has them, too: samples are trained on.
    """
    before, samples = list(real), [_cells(row) for row in rows]
    more = {"mask": [*before, *samples], "split": before}
    columns = (*_COLUMNS, *(name for name, of in more.items() if any(row.get(name) for row in of)))
    names = [name for name in layout.synthesizer.model.conditions.names if name not in columns]
    return TextFile("labels.csv", table((*columns, *names), [*before, *samples]))


def _cells(row: Row) -> dict[str, Any]:
    facts = {name: row.facts.get(name) for name in ("subject", "label_map", "mask", "sources")}
    return {**row.conditions, **facts, "scan": row.facts["image"], "label": row.facts["class"], **_OURS}
