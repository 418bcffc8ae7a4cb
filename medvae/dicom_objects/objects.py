"""All objects of one scan as files in memory; what the headers of its series cannot carry, with the reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medvae.dicom_objects.capture import capture
from medvae.dicom_objects.content import uid
from medvae.dicom_objects.encode import encode
from medvae.dicom_objects.fusion import fusion
from medvae.dicom_objects.parametric_map import parametric_map
from medvae.dicom_objects.report import report
from medvae.dicom_objects.segmentation import by_candidate, by_strength, segmentation, shown
from medvae.dicom_objects.source import NO_DICOM, Unfit
from medvae.io.dicom.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from medvae.dicom_objects.content import Content
    from medvae.dicom_objects.source import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objects:
    """What was made.

    Attributes:
        files: contents by name.
        warnings: what was not made, and why.
    """

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def __or__(self, other: Objects) -> Objects:
        """Both."""
        return Objects({**self.files, **other.files}, (*self.warnings, *other.warnings))


def map_and_candidates(source: Source, content: Content) -> Objects:
    """Parametric Map; with candidates also their segmentations and the report."""
    key = _key(source, content)

    def candidates() -> dict[str, bytes]:
        source.require_place()
        each = segmentation(source, content, by_candidate(content, key=key), key=key, offset=2)
        graded = segmentation(source, content, by_strength(content), key=key, offset=3)
        told = report(source, content, each, key=key)
        made = {"candidates": each, "strengths": graded, "report": told}
        return {f"{name}.dcm": encode(one, source, key=f"{key} {name}") for name, one in made.items()}

    def heat() -> dict[str, bytes]:
        source.require_place()
        return {"map.dcm": encode(parametric_map(source, content, key=key), source, key=f"{key} map")}

    made = _attempt("Parametric Map", heat)
    return made | _attempt("candidates", candidates) if shown(content) else made


def for_fusion(source: Source, content: Content, picture: NDArray[np.uint8]) -> Objects:
    """The map as a series of single slices, and the picture as a secondary capture.

    Args:
        source: the series.
        content: map and candidates.
        picture: `(rows, columns, 3)` in RGB.
    """
    key = _key(source, content)

    def slices() -> dict[str, bytes]:
        source.require_place()
        made = fusion(source, content, key=key)
        return {f"fusion/{number:04d}.dcm": encode(one, source, key=key) for number, one in enumerate(made, start=1)}

    def pictures() -> dict[str, bytes]:
        return {"picture.dcm": encode(capture(source, content, picture, key=key), source, key=key)}

    return _attempt("series for fusion", slices) | _attempt("picture", pictures)


def _attempt(what: str, make: Callable[[], dict[str, bytes]]) -> Objects:
    """What is made, or the reason why it is not; a message of highdicom may quote the patient, and is not passed on."""
    try:
        with quiet():
            return Objects(make())
    except MemoryError:
        raise
    except Unfit as reason:
        return Objects(warnings=(f"{NO_DICOM}: {what} not written: {reason}",))
    except Exception as problem:
        log.debug("highdicom: %s at line %s", type(problem).__name__, _line(problem))
        kind = type(problem).__name__
        return Objects(warnings=(f"{NO_DICOM}: {what} not written: highdicom refuses the headers ({kind})",))


def _line(problem: BaseException) -> int:
    """The line of the code that raised it."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return 0 if trace is None else trace.tb_lineno


def _key(source: Source, content: Content) -> str:
    """What all UIDs of a scan's objects follow from: the series and the result."""
    return uid(source.key, content.digest())
