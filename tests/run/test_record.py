"""What a run is, and what a full disk is called."""

from __future__ import annotations

import errno
import json
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

from medvae.errors import OutputError
from medvae.io.files import PARTIAL
from medvae.io.owner import me
from medvae.run import record
from medvae.run.record import disk_errors, hash_of, new_record

if TYPE_CHECKING:
    from pathlib import Path


def test_two_records_of_one_run_differ_in_their_times_alone() -> None:
    one, other = new_record("detect", {"maps": ["kl"]}), new_record("detect", {"maps": ["kl"]})
    other["started"] = "2031-01-01T00:00:00+0000"
    assert {key: value for key, value in one.items() if key not in record.TIMES} == {
        key: value for key, value in other.items() if key not in record.TIMES
    }


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_that_was_to_be(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutputError) as caught, disk_errors(tmp_path):
        raise OSError(number, "full", str(tmp_path / f"{PARTIAL}{me()}-map.nii.gz"))
    assert str(caught.value) == "map.nii.gz: the disk is full"
    with pytest.raises(OutputError, match="disk is full"), disk_errors(tmp_path):
        raise RuntimeError("PytorchStreamWriter: 64 requested and 12 written")


def test_other_errors_of_writing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write: odd"), disk_errors(tmp_path):
        raise OSError("odd")
    with pytest.raises(ValueError, match="mine"), disk_errors(tmp_path):
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({}, {"1": "a"}, "augment.label_names differs"),
        ({"1": "a"}, {}, "augment.label_names differs"),
        ({"1": "a", "2": "b"}, {"1": "a", "2": "c"}, "augment.label_names.2 differs"),
    ],
)
def test_a_difference_is_said_once(tmp_path: Path, before: dict[str, str], now: dict[str, str], words: str) -> None:
    """A mapping that is empty in one of two runs is a leaf there, and has leaves in the other."""
    there, mine = (new_record("augment", {"augment": {"label_names": names}}) for names in (before, now))
    (tmp_path / "run.json").write_text(json.dumps(there), "utf-8")
    with pytest.raises(OutputError, match=rf"holds another run: {words}\n"):
        record.refuse_other_run(tmp_path, mine)


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(record, "version", version)
    assert "torch" not in record._versions()
    assert record._versions()["numpy"] == "1"
