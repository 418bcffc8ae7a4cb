"""The pages of a run of `detect`, made from the files in its folder, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medvae.cohort.names import plural
from medvae.evaluation.masks import Masks
from medvae.review.scan_page import SCAN, ScanPage
from medvae.review.worklist import Worklist, require_run
from medvae.run.folder import disk_errors
from medvae.run.manifest import Manifest
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Reviewed:
    """What was written.

    Attributes:
        index: the worklist, to be opened in a browser.
        pages: ids of the scans that have a page.
        without: ids of the scans that have maps but no page: `detect` kept no picture of the scan.
        lines: the text for a person.
    """

    index: Path
    pages: tuple[str, ...]
    without: tuple[str, ...]
    lines: tuple[str, ...]


def run(
    out: Path | str, *, truth: Path | str | None = None, on_progress: Callable[[Progress], None] = ignore
) -> Reviewed:
    """Write the pages of a run of `detect` anew, as `medvae review` does.

    Args:
        out: output folder of `detect`.
        truth: folder of masks of lesions, named as for `evaluate`; their outlines are drawn.
        on_progress: called after each scan.

    Raises:
        InputError: no run of `detect` in the folder, or two masks that could be one scan's.
        ScanError: a file cannot be read, or a mask does not lie on its scan.
        OutputError: the folder cannot be written.
    """
    out = Path(out)
    require_run(out)
    outcomes = sorted(Manifest(out / "manifest.jsonl").outcomes().values(), key=lambda one: one.id)
    masks = None if truth is None else Masks.below(Path(truth))
    done = [one.id for one in outcomes if one.status == "ok" and Path(one.id).name == one.id]  # no path from data
    pages = [name for name in done if (out / "scans" / name / SCAN).is_file()]
    with disk_errors(out):
        for number, name in enumerate(pages):
            on_progress(Progress("review", number, len(pages), note=name))
            ScanPage(name, None if masks is None else masks.of(name)).write(out)
        on_progress(Progress("review", len(pages), len(pages)))
        index = Worklist.of_run(out, outcomes).write(out)
    without = tuple(name for name in done if name not in pages)
    return Reviewed(index, tuple(pages), without, _lines(index, len(pages), without))


def _lines(index: Path, pages: int, without: tuple[str, ...]) -> tuple[str, ...]:
    lines = [f"{index}: open it in a browser; {plural(pages, 'page')}"]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        lines.append(f"no page: {without[0]}{more}: detect kept no picture of the scan")
        lines.append("  hint: repeat detect, set detect.review=true")
    return tuple(lines)
