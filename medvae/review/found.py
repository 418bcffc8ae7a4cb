"""What `detect` found in one scan, as its page and the worklist read it from `findings.json`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NoReturn, Self

from medvae.errors import ScanError
from medvae.review.verdicts import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FINDINGS = "findings.json"


@dataclass(frozen=True)
class Found:
    """The contents of the file.

    Attributes:
        tree: by name; `map`, `unit`, the candidates' numbers and volumes, and the limits of `scores` are there.
        key: under which verdicts on this result are kept.
    """

    tree: Mapping[str, Any]
    key: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From the folder of a scan.

        Raises:
            ScanError: the file is missing or damaged.
        """
        path = folder / FINDINGS
        try:
            data = path.read_bytes()
            tree = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        except OSError as problem:
            raise ScanError(problem.strerror or str(problem), code="unreadable", path=path) from problem
        except (ValueError, RecursionError) as problem:
            raise ScanError("not whole JSON", code="corrupt", path=path) from problem
        if not _is_complete(tree):
            message = "lacks the map, its limit or the candidates"
            raise ScanError(message, code="malformed", path=path, hint="run detect again")
        return cls(tree, key_of(data))


def _is_complete(tree: Any) -> bool:
    """Whether all is there that is computed with. Names of maps become names of files, so none may be a path."""
    try:
        numbers = [one["limit"] for one in tree["scores"].values()]
        numbers += [one[name] for one in tree["candidates"] for name in ("number", "volume_ml")]
        names = (isinstance(tree["unit"], str), *(isinstance(one["unit"], str) for one in tree["scores"].values()))
        finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        return tree["map"] in tree["scores"] and finite and all(names) and all(map(_is_name, tree["scores"]))
    except (LookupError, TypeError, AttributeError, OverflowError):
        return False


def _is_name(text: str) -> bool:
    return text == PurePosixPath(text).name == PureWindowsPath(text).name != ".."


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
