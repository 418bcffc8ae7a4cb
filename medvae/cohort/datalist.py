"""Lists in JSON: an array of rows, a MONAI datalist, or the run record of a synthetic set.

An object of a MONAI datalist has `image` where ours has `scan`, and `label`: a file is a label map, a number or a text
is a class.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from medvae.cohort.rows import HINT, MODALITIES, NO_LIST, row
from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medvae.cohort.rows import Row

_IMAGES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".dcm")  # a label that ends so is a file
_OTHER_IMAGES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".npy", ".npz")  # so is this one: it is refused, not a class
_SECTIONS = ("training", "validation", "test", "testing")  # of a datalist, where the items are plain texts


def parse(text: str, path: Path) -> list[Row] | Path:
    """The rows in a JSON text, or the list that it stands for.

    Raises:
        InputError: it is no JSON, no list, or a value in it is not allowed.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as problem:
        hint = "check it, e.g. with `python -m json.tool`"
        raise InputError(f"not valid JSON: {problem}", code=NO_LIST, path=path, hint=hint) from None
    if isinstance(tree, list):
        return [_item(item, f"item {n}", path) for n, item in enumerate(tree, start=1)]
    if isinstance(tree, dict) and {"command", "medvae"} <= set(tree):
        if tree["command"] == "augment":
            return path.with_name("labels.csv")
        hint = "name the folder or the list of the scans"
        message = f"the record of a {tree['command']!r} run lists no scans"
        raise InputError(message, code=NO_LIST, path=path, hint=hint)
    return _datalist(tree, path)


def _datalist(tree: Any, path: Path) -> list[Row]:
    """Every section of a MONAI datalist; the name of the section is the split."""
    sections = (
        {name: items for name, items in tree.items() if _is_section(name, items)} if isinstance(tree, dict) else {}
    )
    if not sections:
        message = "neither an array of rows nor a datalist with training, validation or test"
        raise InputError(message, code=NO_LIST, path=path, hint=HINT)
    classes, modality = _class_names(tree), _only_modality(tree.get("modality"))
    rows = []
    for section, items in sections.items():
        for n, item in enumerate(items, start=1):
            plain = {"image": item} if isinstance(item, str) else item
            extra = {"split": section} | ({"modality": modality} if modality else {})
            rows.append(_item(extra | plain, f"{section} item {n}", path, classes=classes))
    return rows


def _is_section(name: str, items: Any) -> bool:
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(item, dict) and "image" in item for item in items) or (
        name in _SECTIONS and all(isinstance(item, dict | str) for item in items)
    )


def _class_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """Number of a class -> its name: our `classes`, or MONAI's `labels` (which name the voxels of label maps, too)."""
    if isinstance(tree.get("classes"), list) and tree["classes"]:
        return {str(n): str(name) for n, name in enumerate(tree["classes"])}
    labels = tree.get("labels")
    return {str(n): str(name) for n, name in labels.items()} if isinstance(labels, dict) else {}


def _only_modality(stated: Any) -> str | None:
    """A datalist states one modality a channel, as {"0": "MRI"}; other names than ours say nothing we use."""
    names = set(stated.values()) if isinstance(stated, dict) else {stated}
    return next((name for name in names if isinstance(name, str) and name.upper() in MODALITIES), None)


def _item(item: Any, where: str, path: Path, *, classes: Mapping[str, str] | None = None) -> Row:
    """One object of a JSON list: a row of ours, or MONAI's, which has `image` where ours has `scan`."""
    if not isinstance(item, dict):
        raise InputError(f"{where} is not an object", code=NO_LIST, path=path, hint=HINT)
    if "image" not in item:
        return row(item, where, path)
    image, label = _only(item["image"]), _only(item.get("label"))
    if not isinstance(image, str):
        hint = "write a list that names one file per scan: a scan has one channel"
        raise InputError(f"{where}: `image` is not one file", path=path, hint=hint)
    cells = {name: value for name, value in item.items() if name not in ("image", "label")}
    if isinstance(label, str) and label.lower().endswith(_IMAGES + _OTHER_IMAGES):
        label_map, label = label, cells.pop("class", None)
        cells = {"label_map": label_map} | cells
    cells |= {"scan": image, "label": None if label is None else (classes or {}).get(str(label), label)}
    return row(cells, where, path)


def _only(value: Any) -> Any:
    """What is in an array of one: MONAI writes several channels as an array."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
