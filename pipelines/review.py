"""The pages of a run of `detect`, `augment` or `train`, made from the files in its folder, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medvae.cohort.names import plural
from medvae.errors import InputError, ScanError
from medvae.evaluation.masks import HINT, Masks, unmatched_in_words
from medvae.review.accepted import Accepted, write_accepted
from medvae.review.sample_list import SampleList
from medvae.review.sample_page import SamplePage
from medvae.review.scan_page import SCAN, ScanPage
from medvae.review.training_page import TrainingPage
from medvae.review.worklist import Worklist
from medvae.run.manifest import Manifest
from medvae.run.record import disk_errors, read_record
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from medvae.run.outcomes import Outcome


@dataclass(frozen=True)
class Reviewed:
    """What was written.

    Attributes:
        index: the worklist, or the page of a training, to be opened in a browser.
        pages: ids of the scans that have a page.
        without: ids of the scans that were done but got no page: a file that it needs is not there, or damaged. A page
            of an earlier run stays.
        damaged: why, by the id of those that have a file that cannot be used.
        lines: the text for a person.
    """

    index: Path
    pages: tuple[str, ...]
    without: tuple[str, ...]
    damaged: Mapping[str, ScanError]
    lines: tuple[str, ...]


class _Page(Protocol):
    """The page of one scan."""

    @property
    def id(self) -> str: ...

    def write(self, folder: Path) -> None: ...


def run(
    out: Path | str,
    *,
    truth: Path | str | None = None,
    verdicts: Path | str | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Reviewed:
    """Write the pages of a run of `detect`, `augment` or `train` anew, as `medvae review` does.

    A scan with a file that cannot be read, or with a mask that does not lie on it, gets no page; all others do.

    Args:
        out: output folder of the run, or model folder.
        truth: for `detect`: folder of masks of lesions, named as for `evaluate`; their outlines are drawn.
        verdicts: for `augment`: JSON that the pages exported; what it accepts is listed in `accepted.csv`.
        on_progress: called after each scan.

    Raises:
        InputError: no run in the folder, or one of another command; no folder of masks, or two masks that could be one
            scan's; no file of verdicts on this set.
        OutputError: the folder cannot be written.
    """
    out = Path(out)
    record = read_record(out)
    outcomes = sorted(Manifest(out / "manifest.jsonl").outcomes().values(), key=lambda one: one.id)
    done = [one for one in outcomes if one.status == "ok" and Path(one.id).name == one.id]  # no path from data
    if record["command"] == "train" and truth is None and verdicts is None:
        with disk_errors(out):
            index = TrainingPage(record).write(out)
        return Reviewed(index, (), (), {}, (f"{index}: open it in a browser",))
    if record["command"] == "augment" and truth is None:
        return _augment(out, record, outcomes, done, verdicts=verdicts, on_progress=on_progress)
    if record["command"] == "detect" and verdicts is None:
        masks = None if truth is None else Masks.below(Path(truth))
        return _detect(out, outcomes, done, masks=masks, on_progress=on_progress)
    hint = "give truth= for a run of detect, verdicts= for one of augment; use evaluate for verdicts on detect"
    raise InputError(f"a run of `medvae {record['command']}` has no such pages", path=out, hint=hint)


def _detect(
    out: Path,
    outcomes: Sequence[Outcome],
    done: Sequence[Outcome],
    *,
    masks: Masks | None,
    on_progress: Callable[[Progress], None],
) -> Reviewed:
    names = [one.id for one in done if (out / "scans" / one.id / SCAN).is_file()]
    truths = [None if masks is None else masks.of(name) for name in names]
    with disk_errors(out):
        pages = [ScanPage(name, truth) for name, truth in zip(names, truths, strict=True)]
        damaged = _write(pages, out, on_progress)
        index = Worklist.of_run(out, outcomes).write(out)
    lines = () if masks is None else _outlined(masks, names, sum(truth is not None for truth in truths))
    hint = "run detect again, pass overwrite=True and set detect.review=true"
    return _reviewed(index, names, done, damaged=damaged, hint=hint, more=lines)


def _outlined(masks: Masks, names: Sequence[str], found: int) -> tuple[str, ...]:
    """How many scans got the outline of a mask, and which masks belong to none."""
    others = masks.without_scan(names)
    counts = f"masks of lesions: {found} of {plural(len(names), 'scan')}"
    return (counts, *((unmatched_in_words(others), f"  hint: {HINT}") if others else ()))


def _augment(
    out: Path,
    record: dict[str, Any],
    outcomes: Sequence[Outcome],
    done: Sequence[Outcome],
    *,
    verdicts: Path | str | None,
    on_progress: Callable[[Progress], None],
) -> Reviewed:
    pages = [page for one in done if (page := SamplePage.of(one.id, one)).image(out)]
    with disk_errors(out):
        damaged = _write(pages, out, on_progress)
        index = SampleList(record, outcomes).write(out)
        lines = () if verdicts is None else _filtered(write_accepted(Path(verdicts), out, outcomes))
    names = [page.id for page in pages]
    return _reviewed(index, names, done, damaged=damaged, hint="run augment again", more=lines)


def _write(pages: Sequence[_Page], out: Path, on_progress: Callable[[Progress], None]) -> dict[str, ScanError]:
    """Write the pages; why some could not be made, by id."""
    damaged = {}
    for number, page in enumerate(pages):
        on_progress(Progress("review", number, len(pages), note=page.id))
        try:
            page.write(out)
        except ScanError as problem:
            damaged[page.id] = problem
    on_progress(Progress("review", len(pages), len(pages)))
    return damaged


def _reviewed(
    index: Path,
    tried: Sequence[str],
    done: Sequence[Outcome],
    *,
    damaged: Mapping[str, ScanError],
    hint: str,
    more: tuple[str, ...],
) -> Reviewed:
    pages = tuple(name for name in tried if name not in damaged)
    without = tuple(one.id for one in done if one.id not in set(pages))
    missing = [name for name in without if name not in damaged]
    lines = [f"{index}: open it in a browser; {plural(len(pages), 'page')}", *more]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        lines += [f"no page: {missing[0]}{others}: the image is not in the folder", f"  hint: {hint}"]
    if damaged:
        name, problem = next(iter(damaged.items()))
        others = f"; and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        lines += [f"no page: {name}: {problem}{others}", f"  hint: {problem.hint}"]
    return Reviewed(index, pages, without, damaged, tuple(lines))


def _filtered(found: Accepted) -> tuple[str, ...]:
    open_ones = found.samples - found.accepted - found.rejected - found.missing
    counts = f"{found.accepted} accepted, {found.rejected} rejected, {open_ones} without a verdict (left out, too)"
    counts += f", {found.missing} without an image (left out, too)" if found.missing else ""
    gone = "of images that are gone, " if found.missing else ""
    others = (f"{plural(found.others, 'verdict')} left out: {gone}of other scans or another run",)
    return (f"{' and '.join(found.files)}: {counts}", *(others if found.others else ()))
