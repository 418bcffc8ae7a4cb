"""Datalists as MONAI's `load_decathlon_datalist` reads them: a class is a number, a label map is a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.errors import InputError
from medvae.synthesis.base_layout import relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from medvae.synthesis.base_layout import BaseLayout, RealSet
    from medvae.synthesis.rows import Row

_FILES = ("image", "label", "mask")  # keys of an item that may hold a path


def datalist(layout: BaseLayout, rows: Sequence[Row], real: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The list of a set: real items first, then the samples.

    Args:
        layout: of the set.
        rows: the samples.
        real: items of real scans, their paths as they have to be written.
    """
    synthesizer = layout.synthesizer
    classes = classes_of(layout.real) or sorted({name for row in rows if (name := row.facts["class"]) is not None})
    values = {str(value): layout.label_name(value) for value in layout.label_values}
    items = [*real, *(_item(row, classes, seed=synthesizer.seed) for row in rows)]
    tree = {
        "name": "synthetic scans",
        "description": f"Synthetic scans from medvae, sampler {synthesizer.settings.sampler}. Research use only.",
        "modality": {"0": synthesizer.model.preparation.settings.modality or "unknown"},
        "labels": values or {str(number): name for number, name in enumerate(classes)},
        "classes": classes,
    }
    known = {key: value for key, value in ({} if layout.real is None else layout.real.tree).items() if key in tree}
    return {**tree, **known, "numTraining": len(items), "numTest": 0, "training": items, "test": []}


def moved(item: Mapping[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """An item of a list in `folder`, with paths as seen from `out`."""
    paths = {key: value for key, value in item.items() if key in _FILES and isinstance(value, str)}
    files = {key: value for key, value in paths.items() if (folder / value).is_file()}
    return {**item, **{key: relative(folder / value, out) for key, value in files.items()}}


def classes_of(real: RealSet | None) -> list[str]:
    """The names of the classes of a real set, in the order of their numbers; none where its labels are label maps."""
    if real is None:
        return []
    if "classes" in real.tree:
        return [str(one) for one in real.tree["classes"]]
    if any(isinstance(scan.item.get("label"), str) for scan in real.scans):
        return []
    names = real.tree.get("labels", {})
    return [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else []


def check_classes(layout: BaseLayout) -> None:
    """Raise an InputError for a class that the real set does not have: it has no number there."""
    known = classes_of(layout.real)
    wrong = [str(one) for one in layout.synthesizer.weights if one is not None and one not in known]
    if known and wrong and layout.real is not None:
        message = f"the real set has the classes {', '.join(known)}, the samples also {', '.join(wrong)}"
        raise InputError(message, path=layout.real.folder, hint="train on the classes of the real set")


def _item(row: Row, classes: Sequence[str], *, seed: int) -> dict[str, Any]:
    facts = row.facts
    item: dict[str, Any] = {**row.conditions, "image": facts["image"]}
    item.pop("label", None)
    if facts["label_map"] is not None:
        item["label"] = facts["label_map"]
    if facts["class"] is not None:
        item["class" if facts["label_map"] is not None else "label"] = classes.index(facts["class"])
    return item | {"synthetic": True, "subject": facts["subject"], "sources": row.sources, "seed": seed}
