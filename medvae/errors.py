"""Every error medvae raises, and the one table of codes that a scan can end with.

MedVAEError
├── ScanError         one scan cannot be used; the other scans go on
└── RunError          the run cannot be carried out; nothing was lost
    ├── SettingsError     an unknown key, a wrong type, an unknown name
    ├── InputError        nothing usable among the inputs, a list that cannot be read
    ├── ModelError        a checkpoint that is missing, damaged or of another kind
    ├── OutputError       the output folder cannot be used, the disk is full
    └── TrainingError     training went wrong in a way that a setting can correct (`medvae.training.learner`)
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

Status = Literal["skipped", "rejected", "failed"]


@dataclass(frozen=True)
class Code:
    """What one code means: how the scan ends, the meaning in words, and what the user can do."""

    status: Status
    meaning: str
    hint: str


# In order of precedence: where several reasons hold, the first in this table gives the code.
CODES: dict[str, Code] = {
    "unreadable": Code(
        "rejected", "the file cannot be opened", "check that it exists and that you have read permission"
    ),
    "not_a_scan": Code(
        "rejected", "the file is not what its name says", "replace it with the real file, or exclude it"
    ),
    "not_image": Code("skipped", "the DICOM object holds no image volume", "ignore it: there is nothing to do"),
    "truncated": Code("rejected", "the file ends too early", "copy or export the file again"),
    "corrupt": Code("rejected", "the file's contents are damaged", "copy or export the file again"),
    "malformed": Code("rejected", "a header value is invalid", "export the file again, or repair the named field"),
    "too_large": Code(
        "rejected", "the header claims a larger volume than the limit", "raise read.max_gib if the file is real"
    ),
    "unsupported_type": Code("rejected", "the data type is not supported", "convert it to a real-valued scalar image"),
    "unpaired": Code("rejected", "one half of a .hdr/.img pair is missing", "put both halves into the same folder"),
    "no_geometry": Code("rejected", "the file has no geometry", "export it with its geometry"),
    "no_orientation": Code("rejected", "the file has no orientation", "set read.assume_orientation=RAS if you know it"),
    "bad_affine": Code("rejected", "the affine is singular or not finite", "repair the header"),
    "not_3d": Code("rejected", "the file does not hold one 3D volume", "choose one volume: set read.volume=N"),
    "colour": Code("rejected", "the image is in colour", "export it as a greyscale image"),
    "mosaic": Code(
        "rejected", "several slices are tiled into one frame (mosaic)", "convert it first, e.g. with dcm2niix"
    ),
    "mixed_series": Code("rejected", "one series holds several kinds of images", "split it: set read.split_mixed=true"),
    "duplicate_positions": Code(
        "rejected", "several slices have the same position", "export one volume (time point, echo, b-value) per series"
    ),
    "too_few_slices": Code("rejected", "fewer than 3 slices", "export the whole series"),
    "uneven_spacing": Code("rejected", "the slices are not evenly spaced", "export the missing slices"),
    "gantry_tilt": Code(
        "rejected",
        "the slices are sheared (gantry tilt), or one is shifted in its plane",
        "correct the tilt first, e.g. with dcm2niix, or export the slices that belong together",
    ),
    "modality_lut": Code("rejected", "the values use a Modality LUT", "export with rescale slope and intercept"),
    "undecodable": Code("rejected", "the compressed pixels cannot be decoded", "export uncompressed"),
    "non_finite": Code("rejected", "NaN or infinite voxels", "fill them: set read.fill_non_finite=true"),
    "blank": Code("rejected", "all voxels have the same value", "check the export"),
    "wrong_modality": Code(
        "rejected", "the modality of the scan is not that of the model", "use a model trained on that modality"
    ),
    "mask_mismatch": Code(
        "rejected",
        "a mask or label map is not on the grid of its scan",
        "give a mask or label map on the grid of the scan",
    ),
    "template_mismatch": Code(
        "rejected",
        "the template series of the DICOM objects does not have the voxels of the scan",
        "name the folder of the series that the scan was made from",
    ),
    "no_foreground": Code(
        "rejected", "no foreground was found", "check the scan, or give a mask (in a list: column `mask`)"
    ),
    "values_too_large": Code(
        "rejected",
        "the prepared values are too large to be kept (float16)",
        "set prepare.intensity=robust_z or window, and train with it",
    ),
    "doubtful_alignment": Code(
        "rejected",
        "the scan resembles the template too little to be sure of its alignment",
        "set read.on_doubtful=accept and look at its picture, or use a model of its contrast (FLAIR is not T1)",
    ),
    "doubtful_contrast": Code(
        "rejected",
        "the scan does not have the tissue contrast of T1",
        "use a model of its contrast, or train one with prepare.contrast=any",
    ),
    "registration_failed": Code(
        "rejected",
        "the scan could not be aligned to the template",
        "check its orientation, field of view and contrast, or align it first",
    ),
    "unknown_condition": Code(
        "rejected",
        "a condition has a value that training did not have",
        "correct the value, or leave it empty (missing)",
    ),
    "seen_in_training": Code(
        "skipped", "the scan or its subject was used in training", "ignore it: it is not used for calibration"
    ),
    "read_as_lesion": Code(
        "skipped", "a reader called a candidate of the scan a lesion", "ignore it: it is not used for calibration"
    ),
    "not_read_as_healthy": Code(
        "skipped",
        "a reader was unsure of a candidate of the scan, or left one without a verdict",
        "ignore it, or judge all of its candidates on its page",
    ),
    "implausible": Code(
        "rejected",
        "every draw of a synthetic scan was implausible or a near-copy",
        "train longer or on more scans, choose another sampler, or set augment.reject=false to write it anyway",
    ),
    "not_in_training": Code(
        "skipped",
        "the scan could not be used when the training that goes on was begun",
        "ignore it: the training goes on without it, or pass overwrite=True to begin anew with it",
    ),
    "claimed": Code(
        "skipped",
        "another run is working on this scan",
        "run again when it has ended; a run that was killed on another machine counts as ended after 10 minutes",
    ),
    "out_of_memory": Code(
        "failed",
        "out of memory",
        "use a machine with more memory or, where scans are read, fewer workers (workers=0)",
    ),
    "internal": Code("failed", "an unexpected error", "look at the log with level DEBUG, and report it"),
}

_RANK = {code: rank for rank, code in enumerate(CODES)}


class MedVAEError(Exception):
    """Base of all errors that medvae raises on purpose.

    Args:
        message: what was found, with the value seen and what is allowed.
        code: a stable name of the error, e.g. ``"truncated"``.
        path: the file it is about. Only its name is shown.
        hint: what to do next.
    """

    def __init__(
        self, message: str, *, code: str, path: str | PathLike[str] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.path = None if path is None else str(path)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # so that a traceback shows it, too

    def __reduce__(self) -> tuple[object, ...]:  # errors travel from worker processes
        return _rebuild, (type(self), self.message, self.code, self.path, self.hint)

    def __str__(self) -> str:
        name = "" if self.path is None else f"{self.path.replace(chr(92), '/').rsplit('/', 1)[-1]}: "
        return f"{name}{self.message}"


class ScanError(MedVAEError):
    """One scan cannot be used. Its `code` is a key of `CODES`, which gives status and default hint."""

    def __init__(
        self, message: str, *, code: str, path: str | PathLike[str] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, path=path, hint=hint or CODES[code].hint)

    @property
    def status(self) -> Status:
        """How the scan ends: skipped, rejected or failed."""
        return CODES[self.code].status

    @classmethod
    def of_all(cls, reasons: Iterable[tuple[str, str]], *, path: str | PathLike[str] | None = None) -> ScanError:
        """One error of several `(code, message)` reasons; the code is the first by precedence."""
        ordered = sorted(reasons, key=lambda reason: _RANK[reason[0]])
        return cls("; ".join(message for _, message in ordered), code=ordered[0][0], path=path)


class RunError(MedVAEError):
    """The run cannot be carried out (exit code 2)."""

    default_code = "run"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        path: str | PathLike[str] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code or self.default_code, path=path, hint=hint)


class SettingsError(RunError):
    """A setting is unknown, of a wrong type or out of range."""

    default_code = "settings"


class InputError(RunError):
    """There is nothing usable among the inputs, or a list cannot be read."""

    default_code = "input"


class ModelError(RunError):
    """A checkpoint or Reference is missing, damaged, or belongs to something else."""

    default_code = "model"


class OutputError(RunError):
    """The output folder cannot be used, or the disk is full."""

    default_code = "output"


def is_disk_full(problem: BaseException) -> bool:
    """Whether no space is left, said by the number of the error or, as compiled libraries do, by its text."""
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return bool(re.search(r"No space left on device|StorageFull|\d+ requested and \d+ written", str(problem)))


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether memory ran out, on the CPU or a GPU."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return bool(re.search(r"not enough memory|can't allocate memory|CUDA out of memory", str(problem)))


def _rebuild(kind: type[MedVAEError], message: str, code: str, path: str | None, hint: str | None) -> MedVAEError:
    return kind(message, code=code, path=path, hint=hint)
