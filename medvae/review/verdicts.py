"""The file of verdicts that the pages export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "medvae-verdicts"
NO_LESION = ("normal variant", "artefact")


@dataclass(frozen=True)
class Said:
    """What a reader said about one scan.

    Attributes:
        key: of the result that was looked at.
        candidates: verdicts by a candidate's number.
        verdict: on the scan as a whole: "accept" or "reject" for a synthetic scan, "" where there is none.
        scan_hash: of the scan that `detect` was given; "" for a synthetic scan.
        found: how many candidates it has.
    """

    key: str
    candidates: Mapping[str, str]
    verdict: str
    scan_hash: str = ""
    found: int = 0


def key_of(result: bytes) -> str:
    """Under which the verdicts on a result are kept: another result of a scan has another key.

    Args:
        result: bytes of the file that stands for it.
    """
    return sha256(result).hexdigest()[:16]


def read(path: Path) -> list[Said]:
    """The scans of a file.

    Raises:
        InputError: it is no file of verdicts.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
        if tree["format"] != FORMAT:
            raise ValueError
        return [_said(one) for one in tree["scans"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        hint = "pass a JSON file that the pages exported"
        raise InputError("not a file of verdicts", path=path, hint=hint) from None


def _said(one: Mapping[str, Any]) -> Said:
    return Said(
        key=str(one["key"]),
        candidates=dict(one["candidates"]),
        verdict=str(one.get("verdict", "")),
        scan_hash=str(one.get("scan_hash", "")),
        found=int(one.get("found", 0)),
    )
