"""The page of a training, made from the files of the model folder: curves, reconstructions, the cohort, the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvae.io.files import write_text
from medvae.review.filling import FOLDER, base64_text, filled, json_text, write_assets
from medvae.review.latent_map import LATENT_MAP
from medvae.run.record import RESEARCH_USE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CURVES = ("step", "loss", "validation", "error", "validation_error", "mean_image_error", "kl", "active", "best")
_FACTS = ("training", "steps", "kept_step", "validation_error", "mean_image_error", "active_units", "kl", "warnings")


@dataclass(frozen=True)
class TrainingPage:
    """`review/index.html` of a model folder.

    Attributes:
        record: of the training, as `run.json` has it.
    """

    record: Mapping[str, Any]

    def write(self, out: Path) -> Path:
        """Write it into `out`/review; returns the page.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        folder = out / FOLDER
        write_assets(folder, "training.html")
        facts = {
            "notice": RESEARCH_USE,
            "epochs": _epochs(out / "log" / "train.jsonl"),
            "map": _json(out / LATENT_MAP),
            "card": _card(self.record),
        }
        data = {"facts": json_text(facts)}
        if (out / "reconstructions.png").is_file():
            data["reconstructions"] = base64_text((out / "reconstructions.png").read_bytes())
        write_text(folder / "index.html", filled("training.html", data))
        return folder / "index.html"


def _epochs(log: Path) -> list[dict[str, Any]]:
    """The numbers of the curves, the latest version of each step; half a line of a killed run is left out."""
    known = {}
    for line in log.read_text("utf-8").splitlines() if log.is_file() else ():
        try:
            tree = json.loads(line)
            known[int(tree["step"])] = {name: tree.get(name) for name in _CURVES}
        except (ValueError, LookupError, TypeError):
            continue
    return [known[step] for step in sorted(known)]


def _json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where it is not there, as in the folder of an older version."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _card(record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the model."""
    settings = record.get("identity", {}).get("settings", {})
    versions = record.get("versions", {})
    return {
        **{name: record.get(name) for name in _FACTS},
        "validation": len(record.get("validation") or ()),
        "hash": record.get("model", ""),
        "medvae": record.get("medvae", ""),
        "started": record.get("started", ""),
        "seconds": record.get("seconds"),
        "minutes": record.get("length", {}).get("minutes"),
        "counts": record.get("counts", {}),
        "machine": {name: versions.get(name) for name in ("python", "machine", "torch")},
        "prepare": settings.get("prepare", {}),
        "network": settings.get("model", {}).get("name"),
        "conditions": settings.get("model", {}).get("conditions", []),
        "likelihood": settings.get("likelihood", {}).get("family"),
        "seed": settings.get("seed"),
    }
