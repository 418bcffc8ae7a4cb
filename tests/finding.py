"""What tests of `find` share: empty files, what is found among them, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from medvae.cohort.find import Cohort, find
from medvae.errors import InputError
from medvae.scan import Selection
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import ScanRef


def touch(folder: Path, *names: str) -> None:
    """Empty files: names alone are looked at."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def look(*inputs: Path, **more: Any) -> Cohort:
    return find(Selection(inputs, **more), ReadSettings())


def refusal(*inputs: Path, **more: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        look(*inputs, **more)
    assert caught.value.hint
    return caught.value


def listed(folder: Path, text: str, **more: Any) -> tuple[ScanRef, ...]:
    """The scans that a list with this text names."""
    (folder / "list.csv").write_text(text, "utf-8")
    return look(folder / "list.csv", **more).refs
