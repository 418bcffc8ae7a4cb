"""Datalists as MONAI's `load_decathlon_datalist` reads them: a class is a number, a label map is a path.

`label` means one thing in a list: the label map where any training scan has one, and the class is then called `class`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.errors import InputError
from medvae.synthesis import splits
from medvae.synthesis.base_layout import relative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medvae.synthesis.base_layout import BaseLayout, RealScan, RealSet
    from medvae.synthesis.rows import Row

_FILES = ("image", "label", "mask")  # keys of an item that may hold a path
_NO_OTHERS: Mapping[str, Sequence[Mapping[str, Any]]] = {}


def datalist(
    layout: BaseLayout,
    rows: Sequence[Row],
    real: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[Mapping[str, Any]]] = _NO_OTHERS,
) -> dict[str, Any]:
    """The list of a set: real items first, then the samples.

    Args:
        layout: of the set.
        rows: the samples.
        real: items of real scans, their paths as they have to be written.
        others: items of real scans that are not trained on, by the name of their list.
    """
    synthesizer = layout.synthesizer
    classes = classes_of(layout.real) or sorted(one for one in synthesizer.weights if one is not None)
    values = {str(value): layout.label_name(value) for value in layout.label_values}
    samples = [_item(row, classes, seed=synthesizer.seed) for row in rows]
    lists = {"training": [*real, *samples], "test": [], **others}
    with_maps = any(map(_has_map, lists["training"]))
    if with_maps:
        lists = {name: [_with_class(item) for item in items] for name, items in lists.items()}
    tree = {
        "name": "synthetic scans",
        "description": f"Synthetic scans from medvae, sampler {synthesizer.settings.sampler}. Research use only.",
        "modality": {"0": synthesizer.model.preparation.settings.modality or "unknown"},
        "labels": values or {str(number): name for number, name in enumerate(classes)},
        "classes": classes,
    }
    said = {} if layout.real is None else layout.real.tree
    known = {key: value for key, value in said.items() if key in tree and value is not None}
    if with_maps and not any(map(_has_map, real)):
        known.pop("labels", None)  # they name classes
    return {**tree, **known, "numTraining": len(lists["training"]), "numTest": len(lists["test"]), **lists}


def moved(item: Mapping[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """An item of a list in `folder`, with paths as seen from `out`."""
    paths = {key: value for key, value in item.items() if key in _FILES and isinstance(value, str)}
    files = {key: value for key, value in paths.items() if key == "image" or (folder / value).is_file()}
    return {**item, **{key: relative(folder / value, out) for key, value in files.items()}}


def classes_of(real: RealSet | None) -> list[str]:
    """The names of the classes of a real set, in the order of their numbers; none where its labels are label maps.

    Raises:
        InputError: `labels` of the set has numbers neither as keys (MONAI) nor as values (nnU-Net).
    """
    if real is None:
        return []
    if isinstance(real.tree.get("classes"), list):
        return [str(one) for one in real.tree["classes"]]
    if any(isinstance(scan.item.get("label"), str) for scan in real.scans):
        return []
    names = real.tree.get("labels")
    if not isinstance(names, dict):
        return []
    if all(isinstance(number, int) for number in names.values()):
        names = {str(number): name for name, number in names.items()}
    if not all(key.isdecimal() for key in names):
        hint = 'write it as {"0": "name", "1": "name"}'
        raise InputError("`labels` of the real set does not number its names", path=real.folder, hint=hint)
    return [str(names[key]) for key in sorted(names, key=int)]


def check_classes(layout: BaseLayout) -> None:
    """Raise an InputError for a class that the real set does not have: it has no number there."""
    known = classes_of(layout.real)
    wrong = [str(one) for one in layout.synthesizer.weights if one is not None and one not in known]
    if known and wrong and layout.real is not None:
        message = f"the real set has the classes {', '.join(known)}, the samples also {', '.join(wrong)}"
        raise InputError(message, path=layout.real.folder, hint="train on the classes of the real set")


def check_labels(layout: BaseLayout) -> None:
    """Raise an InputError for labels of the real set that are no files or numbers, or do not have the samples' values.

    A text would be taken for the path of a label map; a value without a name means something else there, or nothing.
    """
    if layout.real is None:
        return
    texts = [label for scan in layout.real.scans if isinstance(label := scan.item.get("label"), str)]
    if wrong := [one for one in texts if not (layout.real.folder / one).is_file()]:
        message = f"an item of `training` has the label {wrong[0]!r}, which is neither a file nor a number"
        raise InputError(message, path=layout.real.folder, hint="correct the path, or give classes as numbers")
    names = layout.real.tree.get("labels")
    known = {str(one) for pair in names.items() for one in pair} if isinstance(names, dict) else set()
    unknown = [value for value in layout.label_values if value != 0 and str(value) not in known]
    if texts and known and unknown:
        message = f"the samples have the labels {unknown}, which the real set does not name"
        raise InputError(message, path=layout.real.folder, hint="train on label maps with the values of the real set")


def held_out_lines(layout: BaseLayout, rows: Sequence[Row], held_out: Sequence[RealScan]) -> list[str]:
    """A warning where samples hold the data of real scans of other sections than `training`."""
    found = splits.data_of_others(rows, held_out, layout.synthesizer)
    if not found:
        return []
    whose = "hold the data of real scans that are not listed for training, by their voxels or names"
    return [f"{len(found)} of {len(rows)} samples {whose}: train the model without these scans"]


def _has_map(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("label"), str)


def _with_class(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """An item whose class is called `class`."""
    if "label" not in item or _has_map(item):
        return item
    rest = {key: value for key, value in item.items() if key != "label"}
    return {"class": item["label"], **rest}


def _item(row: Row, classes: Sequence[str], *, seed: int) -> dict[str, Any]:
    facts = row.facts
    item: dict[str, Any] = {**row.conditions, "image": facts["image"]}
    item.pop("label", None)
    if facts["label_map"] is not None:
        item["label"] = facts["label_map"]
    if facts.get("mask") is not None:
        item["mask"] = facts["mask"]
    if facts["class"] is not None:
        item["class" if facts["label_map"] is not None else "label"] = classes.index(facts["class"])
    return item | {"synthetic": True, "subject": facts["subject"], "sources": row.sources, "seed": seed}
