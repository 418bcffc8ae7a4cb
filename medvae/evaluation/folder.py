"""The folder that evaluations write below that of a run, and the removal of those of an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.io.files import remove_matching

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "evaluation"  # in the folder of a run
_FILES = (
    *("evaluation.json", "evaluation.md", "froc.png", "precision_recall_*.png"),  # of `detect`
    *("augment.json", "augment.md", "fidelity.png", "nearest.png", "utility.png"),  # of `augment`
)


def remove_evaluation(out: Path) -> None:
    """Remove what was evaluated of an earlier run from its folder; other files there stay.

    Args:
        out: folder of the run.

    Raises:
        OSError: a file cannot be removed.
    """
    remove_matching(out / FOLDER, _FILES)
