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
