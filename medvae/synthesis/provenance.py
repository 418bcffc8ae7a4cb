"""What is said of a synthetic scan: how it was made, of whom, in which unit; in its sidecar and in lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.synthesis.generate import is_binary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample, Synthesis


def describe(sample: Sample, made: Synthesis) -> dict[str, Any]:
    """How a sample was made, enough to make it again with the same model: the contents of its sidecar."""
    scale = sample.intensity
    return {
        "sampler": made.settings.sampler,
        "class": sample.label,
        "sources": list(sample.sources),
        "seed": made.seed,
        "index": sample.index,
        "parameters": sample.parameters,
        "settings": made.settings.model_dump(mode="json"),
        "texture": made.texture is not None,
        "units": units(made.model),
        "intensity": {"of": sample.intensity_of, "offset": scale.offset, "scale": scale.scale},
        "model": made.model.hash,
    }


def subject(sample: Sample, model: Model, *, otherwise: str) -> str:
    """Whose scan it is for a split: its only source's subject, so that nobody stands on both sides; else its own."""
    if len(sample.sources) != 1:
        return otherwise
    return dict(zip(model.latents.ids, model.latents.subjects, strict=True))[sample.sources[0]]


def units(model: Model) -> str:
    """The unit of the synthetic scans' values, that of the training scans wherever it is known."""
    settings = model.preparation.settings
    if is_binary(model):
        return "binary"
    if settings.modality == "CT":
        return "HU"
    if settings.intensity == "robust_z" and not model.training.ids:
        return "robust z (the model keeps no training scan, so no real scale is known)"
    return str(model.training.units)


def no_label_maps(made: Synthesis) -> str | None:
    """Why there are no label maps; None where there are some."""
    if made.model.training.label_maps is None:
        return "not written: the model keeps no label maps of its training scans"
    if made.space == "latent":
        return "not written: the decoder makes images only; the sampler `classical` warps label maps along"
    return None


def dataset(rows: Sequence[Mapping[str, Any]], made: Synthesis) -> dict[str, Any]:
    """The list that `monai.data.load_decathlon_datalist` reads: a class is a number, a label map is a path.

    Args:
        rows: of the samples: `image`, `label_map`, `class`, `subject`, `sources`.
        made: what made them.
    """
    classes = sorted({row["class"] for row in rows if row["class"] is not None})
    names = {str(number): name for number, name in enumerate(classes)}
    maps = made.model.training.label_maps
    if maps is not None and no_label_maps(made) is None:
        names = {str(int(value)): "background" if value == 0 else str(int(value)) for value in np.unique(maps)}
    return {
        "name": "synthetic scans",
        "description": f"Synthetic scans, made by medvae with the sampler {made.settings.sampler}. Research use only.",
        "modality": {"0": made.model.preparation.settings.modality or "unknown"},
        "labels": names,
        "classes": classes,
        "numTraining": len(rows),
        "numTest": 0,
        "training": [_item(row, classes, made) for row in rows],
        "test": [],
    }


def _item(row: Mapping[str, Any], classes: Sequence[str], made: Synthesis) -> dict[str, Any]:
    item: dict[str, Any] = {"image": row["image"]}
    if row["label_map"] is not None:
        item["label"] = row["label_map"]
    if row["class"] is not None:
        item["class" if "label" in item else "label"] = classes.index(row["class"])
    sources = [one for one in row["sources"].split(";") if one]
    return item | {"synthetic": True, "subject": row["subject"], "sources": sources, "seed": made.seed}
